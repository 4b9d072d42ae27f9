//! LoRA files in another style.

use anyhow::{Result, bail};
use langevin::{
    pipelines,
    weights::{
        Precision,
        lora::{LoraFile, LoraStyle, file_of},
    },
};

use super::ConvertArgs;
use crate::{hub, terminal};

/// Writes a LoRA file in another style.
pub(crate) fn rewrite(args: &ConvertArgs, style: LoraStyle) -> Result<()> {
    let output = &args.output;
    for (flag, given) in [
        ("--lora", !args.lora.is_empty()),
        ("--variant", args.variant.is_some()),
        ("--scheduler", args.scheduler.is_some()),
        ("--single-file", args.single_file),
        ("--ema", args.single.ema),
        ("--kind", args.single.kind.is_some()),
    ] {
        if given {
            bail!("{flag} does not go with --lora-style, which writes a LoRA file in another style");
        }
    }
    if output
        .extension()
        .is_none_or(|extension| extension != "safetensors")
    {
        bail!(
            "{}: the name of a LoRA file must end in .safetensors",
            output.display()
        );
    }
    if output.exists() && !args.overwrite {
        bail!(
            "{}: there is such a file; add --overwrite to replace it",
            output.display()
        );
    }
    let file = LoraFile::open(file_of(&hub::lora(&args.input)?)?)?;
    let base = args.single.config.as_ref();
    let base = base.map(pipelines::lora_targets).transpose()?;
    let precision = args.precision.unwrap_or(Precision::Stored);
    let written = file.rewrite(output, style, base.as_ref(), precision)?;
    for left_out in &written.left_out {
        terminal::note(&format!("left out: {left_out}"));
    }
    let line = format!(
        "{} modules in the style {style} in {}",
        written.modules,
        output.display()
    );
    Ok(terminal::print_line(&line)?)
}
