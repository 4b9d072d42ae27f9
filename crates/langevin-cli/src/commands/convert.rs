//! `langevin convert`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use langevin::{
    device::default_device,
    models::{AnyModel, AnyModelConfig, Checkpoint, weights::CONFIG_NAME},
    pipelines::{self, MODEL_INDEX, Pipeline},
    schedulers::SCHEDULER_CONFIG,
};

use langevin_hub::ModelFiles;

use crate::{
    flags::scheduler,
    hub::Names,
    terminal::{self, thousands},
};

/// What `--help` begins with.
pub const LONG_ABOUT: &str = "\
Write a checkpoint of any format as a present-day pipeline.

Takes what diffusers has written since 2022: a pipeline whose files all lie at its root, weights in several files, \
variants such as fp16, the pickles of older repositories (nothing in them is executed), early names of parameters, \
configurations with few keys. The output has a folder a component, its weights as one safetensors file in float32, \
and today's names. A model without a scheduler stays one, unless --scheduler gives it one.";

const EXAMPLES: &str = "\
Examples:
  langevin convert ddpm-cat-256 cat
  langevin convert my-model my-model-32 --variant fp16
  langevin convert unet-alone pipeline --scheduler ddpm";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// A pipeline's or a model's folder, or ORG/NAME of the Hugging Face Hub
    pub input: PathBuf,
    /// The folder to write
    pub output: PathBuf,
    /// The variant of the weights, as in diffusion_pytorch_model.fp16.safetensors [the plain ones]
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// The sampler, in place of the pipeline's own
    #[arg(long, value_parser = scheduler(), value_name = "NAME")]
    pub scheduler: Option<String>,
    /// Write into a folder that already has something in it
    #[arg(long)]
    pub overwrite: bool,
}

/// Reads the input and writes the output.
pub fn run(args: ConvertArgs) -> Result<()> {
    check_output(&args)?;
    let device = default_device();
    let wanted = ModelFiles {
        variant: args.variant.clone(),
        ..ModelFiles::default()
    };
    let input = &Names::default().model(&args.input, &wanted)?;
    let variant = args.variant.as_deref();
    let is_pipeline = [MODEL_INDEX, SCHEDULER_CONFIG]
        .iter()
        .any(|file| input.join(file).is_file());
    if !is_pipeline && input.join(CONFIG_NAME).is_file() {
        let config = AnyModelConfig::load(input.join(CONFIG_NAME))?;
        let mut checkpoint = Checkpoint::variant_in(input, variant)?;
        let model = AnyModel::with_weights(&config, &mut checkpoint, &device)?;
        let parameters = model.num_parameters();
        match &args.scheduler {
            Some(name) => Pipeline::of_model(model, name)?.save(&args.output)?,
            None => pipelines::save_model(&model, &args.output)?,
        }
        return say(&args.output, parameters, &checkpoint);
    }
    let mut pipeline = Pipeline::load_variant(input, variant, &device)?;
    if let Some(name) = &args.scheduler {
        pipeline = pipeline.with_scheduler(name)?;
    }
    pipeline.save(&args.output)?;
    let checkpoint = pipelines::checkpoint(input, variant)?;
    say(&args.output, pipeline.num_parameters(), &checkpoint)
}

/// Refuses to write where something is in the way.
fn check_output(args: &ConvertArgs) -> Result<()> {
    let output = &args.output;
    if !output.exists() {
        return Ok(());
    }
    let cannot = |path: &Path| format!("cannot read {}", path.display());
    if !output.is_dir() {
        bail!("{}: is a file, where a folder is to be written", output.display());
    }
    let real = |path: &Path| fs::canonicalize(path).with_context(|| cannot(path));
    if args.input.exists() && real(&args.input)? == real(output)? {
        bail!(
            "{}: is the input itself; name another folder for the output",
            output.display()
        );
    }
    let mut entries = fs::read_dir(output).with_context(|| cannot(output))?;
    if !args.overwrite && entries.next().is_some() {
        bail!(
            "{}: there is something in that folder; add --overwrite to write into it",
            output.display()
        );
    }
    Ok(())
}

fn say(output: &Path, parameters: usize, from: &Checkpoint) -> Result<()> {
    Ok(terminal::print_line(&format!(
        "{} parameters from {from} in {}",
        thousands(parameters),
        output.display()
    ))?)
}
