//! `langevin convert`.

mod lora;
mod single_file;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use langevin::{
    Lora,
    device::default_device,
    models::{
        AnyModel, AnyModelConfig, Checkpoint,
        weights::{CONFIG_NAME, Precision, lora::LoraStyle, single_file::Kind, writing},
    },
    named::Named,
    pipelines::{self, LoadOptions, MODEL_INDEX, Pipeline},
    schedulers::SCHEDULER_CONFIG,
};

use langevin_hub::ModelFiles;

use crate::{
    flags::scheduler,
    hub::Names,
    loading::in_folders,
    terminal::{self, thousands},
};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Write a checkpoint of any format as a present-day pipeline.

Takes what diffusers has written since 2022: a pipeline whose files all lie at its root, weights in several files, \
variants such as fp16, the pickles of older repositories (nothing in them is executed), early names of parameters, \
configurations with few keys. The output has a folder a component, its weights as one safetensors file with numbers \
of the type that they are stored in, unless --precision says otherwise, and today's names. A model without a scheduler stays one, unless --scheduler gives it one.

Also takes a single file of Stable Diffusion (.safetensors, .ckpt, .pt, .gguf) and writes the folder of its components, and with --single-file \
writes such a file of a folder: safetensors, or GGUF, whose matrices may have eight bits a number (--precision q8_0).

Merges LoRA into what it writes, and with --lora-style writes a LoRA file in another style.";

const EXAMPLES: &str = "\
Examples:
  langevin convert ddpm-cat-256 cat
  langevin convert my-model my-model-32 --variant fp16 --dtype f32
  langevin convert unet-alone pipeline --scheduler ddpm
  langevin convert v1-5-pruned-emaonly.safetensors sd15
  langevin convert v2-1_512.ckpt sd21 --kind sd2-base
  langevin convert sd15 sd15.safetensors --single-file --precision float16
  langevin convert sd15.safetensors sd15.gguf --precision q8_0
  langevin convert sd15 sd15-pixels --lora pixel-art.safetensors:0.8
  langevin convert sd15.safetensors sd15-pixels.safetensors --single-file --lora pixel-art.safetensors
  langevin convert pixel-art.safetensors pixels.safetensors --lora-style peft";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    /// A pipeline's or a model's folder, a single file, ORG/NAME of the Hugging Face Hub; with --lora-style a LoRA
    pub input: PathBuf,
    /// The folder to write; with --single-file the file
    pub output: PathBuf,
    /// The variant of the weights, as in diffusion_pytorch_model.fp16.safetensors [the plain ones]
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// The sampler, in place of the pipeline's own
    #[arg(long, value_parser = scheduler(), value_name = "NAME")]
    pub scheduler: Option<String>,
    /// The type of the numbers
    #[arg(long, alias = "dtype", value_name = "TYPE", value_parser = number_type())]
    pub precision: Option<Precision>,
    /// Write into a folder that already has something in it
    #[arg(long)]
    pub overwrite: bool,
    /// Write one file in the layout of the original programs; so does an output that ends in .gguf
    #[arg(long, conflicts_with_all = ["scheduler", "config", "ema"])]
    pub single_file: bool,
    /// A LoRA to merge into the weights: a file or ORG/NAME of the Hub, and how strongly after a colon [1]; several add up
    #[arg(long, value_name = "FILE[:SCALE]", help_heading = "LoRA")]
    pub lora: Vec<Lora>,
    /// Write a LoRA file in this style; --config names the model that it is for, where its modules have other names than Stable Diffusion's
    #[arg(long, value_name = "STYLE", help_heading = "LoRA")]
    pub lora_style: Option<LoraStyle>,
    #[command(flatten)]
    pub single: SingleFileArgs,
}

/// A [`Precision`], by the short names of types too.
fn number_type() -> impl TypedValueParser<Value = Precision> {
    let value = |precision: &Precision| {
        let short: &[&str] = match precision {
            Precision::Stored => &[],
            Precision::Float32 => &["f32", "fp32"],
            Precision::Float16 => &["f16", "fp16"],
            Precision::Bfloat16 => &["bf16"],
            Precision::Q8_0 => &[],
        };
        PossibleValue::new(precision.name()).aliases(short.iter().copied())
    };
    PossibleValuesParser::new(Precision::ALL.iter().map(value)).try_map(move |name| {
        let is_it = |precision: &&Precision| value(precision).matches(&name, false);
        Precision::ALL.iter().find(is_it).copied().ok_or("no type")
    })
}

/// What concerns single files alone.
#[derive(Args, Debug)]
#[command(next_help_heading = "Single files")]
pub(crate) struct SingleFileArgs {
    /// What the file is a checkpoint of, where it cannot tell [what its names and shapes say]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<Kind>,
    /// Take the moving average of the weights, where the file has both
    #[arg(long)]
    pub ema: bool,
    /// A folder whose configurations, scheduler and tokenizers the output gets
    #[arg(long, value_name = "FOLDER")]
    pub config: Option<PathBuf>,
}

impl SingleFileArgs {
    /// A flag that was given.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--kind", self.kind.is_some()),
            ("--ema", self.ema),
            ("--config", self.config.is_some()),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

/// Reads the input and writes the output.
pub(crate) fn run(args: ConvertArgs) -> Result<()> {
    if let Some(style) = args.lora_style {
        return lora::rewrite(&args, style);
    }
    if args.single_file || single_file::is_gguf(&args.output) {
        return single_file::pack(&args);
    }
    if args.precision == Some(Precision::Q8_0) {
        bail!(
            "--precision q8_0 is a type of GGUF files: {} would have to end in .gguf",
            args.output.display()
        );
    }
    check_output(&args)?;
    if args.input.is_file() {
        return single_file::unpack(&args);
    }
    if let Some(flag) = args.single.given() {
        bail!("{flag} concerns single files: the input is none, and --single-file is not given");
    }
    let precision = args.precision.unwrap_or(Precision::Stored);
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
        let mut checkpoint = Checkpoint::variant_in(input, variant)?.keeping_types();
        let model = AnyModel::with_weights(&config, &mut checkpoint, &device)?;
        if !args.lora.is_empty() {
            bail!(
                "--lora: {} holds a model alone; LoRA are merged into pipelines and single files",
                input.display()
            );
        }
        let parameters = model.num_parameters();
        writing(precision, || match &args.scheduler {
            Some(name) => Pipeline::of_model(model, name)?.save(&args.output),
            None => pipelines::save_model(&model, &args.output),
        })?;
        return say(&args.output, parameters, &checkpoint);
    }
    let loading = LoadOptions {
        variant: args.variant.clone(),
        loras: in_folders(&args.lora)?,
        rounded_loras: true,
        ..LoadOptions::default()
    };
    let mut pipeline = Pipeline::load_with(input, &loading, &device)?;
    if let Some(name) = &args.scheduler {
        pipeline = pipeline.with_scheduler(name)?;
    }
    writing(precision, || pipeline.save(&args.output))?;
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
