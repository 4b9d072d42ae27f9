//! `langevin plot-schedule`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use langevin::{
    plot::{ScheduleCurves, schedule_plot},
    schedulers::{AnyScheduler, BetaSchedule, DDPMConfig, DDPMScheduler, SamplerName, Scheduler},
};

use crate::{flags::scheduler, hub, terminal};

const EXAMPLES: &str = "\
Examples:
  langevin plot-schedule
  langevin plot-schedule runs/digits-1 --scheduler dpm++2m-karras --steps 20
  langevin plot-schedule --beta-schedule squaredcos_cap_v2 --output cosine.png";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlotScheduleArgs {
    /// A run, a pipeline, a scheduler's folder, or ORG/NAME of the Hugging Face Hub [DDPM's schedule]
    pub path: Option<PathBuf>,
    /// A noise schedule, without a path
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub beta_schedule: Option<BetaSchedule>,
    /// The sampler whose steps are shown, in place of the one that is there
    #[arg(long, value_parser = scheduler(), hide_possible_values = true, value_name = "NAME")]
    pub scheduler: Option<String>,
    /// How many steps it takes [ddpm: 1000, lcm and tcd: 4, others: 50]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// The picture
    #[arg(long, short, value_name = "PNG", default_value = "schedule.png")]
    pub output: PathBuf,
}

/// Draws the schedule.
pub(crate) fn run(args: PlotScheduleArgs) -> Result<()> {
    super::check_png("--output", &args.output)?;
    let path = args.path.as_deref().map(hub::scheduler).transpose()?;
    let mut scheduler = match &path {
        // A pipeline's folder has its scheduler's in it.
        Some(path) if path.join("scheduler").is_dir() => AnyScheduler::load(path.join("scheduler"))?,
        Some(path) => AnyScheduler::load(path)?,
        None => DDPMScheduler::new(DDPMConfig {
            beta_schedule: args.beta_schedule.unwrap_or_default(),
            ..DDPMConfig::default()
        })?
        .into(),
    };
    if let Some(name) = &args.scheduler {
        scheduler = scheduler.for_model(name)?;
    }
    let steps = args.steps.unwrap_or_else(|| scheduler.usual_steps());
    scheduler.set_timesteps(steps)?;
    let curves = ScheduleCurves::of(&scheduler)?;
    let name = match &args.scheduler {
        Some(name) => name.as_str(),
        None => SamplerName::ALL
            .iter()
            .find(|sampler| sampler.class_name == scheduler.class_name())
            .map_or(scheduler.class_name(), |sampler| sampler.name),
    };
    schedule_plot(
        &args.output,
        &curves,
        &format!("Noise schedule, and {steps} steps of {name}"),
    )?;
    Ok(terminal::print_line(&format!(
        "schedule in {}",
        args.output.display()
    ))?)
}
