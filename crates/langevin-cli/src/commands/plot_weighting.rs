//! `langevin plot-weighting`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    plot::weighting_plot,
    schedulers::{BetaSchedule, DDPMConfig, DDPMScheduler},
};

use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  langevin plot-weighting
  langevin plot-weighting --beta-schedule squaredcos_cap_v2 --snr-gamma 5 --output weights.png";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlotWeightingArgs {
    /// The noise schedule
    #[arg(long, value_name = "NAME", default_value = "linear")]
    pub beta_schedule: BetaSchedule,
    /// Gamma of min-snr and soft-min-snr [5 and 4]
    #[arg(long, value_name = "GAMMA")]
    pub snr_gamma: Option<f64>,
    /// The picture
    #[arg(long, short, value_name = "PNG", default_value = "weighting.png")]
    pub output: PathBuf,
}

/// Draws the weights.
pub(crate) fn run(args: PlotWeightingArgs) -> Result<()> {
    super::check_png("--output", &args.output)?;
    if args
        .snr_gamma
        .is_some_and(|gamma| !(gamma.is_finite() && gamma > 0.0))
    {
        bail!("--snr-gamma must be a positive number");
    }
    let scheduler = DDPMScheduler::new(DDPMConfig {
        beta_schedule: args.beta_schedule,
        ..DDPMConfig::default()
    })?;
    let title = format!("Weights of the loss, {} schedule", args.beta_schedule);
    weighting_plot(&args.output, &scheduler, args.snr_gamma, &title)?;
    Ok(terminal::print_line(&format!(
        "weights in {}",
        args.output.display()
    ))?)
}
