//! Single files: as folders, and of folders.

use std::{fs, path::Path};

use anyhow::{Result, bail};
use langevin::{
    Lora, pipelines,
    weights::{Precision, single_file::SingleFile},
};
use langevin_hub::ModelFiles;

use super::ConvertArgs;
use crate::{hub::Names, loading::in_folders, terminal};

/// Writes the folder of a single file's components.
pub(super) fn unpack(args: &ConvertArgs) -> Result<()> {
    for (flag, given) in [
        ("--scheduler", args.scheduler.is_some()),
        ("--variant", args.variant.is_some()),
    ] {
        if given {
            bail!("{flag} does not go with a single file: its scheduler is that of its kind, or of --config");
        }
    }
    let mut file = SingleFile::open(&args.input)?;
    if let Some(kind) = args.single.kind {
        file = file.of_kind(kind);
    }
    if args.single.ema {
        file = file.with_ema()?;
    }
    let precision = args.precision.unwrap_or(Precision::Stored);
    pipelines::unpack(
        &file,
        &args.output,
        args.single.config.as_deref(),
        precision,
        &in_folders(&args.lora)?,
    )?;
    let components: Vec<String> = file.components().iter().map(ToString::to_string).collect();
    let line = format!(
        "{} of {} in {}",
        components.join(", "),
        file.kind(),
        args.output.display()
    );
    Ok(terminal::print_line(&line)?)
}

/// Whether a file's name is one of GGUF.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Writes a single file of a folder.
pub(super) fn pack(args: &ConvertArgs) -> Result<()> {
    let output = &args.output;
    let is_safetensors = output
        .extension()
        .is_some_and(|extension| extension == "safetensors");
    if !is_safetensors && !is_gguf(output) {
        bail!(
            "{}: the name of a single file must end in .safetensors or .gguf",
            output.display()
        );
    }
    if output.is_dir() {
        bail!("{}: is a folder, where a file is to be written", output.display());
    }
    if output.exists() && !args.overwrite {
        bail!(
            "{}: there is such a file; add --overwrite to replace it",
            output.display()
        );
    }
    let precision = args.precision.unwrap_or(Precision::Stored);
    let loras = in_folders(&args.lora)?;
    if args.input.is_file() {
        return repack(args, precision, &loras);
    }
    let wanted = ModelFiles {
        variant: args.variant.clone(),
        ..ModelFiles::default()
    };
    let input = Names::default().model(&args.input, &wanted)?;
    let kind = pipelines::pack(
        &input,
        output,
        args.single.kind,
        args.variant.as_deref(),
        precision,
        &loras,
    )?;
    Ok(terminal::print_line(&format!(
        "a single file of {kind} in {}",
        output.display()
    ))?)
}

/// Writes a single file again: with LoRA in it, in another type, or in the other format.
fn repack(args: &ConvertArgs, precision: Precision, loras: &[Lora]) -> Result<()> {
    let changes = args.precision.is_some() || is_gguf(&args.input) != is_gguf(&args.output);
    if loras.is_empty() && !changes {
        bail!(
            "{}: is a single file already; --lora says what to merge into it, --precision in which type to write it",
            args.input.display()
        );
    }
    let same = |path: &Path| fs::canonicalize(path).ok();
    if args.output.exists() && same(&args.input) == same(&args.output) {
        bail!(
            "{}: is the input itself; name another file for the output",
            args.output.display()
        );
    }
    let mut file = SingleFile::open(&args.input)?;
    if let Some(kind) = args.single.kind {
        file = file.of_kind(kind);
    }
    pipelines::repack(&file, &args.output, precision, loras)?;
    let line = format!("a single file of {} in {}", file.kind(), args.output.display());
    Ok(terminal::print_line(&line)?)
}
