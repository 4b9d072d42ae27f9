//! Which files of a model's repository are needed: configurations, and one version of the weights.

mod choose;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use self::choose::choose;
use crate::{Error, Hub, Progress, RepoKind, RepoName, Result, Snapshot, name::is_plain, weights::Weights};

/// The file at a pipeline's root.
const MODEL_INDEX: &str = "model_index.json";
/// A model's configuration, beside its weights.
const CONFIG: &str = "config.json";
/// A scheduler's.
const SCHEDULER_CONFIG: &str = "scheduler_config.json";
/// What marks a folder or a root as one of a model, a scheduler or a tokenizer.
const MARKS: [&str; 6] = [
    CONFIG,
    SCHEDULER_CONFIG,
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.json",
    "open_clip_config.json",
];

/// What is wanted of a model's repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFiles {
    /// The part of it.
    pub part: ModelPart,
    /// The version of the weights, as in `diffusion_pytorch_model.fp16.safetensors`; `None` is the plain one, or else what there is.
    pub variant: Option<String>,
    /// The classes of pipelines that will do, as `DDPMPipeline`; none are all. Of a pipeline of another, only its index is pulled.
    pub classes: Vec<String>,
    /// Components of a pipeline that are not wanted.
    pub without: Vec<String>,
}

/// A part of a model's repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelPart {
    /// All that is needed to use it.
    #[default]
    Whole,
    /// The model's configuration alone.
    Config,
    /// The text encoder with its tokenizer.
    TextEncoder,
    /// The scheduler's configuration alone.
    Scheduler,
    /// A LoRA: its one file, with PEFT's configuration where that lies beside it.
    Lora,
}

impl Hub {
    /// Pulls what is wanted of a model into the cache, and gives the folder of its commit; of a pipeline's text encoder, that encoder's
    /// folder.
    ///
    /// # Errors
    /// As [`Hub::open`] and [`Snapshot::fetch`], [`Error::NoSuchFile`] if the repository holds no weights in a form that is known, and
    /// [`Error::Unsupported`] if it is a pipeline of a class that will not do.
    pub fn pull_model(
        &self,
        name: &RepoName,
        wanted: &ModelFiles,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let snapshot = self.open(RepoKind::Model, name, progress)?;
        let index = if snapshot.has(MODEL_INDEX) && wanted.part == ModelPart::Whole {
            let index = parse(&snapshot.read(MODEL_INDEX, progress)?, name)?;
            wanted.check_class(&index, name)?;
            let mut components = components(index, name)?;
            components.retain(|component| !wanted.without.contains(component));
            Some(components)
        } else {
            None
        };
        let files = snapshot.files();
        let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
        let chosen =
            choose(&paths, index.as_ref(), wanted).map_err(|missing| missing.into_error(name, &snapshot))?;
        let needed: Vec<&str> = chosen
            .into_iter()
            .filter(|path| !snapshot.is_cached() || is_needed(path) || snapshot.is_there(path))
            .collect();
        let folder = snapshot.fetch(&needed, progress)?;
        Ok(match wanted.part {
            ModelPart::TextEncoder if snapshot.has(ENCODER_CONFIG) => folder.join(TEXT_ENCODER),
            _ => folder,
        })
    }
}

/// Whether a model is none without a file: Python's libraries leave the card and the like where they are, and without a network theirs
/// is a whole model all the same.
fn is_needed(path: &str) -> bool {
    path.contains('/') || path == MODEL_INDEX || MARKS.contains(&path) || Weights::of(path).is_some()
}

/// What diffusers and PEFT call a LoRA's file, the best first.
const LORA: [&str; 4] = [
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
];
/// PEFT's configuration of one.
const LORA_CONFIG: &str = "adapter_config.json";

const TEXT_ENCODER: &str = "text_encoder";
const TOKENIZER: &str = "tokenizer";
const ENCODER_CONFIG: &str = "text_encoder/config.json";

