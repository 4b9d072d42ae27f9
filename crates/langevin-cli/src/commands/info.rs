//! `langevin info`.

mod dataset;
mod pipeline;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    models::weights::CONFIG_NAME, pipelines::MODEL_INDEX, schedulers::SCHEDULER_CONFIG, training::RUN_CONFIG,
};

const EXAMPLES: &str = "\
Examples:
  langevin info runs/digits-1
  langevin info digits --grid digits.png
  langevin info pictures";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct InfoArgs {
    /// A run, a pipeline, a model's folder, a folder of pictures, or `digits`
    pub path: PathBuf,
    /// Of a data set: write a batch of its pictures as one PNG
    #[arg(long, value_name = "PNG")]
    pub grid: Option<PathBuf>,
}

/// Says what is at the path.
pub fn run(args: InfoArgs) -> Result<()> {
    match kind(&args.path)? {
        Kind::Dataset => dataset::describe(&args.path, args.grid.as_deref()),
        _ if args.grid.is_some() => bail!("--grid shows a data set; {} holds a model", args.path.display()),
        Kind::Pipeline => pipeline::describe_pipeline(&args.path),
        Kind::Model => pipeline::describe_model(&args.path),
    }
}

enum Kind {
    Pipeline,
    Model,
    Dataset,
}

fn kind(path: &Path) -> Result<Kind> {
    if path.join(MODEL_INDEX).exists()
        || [CONFIG_NAME, SCHEDULER_CONFIG]
            .iter()
            .all(|file| path.join(file).exists())
    {
        Ok(Kind::Pipeline)
    } else if path.join(CONFIG_NAME).exists() {
        Ok(Kind::Model)
    } else if path.join("unet").is_dir() || path.join(RUN_CONFIG).exists() {
        bail!(
            "{}: holds no whole pipeline: there is no {MODEL_INDEX} in it",
            path.display()
        )
    } else if path
        .extension()
        .is_some_and(|extension| extension == "safetensors" || extension == "bin")
    {
        bail!(
            "{}: holds weights alone; name the folder of the model or the pipeline",
            path.display()
        )
    } else {
        Ok(Kind::Dataset)
    }
}
