//! `langevin info`.

mod dataset;
mod pipeline;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    data::{Alpha, OpenOptions},
    models::weights::CONFIG_NAME,
    pipelines::MODEL_INDEX,
    schedulers::SCHEDULER_CONFIG,
    training::RUN_CONFIG,
};

use crate::flags::choice;

const EXAMPLES: &str = "\
Examples:
  langevin info runs/digits-1
  langevin info digits --grid digits.png
  langevin info pictures
  langevin info mnist --split test";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct InfoArgs {
    /// A run, a pipeline, a model's folder, a data set's folder or file, or `digits`
    pub path: PathBuf,
    /// Of a data set: which of a repository's configurations [the default one]
    #[arg(long, value_name = "NAME")]
    pub dataset_config_name: Option<String>,
    /// Of a data set: the part [train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Of a data set: what becomes of transparency [white]
    #[arg(long, value_parser = choice::<Alpha>(), value_name = "HOW")]
    pub alpha: Option<Alpha>,
    /// Of a data set: only the pictures of these classes
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub only_classes: Vec<String>,
    /// Of a data set: write a batch of its pictures as one PNG
    #[arg(long, value_name = "PNG")]
    pub grid: Option<PathBuf>,
}

/// Says what is at the path.
pub fn run(args: InfoArgs) -> Result<()> {
    match kind(&args.path)? {
        Kind::Dataset => {
            let default = OpenOptions::default();
            let options = OpenOptions {
                config: args.dataset_config_name,
                split: args.split.unwrap_or(default.split),
                alpha: args.alpha.unwrap_or(default.alpha),
                only_classes: args.only_classes,
                ..default
            };
            dataset::describe(&args.path, &options, args.grid.as_deref())
        }
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
