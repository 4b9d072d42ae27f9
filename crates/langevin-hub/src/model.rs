//! Which files of a model's repository are needed: configurations, and one version of the weights.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use crate::{
    Error, Hub, Progress, RepoKind, RepoName, Result, Snapshot,
    weights::{self, Weights},
};

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
        let folder = snapshot.fetch(&chosen, progress)?;
        Ok(match wanted.part {
            ModelPart::TextEncoder if snapshot.has(ENCODER_CONFIG) => folder.join(TEXT_ENCODER),
            _ => folder,
        })
    }
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
        if snapshot.is_cached() {
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

/// Chooses among a repository's files.
fn choose<'a>(
    paths: &[&'a str],
    components: Option<&BTreeSet<String>>,
    wanted: &ModelFiles,
) -> Result<Vec<&'a str>, Missing> {
    if wanted.part == ModelPart::Config {
        let configs = [CONFIG, "unet/config.json"];
        let found: Vec<&str> = paths
            .iter()
            .copied()
            .filter(|path| configs.contains(path))
            .collect();
        return if found.is_empty() {
            Err(Missing::Config)
        } else {
            Ok(found)
        };
    }
    let files = by_folder(paths);
    let has_mark = |folder: &str| {
        files
            .get(folder)
            .is_some_and(|names| names.iter().any(|name| MARKS.contains(name)))
    };
    let mut folders: Vec<&str> = match components {
        _ if wanted.part == ModelPart::TextEncoder && has_mark(TEXT_ENCODER) => vec![TEXT_ENCODER, TOKENIZER],
        // Early pipelines have every file at their root.
        Some(components) => files
            .keys()
            .copied()
            .filter(|folder| components.contains(*folder))
            .collect(),
        None if has_mark("") => vec![TOKENIZER],
        None => files.keys().copied().filter(|folder| has_mark(folder)).collect(),
    };
    let all_have_folders =
        components.is_some_and(|all| all.iter().all(|name| files.contains_key(name.as_str())));
    let root_has_weights =
        !all_have_folders && wanted.part != ModelPart::TextEncoder || folders == [TOKENIZER];
    if wanted.part == ModelPart::Whole || root_has_weights {
        folders.push("");
    }
    let mut chosen = Vec::new();
    let mut variants = BTreeSet::new();
    let (mut found_any, mut found_variant) = (false, false);
    for folder in folders {
        let names = files.get(folder).map(Vec::as_slice).unwrap_or_default();
        chosen.extend(
            names
                .iter()
                .filter(|name| is_small(folder, name))
                .map(|name| (folder, *name)),
        );
        if folder.is_empty() && !root_has_weights {
            continue;
        }
        let known: Vec<(Weights, &str)> = names
            .iter()
            .filter_map(|name| Some((Weights::of(name)?, *name)))
            .collect();
        variants.extend(
            known
                .iter()
                .filter_map(|(weights, _)| weights.variant.map(String::from)),
        );
        match weights::best(&known, wanted.variant.as_deref()) {
            Some(best) => {
                found_any = true;
                found_variant |= best.variant.is_some() && best.variant == wanted.variant.as_deref();
                let same = known.iter().filter(|(weights, _)| *weights == best);
                chosen.extend(same.map(|(_, name)| (folder, *name)));
            }
            None if names.contains(&CONFIG) && !folder.is_empty() => {
                return Err(Missing::Component(folder.to_string()));
            }
            None => {}
        }
    }
    let absent = |name: &&String| !files.contains_key(name.as_str()) && !has_mark("");
    if let Some(absent) = components.and_then(|all| all.iter().find(absent)) {
        return Err(Missing::Component(absent.clone()));
    }
    if !found_any {
        let large = [
            ".safetensors",
            ".bin",
            ".ckpt",
            ".pt",
            ".pth",
            ".onnx",
            ".msgpack",
            ".h5",
            ".gguf",
        ];
        let is_large = |path: &&&str| large.iter().any(|ending| path.ends_with(ending));
        let there = paths.iter().filter(is_large).take(3).map(|path| path.to_string());
        return Err(Missing::Weights(there.collect()));
    }
    if let Some(variant) = wanted.variant.as_ref().filter(|_| !found_variant) {
        return Err(Missing::Variant(variant.clone(), variants.into_iter().collect()));
    }
    // Back to the names that were given.
    let chosen: BTreeSet<(&str, &str)> = chosen.into_iter().collect();
    Ok(paths
        .iter()
        .copied()
        .filter(|path| chosen.contains(&split(path)))
        .collect())
}

/// A path's folder and its name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The names of the files directly in each folder; the root's is empty.
fn by_folder<'a>(paths: &[&'a str]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in paths {
        let (folder, name) = split(path);
        folders.entry(folder).or_default().push(name);
    }
    folders
}

