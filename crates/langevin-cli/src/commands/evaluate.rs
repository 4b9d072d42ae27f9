//! `langevin evaluate`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    data::{self, evaluate::Agreement},
    device::DeviceName,
    pipelines::{AgreementOptions, AnyPipeline, agreement},
};

use super::guidance::ClassifierFreeArgs;
use crate::{flags::scheduler, progress::Progress, stop::Stop, terminal};

/// What `--help` begins with.
pub const LONG_ABOUT: &str = "\
Measure how good a class-conditional model's samples are.

Draws pictures of every class, and asks the five real pictures nearest to each what it shows. The figure is how often \
they name the class that was asked for.";

/// What the user typed.
#[derive(Args, Debug)]
pub struct EvaluateArgs {
    /// The run or pipeline
    pub path: PathBuf,
    /// The real pictures: `digits`, or a folder with a sub-folder a class
    #[arg(long, value_name = "DATA", default_value = "digits")]
    pub data: String,
    /// Pictures drawn of each class
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub samples_per_class: usize,
    /// Denoising steps
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub steps: usize,
    /// The seed that everything random comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The sampler
    #[arg(long, value_parser = scheduler(), hide_possible_values = true, value_name = "NAME", default_value = "ddim")]
    pub scheduler: String,
    /// Where to compute: cpu, or vulkan, vulkan:N, webgpu, webgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    /// Pictures drawn together
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub batch_size: usize,
    #[command(flatten)]
    pub guidance: ClassifierFreeArgs,
}

/// Draws pictures and prints how many show what they should.
pub fn run(args: EvaluateArgs) -> Result<()> {
    let dataset = data::open(&args.data)?;
    let pipeline = AnyPipeline::load(&args.path, &args.device.open()?)?.with_scheduler(&args.scheduler)?;
    let options = AgreementOptions {
        samples_per_class: args.samples_per_class,
        batch_size: args.batch_size,
        num_inference_steps: args.steps,
        seed: args.seed,
        guidance: args.guidance.resolve()?,
        ..AgreementOptions::default()
    };
    let stop = Stop::on_signals()?;
    let mut bar = None;
    let measured = agreement(&pipeline, dataset.as_ref(), &options, |done, total| {
        bar.get_or_insert_with(|| Progress::new("step", total))
            .update(done, String::new);
        !stop.requested()
    })?;
    drop(bar);
    let Some(measured) = measured else {
        bail!("stopped before the last picture was drawn")
    };
    print(
        &measured,
        dataset.class_names().unwrap_or_default(),
        options.neighbours,
    )
}

fn print(measured: &Agreement, names: &[String], neighbours: usize) -> Result<()> {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, (right, all)) in names.iter().zip(&measured.per_class) {
        terminal::print(&format!("{name:width$}  {right} of {all}"))?;
    }
    let drawn: usize = measured.per_class.iter().map(|(_, all)| all).sum();
    terminal::print(&format!(
        "{:.1} % of {drawn} samples show the class asked for, by their {neighbours} nearest neighbours",
        100.0 * measured.fraction()
    ))?;
    Ok(())
}
