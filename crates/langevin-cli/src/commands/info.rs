//! `langevin info`.

mod codec;
mod dataset;
mod file;
mod pipeline;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    codec::{Mel, MelConfig},
    data::{Alpha, Medium, OpenOptions, is_picture_name, sound::is_sound_name},
    models::weights::CONFIG_NAME,
    pipelines::MODEL_INDEX,
    schedulers::SCHEDULER_CONFIG,
    training::{DataCodec, RUN_CONFIG},
};

use langevin_hub::RepoKind;
use serde_json::{Map, Value};

use crate::{
    hub::{self, Names},
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  langevin info runs/digits-1
  langevin info digits --grid digits.png
  langevin info pictures
  langevin info mnist --split test
  langevin info songs --codec mel --grid spectrograms.png
  langevin info song.mp3
  langevin info lighthouse.png
  langevin info my-lora.safetensors
  langevin info runs/digits-1 --json";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InfoArgs {
    /// A run, a pipeline, a model's folder, a data set's folder or file, a picture (PNG), a sound, a file of weights, `digits`, or ORG/NAME of the Hugging Face Hub
    pub path: PathBuf,
    /// Of a data set: which of a repository's configurations [the default one]
    #[arg(long, value_name = "NAME")]
    pub dataset_config_name: Option<String>,
    /// Of a data set: the part [train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Of a data set: what becomes of transparency [white]
    #[arg(long, value_name = "HOW")]
    pub alpha: Option<Alpha>,
    /// Of a data set: only the pictures of these classes, by names or numbers with commas between them
    #[arg(long, value_name = "NAMES")]
    pub only_classes: Vec<String>,
    /// Of a data set: read pictures (pixels), or sounds as spectrograms (mel, riffusion) [whichever there are]
    #[arg(long, value_name = "NAME")]
    pub codec: Option<DataCodec>,
    /// Of a data set: write a batch of its pictures as one PNG
    #[arg(long, value_name = "PNG")]
    pub grid: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is said of something: lines for people, and the same for programs.
struct Described {
    headline: String,
    lines: Vec<(String, String)>,
    json: Map<String, Value>,
}

impl Described {
    /// What it is, in a sentence, and in a word for programs.
    fn of(kind: &str, headline: String) -> Self {
        Self {
            headline,
            lines: Vec::new(),
            json: Map::from_iter([("kind".to_string(), kind.into())]),
        }
    }

    /// A line that programs are told otherwise.
    fn line(&mut self, what: &str, text: String) {
        self.lines.push((what.into(), text));
    }

    /// What programs are told.
    fn tell(&mut self, name: &str, value: impl Into<Value>) {
        self.json.insert(name.into(), value.into());
    }

    fn print(self, as_json: bool) -> Result<()> {
        if as_json {
            return Ok(terminal::print_json(&Value::Object(self.json))?);
        }
        terminal::print_line(&self.headline)?;
        for (what, text) in &self.lines {
            terminal::print_line(&format!("  {what:<10} {text}"))?;
        }
        Ok(())
    }
}

/// Says what is at the path.
pub(crate) fn run(args: InfoArgs) -> Result<()> {
    let of_data = args.dataset_config_name.is_some()
        || args.split.is_some()
        || args.grid.is_some()
        || !args.only_classes.is_empty();
    let default = OpenOptions::default();
    let options = OpenOptions {
        config: args.dataset_config_name,
        split: args.split.unwrap_or(default.split),
        alpha: args.alpha.unwrap_or(default.alpha),
        only_classes: args.only_classes,
        medium: medium(args.codec, &args.path)?,
        ..default
    };
    let path = &local(&args.path, of_data, &options)?;
    let described = match kind(path)? {
        Kind::Dataset => return dataset::describe(path, &options, args.grid.as_deref(), args.json),
        _ if args.grid.is_some() => bail!("--grid shows a data set; {} holds a model", path.display()),
        Kind::Pipeline => pipeline::describe_pipeline(path),
        Kind::Model if codec::is_one(path) => codec::describe(path),
        Kind::Model => pipeline::describe_model(path),
        Kind::Picture => file::describe_picture(path),
        Kind::Sound => file::describe_sound(path),
        Kind::Weights => file::describe_weights(path),
    };
    described?.print(args.json)
}

/// What a data set is read as: sounds too where a folder holds nothing else, with the usual spectrograms.
fn medium(codec: Option<DataCodec>, path: &Path) -> Result<Medium> {
    let sounds = |config| -> Result<Medium> { Ok(Medium::Sounds(Arc::new(Mel::new(config)?))) };
    match codec {
        Some(DataCodec::Pixels) => Ok(Medium::Pictures),
        Some(DataCodec::Mel) => sounds(MelConfig::default()),
        Some(DataCodec::Riffusion) => sounds(MelConfig::riffusion()),
        None if path.is_dir() && holds_sounds_alone(path, 0) => sounds(MelConfig::default()),
        None => Ok(Medium::Unsaid),
    }
}

/// Whether a folder's first files are sounds.
fn holds_sounds_alone(folder: &Path, depth: usize) -> bool {
    const DEEPEST: usize = 4;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let (mut sounds, mut others) = (false, false);
    for path in entries.map(|entry| entry.path()) {
        sounds |= is_sound_name(&path)
            || (path.is_dir() && depth < DEEPEST && holds_sounds_alone(&path, depth + 1));
        others |= is_picture_name(&path);
    }
    sounds && !others
}

/// Where it is: what is of the Hub is pulled.
fn local(path: &Path, of_data: bool, options: &OpenOptions) -> Result<PathBuf> {
    let Some(Ok((kind, name))) = path.to_str().and_then(hub::remote) else {
        return hub::model(path);
    };
    let names = Names::default();
    let kind = match kind {
        Some(kind) => kind,
        None if of_data => RepoKind::Dataset,
        None => names.kind(&name)?,
    };
    match kind {
        RepoKind::Dataset => names.pull_dataset(&name, options),
        _ => hub::model(path),
    }
}

enum Kind {
    Pipeline,
    Model,
    Dataset,
    Picture,
    Sound,
    Weights,
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
    } else if path.is_file() && has_ending(path, &["safetensors", "gguf", "bin", "pt", "ckpt"]) {
        Ok(Kind::Weights)
    } else if path.is_file() && has_ending(path, &["png"]) {
        Ok(Kind::Picture)
    } else if path.is_file() && is_sound_name(path) {
        Ok(Kind::Sound)
    } else {
        Ok(Kind::Dataset)
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let own = path.extension().unwrap_or_default();
    endings.iter().any(|ending| own.eq_ignore_ascii_case(ending))
}