impl ModelFiles {
    /// # Errors
    /// [`Error::Unsupported`] if the pipeline's class is none of those that will do.
    fn check_class(&self, index: &BTreeMap<String, Value>, name: &RepoName) -> Result<()> {
        let class = index.get("_class_name").and_then(Value::as_str);
        match class {
            Some(class) if !self.classes.is_empty() && !self.classes.iter().any(|known| known == class) => {
                Err(Error::Unsupported(format!(
                    "{name} is a {class}, which is not there yet; {} would do. Its weights were not pulled",
                    self.classes.join(" or ")
                )))
            }
            _ => Ok(()),
        }
    }
}

/// A pipeline's index.
fn parse(index: &str, name: &RepoName) -> Result<BTreeMap<String, Value>> {
    serde_json::from_str(index).map_err(|e| {
        Error::Answer(format!(
            "{MODEL_INDEX} of {name} is not the JSON of a pipeline's index: {e}"
        ))
    })
}

/// The names of a pipeline's components, and so of their folders.
///
/// # Errors
/// [`Error::Answer`] if one is no name of a folder.
fn components(index: BTreeMap<String, Value>, name: &RepoName) -> Result<BTreeSet<String>> {
    let is_component = |value: &Value| {
        value
            .as_array()
            .is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_string))
    };
    let components: BTreeSet<String> = index
        .into_iter()
        .filter(|(name, value)| !name.starts_with('_') && is_component(value))
        .map(|(name, _)| name)
        .collect();
    match components.iter().find(|component| !is_plain(component)) {
        Some(component) => Err(Error::Answer(format!(
            "{MODEL_INDEX} of {name} names a component `{component}`, which is no name of a folder: nothing was pulled"
        ))),
        None => Ok(components),
    }
}

/// What was looked for in vain.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    /// Weights of any kind; these are there that are not known.
    Weights(Vec<String>),
    /// Weights in this folder, or the folder itself.
    Component(String),
    /// This variant; there are these.
    Variant(String, Vec<String>),
    /// A model's configuration.
    Config,
    /// A scheduler's configuration.
    Scheduler,
    /// A LoRA, or a choice among these.
    Lora(Vec<String>),
}

impl Missing {
    fn into_error(self, name: &RepoName, snapshot: &Snapshot) -> Error {
        if !snapshot.is_listed() {
            let what = match self {
                Self::Component(component) => format!("{component} of {name}"),
                Self::Variant(variant, _) => format!("the variant {variant} of {name}"),
                Self::Config => format!("the configuration of {name}"),
                Self::Scheduler => format!("the scheduler of {name}"),
                Self::Lora(_) => format!("the LoRA of {name}"),
                Self::Weights(_) => format!("the model {name}"),
            };
            return Error::NotCached(format!(
                "{what} is not in the cache, only other parts are: run the same again where the Hub can be reached"
            ));
        }
        Error::NoSuchFile(match self {
            Self::Component(component) => format!(
                "{name} has no weights of its {component}: diffusion_pytorch_model.safetensors, model.safetensors or their \
                 older .bin should be in that folder"
            ),
            Self::Variant(variant, there) if there.is_empty() => {
                format!("{name} has no variant `{variant}` of its weights, only the plain ones")
            }
            Self::Variant(variant, there) => format!(
                "{name} has no variant `{variant}` of its weights; there are {}",
                there.join(", ")
            ),
            Self::Config => {
                format!("{name} has no configuration of a model: {CONFIG} or unet/{CONFIG} would be one")
            }
            Self::Scheduler => {
                format!("{name} has no scheduler: scheduler/{SCHEDULER_CONFIG} would be one")
            }
            Self::Lora(there) if there.is_empty() => {
                format!(
                    "{name} has no LoRA: no file {} and no other .safetensors",
                    LORA[0]
                )
            }
            Self::Lora(there) => format!(
                "{name} has several files that may be the LoRA, such as {}: `langevin pull --all` brings them, and then name one of them",
                there.join(" and ")
            ),
            Self::Weights(there) => {
                let instead = match there.as_slice() {
                    [] => String::new(),
                    there => format!(" (it has {})", there.join(", ")),
                };
                format!(
                    "{name} is no model in a form that is known: a {CONFIG} with diffusion_pytorch_model.safetensors, \
                     model.safetensors or their older .bin is one{instead}"
                )
            }
        })
    }
}
