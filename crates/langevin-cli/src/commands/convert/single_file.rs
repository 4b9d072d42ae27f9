//! Single files: as folders, and of folders.

use anyhow::{Result, bail};
use langevin::{
    pipelines,
    weights::{Precision, single_file::SingleFile},
};
use langevin_hub::ModelFiles;

use super::ConvertArgs;
use crate::{hub::Names, terminal};

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
    let precision = args.single.precision.unwrap_or(Precision::Stored);
    pipelines::unpack(&file, &args.output, args.single.config.as_deref(), precision)?;
    let components: Vec<String> = file.components().iter().map(ToString::to_string).collect();
    let line = format!(
        "{} of {} in {}",
        components.join(", "),
        file.kind(),
        args.output.display()
    );
    Ok(terminal::print_line(&line)?)
}

/// Writes a single file of a folder.
pub(super) fn pack(args: &ConvertArgs) -> Result<()> {
    let output = &args.output;
    if output
        .extension()
        .is_none_or(|extension| extension != "safetensors")
    {
        bail!(
            "{}: the name of a single file must end in .safetensors",
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
    let wanted = ModelFiles {
        variant: args.variant.clone(),
        ..ModelFiles::default()
    };
    let input = Names::default().model(&args.input, &wanted)?;
    let precision = args.single.precision.unwrap_or(Precision::Stored);
    let kind = pipelines::pack(
        &input,
        output,
        args.single.kind,
        args.variant.as_deref(),
        precision,
    )?;
    Ok(terminal::print_line(&format!(
        "a single file of {kind} in {}",
        output.display()
    ))?)
}
