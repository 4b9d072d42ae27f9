//! Which files of a model's repository are needed: configurations, and one version of the weights.

mod choose;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use self::choose::choose;
use crate::{Error, Hub, Progress, RepoKind, RepoName, Result, Snapshot, weights::Weights};

/// The file at a pipeline's root.
const MODEL_INDEX: &str = "model_index.json";
/// A model's configuration, beside its weights.
const CONFIG: &str = "config.json";
/// What marks a folder or a root as one of a model, a scheduler or a tokenizer.
const MARKS: [&str; 6] = [
    CONFIG,
    "scheduler_config.json",
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
}

impl Hub {
    /// Pulls what is wanted of a model into the cache, and gives the folder of its commit; of a pipeline's text encoder, that encoder's
    /// folder.
    ///
    /// # Errors
    /// As [`Hub::open`] and [`Snapshot::fetch`], and [`Error::NoSuchFile`] if the repository holds no weights in a form that is known.
    pub fn pull_model(
        &self,
        name: &RepoName,
        wanted: &ModelFiles,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let snapshot = self.open(RepoKind::Model, name, progress)?;
        let index = if snapshot.has(MODEL_INDEX) && wanted.part == ModelPart::Whole {
            Some(components(&snapshot.read(MODEL_INDEX, progress)?, name)?)
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

const TEXT_ENCODER: &str = "text_encoder";
const TOKENIZER: &str = "tokenizer";
const ENCODER_CONFIG: &str = "text_encoder/config.json";

/// The names of a pipeline's components, and so of their folders.
fn components(index: &str, name: &RepoName) -> Result<BTreeSet<String>> {
    let parsed: BTreeMap<String, Value> = serde_json::from_str(index).map_err(|e| {
        Error::Answer(format!(
            "{MODEL_INDEX} of {name} is not the JSON of a pipeline's index: {e}"
        ))
    })?;
    let is_component = |value: &Value| {
        value
            .as_array()
            .is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_string))
    };
    Ok(parsed
        .into_iter()
        .filter(|(name, value)| !name.starts_with('_') && is_component(value))
        .map(|(name, _)| name)
        .collect())
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
}

impl Missing {
    fn into_error(self, name: &RepoName, snapshot: &Snapshot) -> Error {
        if !snapshot.is_listed() {
            let what = match self {
                Self::Component(component) => format!("{component} of {name}"),
                Self::Variant(variant, _) => format!("the variant {variant} of {name}"),
                Self::Config => format!("the configuration of {name}"),
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