/// Whether a file says something and weighs little: configurations, tokenizers, the card.
fn is_small(folder: &str, name: &str) -> bool {
    let is_index = name.contains(".index.") || name.starts_with("flax_") || name.starts_with("tf_");
    let is_vocabulary = ["merges.txt", "vocab.txt", "spiece.model", "tokenizer.model"].contains(&name);
    (name.ends_with(".json") && !is_index) || is_vocabulary || (folder.is_empty() && name == "README.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&str], components: &[&str], wanted: &ModelFiles) -> Result<Vec<String>, Missing> {
        let components: BTreeSet<String> = components.iter().map(|name| name.to_string()).collect();
        let components = (!components.is_empty()).then_some(&components);
        Ok(choose(paths, components, wanted)?
            .into_iter()
            .map(String::from)
            .collect())
    }

    fn whole(paths: &[&str], components: &[&str]) -> Result<Vec<String>, Missing> {
        chosen(paths, components, &ModelFiles::default())
    }

    /// What a Stable Diffusion repository looks like.
    const LARGE: [&str; 28] = [
        ".gitattributes",
        "README.md",
        "feature_extractor/preprocessor_config.json",
        "model_index.json",
        "samples/a.png",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/flax_model.msgpack",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/model.safetensors",
        "text_encoder/openvino_model.bin",
        "text_encoder/pytorch_model.bin",
        "text_encoder/pytorch_model.fp16.bin",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/model.onnx",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    const COMPONENTS: [&str; 6] = [
        "feature_extractor",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae",
    ];

    #[test]
    fn a_pipeline_comes_with_one_version_of_its_weights() {
        assert_eq!(
            whole(&LARGE, &COMPONENTS).unwrap(),
            [
                "README.md",
                "feature_extractor/preprocessor_config.json",
                "model_index.json",
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "tokenizer/merges.txt",
                "tokenizer/special_tokens_map.json",
                "tokenizer/tokenizer_config.json",
                "tokenizer/vocab.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
            ]
        );
    }

    #[test]
    fn a_variant_is_taken_where_there_is_one() {
        let wanted = |variant: &str| ModelFiles {
            variant: Some(variant.into()),
            ..ModelFiles::default()
        };
        let fp16 = chosen(&LARGE, &COMPONENTS, &wanted("fp16")).unwrap();
        let weights: Vec<&String> = fp16
            .iter()
            .filter(|path| path.ends_with(".safetensors"))
            .collect();
        assert_eq!(
            weights,
            [
                "text_encoder/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.safetensors"
            ]
        );
        assert_eq!(
            chosen(&LARGE, &COMPONENTS, &wanted("bf16")).unwrap_err(),
            Missing::Variant("bf16".into(), vec!["fp16".into(), "non_ema".into()])
        );
    }

    #[test]
    fn early_pipelines_have_all_files_at_their_root() {
        let paths = [
            ".gitattributes",
            "README.md",
            "config.json",
            "diffusion_model.pt",
            "diffusion_pytorch_model.bin",
            "image.png",
            "model_index.json",
            "scheduler_config.json",
        ];
        let expected = [
            "README.md",
            "config.json",
            "diffusion_pytorch_model.bin",
            "model_index.json",
            "scheduler_config.json",
        ];
        assert_eq!(whole(&paths, &["scheduler", "unet"]).unwrap(), expected);
    }

    #[test]
    fn shards_come_with_their_index() {
        let paths = [
            "config.json",
            "diffusion_pytorch_model-00001-of-00002.bin",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00002-of-00002.bin",
            "diffusion_pytorch_model-00002-of-00002.safetensors",
            "diffusion_pytorch_model.bin.index.json",
            "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.safetensors.index.json",
        ];
        assert_eq!(
            whole(&paths, &[]).unwrap(),
            [paths[0], paths[2], paths[4], paths[8]]
        );
        let wanted = ModelFiles {
            variant: Some("fp16".into()),
            ..ModelFiles::default()
        };
        assert_eq!(
            chosen(&paths, &[], &wanted).unwrap(),
            [paths[0], paths[6], paths[7]]
        );
    }

    #[test]
    fn clip_comes_as_transformers_has_it_or_as_open_clip() {
        let both = [
            "config.json",
            "flax_model.msgpack",
            "merges.txt",
            "open_clip_config.json",
            "open_clip_pytorch_model.bin",
            "preprocessor_config.json",
            "pytorch_model.bin",
            "tf_model.h5",
            "tokenizer.json",
            "vocab.json",
        ];
        let expected = [both[0], both[2], both[3], both[5], both[6], both[8], both[9]];
        assert_eq!(whole(&both, &[]).unwrap(), expected);
        let open = [
            "open_clip_config.json",
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin",
        ];
        assert_eq!(whole(&open, &[]).unwrap(), open[..2]);
    }

    #[test]
    fn parts_come_alone() {
        let part = |part| ModelFiles {
            part,
            ..ModelFiles::default()
        };
        assert_eq!(
            chosen(&LARGE, &[], &part(ModelPart::Config)).unwrap(),
            ["unet/config.json"]
        );
        assert_eq!(
            chosen(&LARGE, &[], &part(ModelPart::TextEncoder)).unwrap(),
            [
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "tokenizer/merges.txt",
                "tokenizer/special_tokens_map.json",
                "tokenizer/tokenizer_config.json",
                "tokenizer/vocab.json",
            ]
        );
        let clip = [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "vision.onnx",
        ];
        assert_eq!(
            chosen(&clip, &[], &part(ModelPart::TextEncoder)).unwrap(),
            clip[..3]
        );
    }

    #[test]
    fn a_model_alone_and_a_folder_of_one() {
        let alone = [
            "config.json",
            "diffusion_pytorch_model.safetensors",
            "logs/events",
        ];
        assert_eq!(whole(&alone, &[]).unwrap(), alone[..2]);
        let below = [
            "README.md",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(whole(&below, &[]).unwrap(), below);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(
            whole(&["README.md", "lora.safetensors"], &[]).unwrap_err(),
            Missing::Weights(vec!["lora.safetensors".into()])
        );
        let without = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
        ];
        assert_eq!(
            whole(&without, &["scheduler", "unet"]).unwrap_err(),
            Missing::Component("unet".into())
        );
        let config = ModelFiles {
            part: ModelPart::Config,
            ..ModelFiles::default()
        };
        assert_eq!(chosen(&["README.md"], &[], &config).unwrap_err(), Missing::Config);
    }
}
