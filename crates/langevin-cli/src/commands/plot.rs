//! `langevin plot`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    plot::{Curve, compare_plot, loss_plot},
    training::{RUN_CONFIG, runs::read_metric},
};

use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  langevin plot runs/digits-1
  langevin plot runs/digits-1 runs/digits-2 --output both.png
  langevin plot runs/digits-* --metric loss_quarter_1";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlotArgs {
    /// The runs' folders
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Which of the numbers in metrics.jsonl
    #[arg(long, value_name = "NAME", default_value = "loss")]
    pub metric: String,
    /// The picture
    #[arg(long, short, value_name = "PNG", default_value = "loss.png")]
    pub output: PathBuf,
}

/// Draws one run with all its values, or the running means of several.
pub(crate) fn run(args: PlotArgs) -> Result<()> {
    super::check_png("--output", &args.output)?;
    let mut curves = vec![];
    for run in &args.runs {
        if !run.join(RUN_CONFIG).is_file() {
            bail!("{}: is not the folder of a run", run.display());
        }
        curves.push(Curve {
            name: name(run),
            points: read_metric(run, &args.metric)?,
        });
    }
    match &curves[..] {
        [one] => loss_plot(
            &args.output,
            &one.points,
            &format!("{} of {}", args.metric, one.name),
        )?,
        several => compare_plot(&args.output, &args.metric, several)?,
    }
    Ok(terminal::print_line(&format!(
        "plot in {}",
        args.output.display()
    ))?)
}

/// A run's name: its folder's.
fn name(run: &Path) -> String {
    let name = run.file_name().unwrap_or(run.as_os_str());
    name.to_string_lossy().into_owned()
}
