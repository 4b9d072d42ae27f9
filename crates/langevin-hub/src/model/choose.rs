//! The choice itself, among the paths of a repository's files.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CONFIG, LORA, LORA_CONFIG, MARKS, Missing, ModelFiles, ModelPart, SCHEDULER_CONFIG, TEXT_ENCODER,
    TOKENIZER,
};
use crate::weights::{self, Weights};

/// What the names of large files end with, which are told of where none of them is known.
const LARGE: [&str; 9] = [
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

/// Chooses among a repository's files, of which a pipeline's index names the components.
pub(super) fn choose<'a>(
    paths: &[&'a str],
    components: Option<&BTreeSet<String>>,
    wanted: &ModelFiles,
) -> Result<Vec<&'a str>, Missing> {
    if wanted.part == ModelPart::Config {
        return configs(paths);
    }
    if wanted.part == ModelPart::Scheduler {
        let is_one =
            |path: &&str| split(path).1 == SCHEDULER_CONFIG && ["", "scheduler"].contains(&split(path).0);
        let found: Vec<&str> = paths.iter().copied().filter(is_one).collect();
        return if found.is_empty() {
            Err(Missing::Scheduler)
        } else {
            Ok(found)
        };
    }
    if wanted.part == ModelPart::Lora {
        return lora(paths);
    }
    let files = by_folder(paths);
    let mut chosen = Vec::new();
    let mut variants = BTreeSet::new();
    let (mut found_any, mut found_variant) = (false, false);
    for (folder, has_weights) in folders(&files, components, wanted.part)? {
        let names = files.get(folder).map(Vec::as_slice).unwrap_or_default();
        let small = names.iter().filter(|name| is_small(folder, name));
        chosen.extend(small.map(|name| (folder, *name)));
        if !has_weights {
            continue;
        }
        let known = names.iter().filter_map(|name| Some((Weights::of(name)?, *name)));
        let known: Vec<(Weights, &str)> = known.collect();
        let there = known.iter().filter_map(|(weights, _)| weights.variant);
        variants.extend(there.map(String::from));
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
    if !found_any {
        let is_large = |path: &&&str| LARGE.iter().any(|ending| path.ends_with(ending));
        let there = paths.iter().filter(is_large).take(3).map(|path| path.to_string());
        return Err(Missing::Weights(there.collect()));
    }
    if let Some(variant) = wanted.variant.as_ref().filter(|_| !found_variant) {
        return Err(Missing::Variant(variant.clone(), variants.into_iter().collect()));
    }
    // Back to the paths that were given, in their order.
    let chosen: BTreeSet<(&str, &str)> = chosen.into_iter().collect();
    let is_chosen = |path: &&str| chosen.contains(&split(path));
    Ok(paths.iter().copied().filter(is_chosen).collect())
}

/// A model's configuration alone, its own or that of the UNet in it.
fn configs<'a>(paths: &[&'a str]) -> Result<Vec<&'a str>, Missing> {
    let is_one = |path: &&str| *path == CONFIG || *path == "unet/config.json";
    let found: Vec<&str> = paths.iter().copied().filter(is_one).collect();
    if found.is_empty() {
        Err(Missing::Config)
    } else {
        Ok(found)
    }
}

/// A LoRA at the root: the file that is called as usual, or else the only one that there is.
fn lora<'a>(paths: &[&'a str]) -> Result<Vec<&'a str>, Missing> {
    let at_root = |ending: &str| {
        let is_one = |path: &&str| !path.contains('/') && path.ends_with(ending);
        paths.iter().copied().filter(is_one).collect::<Vec<&str>>()
    };
    let usual = LORA
        .iter()
        .find_map(|name| paths.iter().copied().find(|path| path == name));
    let file = match (usual, at_root(".safetensors").as_slice()) {
        (Some(usual), _) => usual,
        (None, [one]) => *one,
        (None, all) => {
            return Err(Missing::Lora(
                all.iter().take(3).map(ToString::to_string).collect(),
            ));
        }
    };
    let is_wanted = |path: &&str| *path == file || *path == LORA_CONFIG;
    Ok(paths.iter().copied().filter(is_wanted).collect())
}

/// The folders that are looked into, the root being the empty one, and whether weights are wanted from them.
///
/// # Errors
/// If a component has no folder, and its files are not at the root either.
fn folders<'a>(
    files: &BTreeMap<&'a str, Vec<&'a str>>,
    components: Option<&BTreeSet<String>>,
    part: ModelPart,
) -> Result<Vec<(&'a str, bool)>, Missing> {
    let is_marked = |names: &Vec<&str>| names.iter().any(|name| MARKS.contains(name));
    let root_is_marked = files.get("").is_some_and(is_marked);
    if part == ModelPart::TextEncoder && files.get(TEXT_ENCODER).is_some_and(is_marked) {
        return Ok(vec![(TEXT_ENCODER, true), (TOKENIZER, true)]);
    }
    let Some(components) = components else {
        if root_is_marked {
            return Ok(vec![("", true), (TOKENIZER, false)]);
        }
        // A pipeline without its index.
        let marked = files.iter().filter(|(_, names)| is_marked(names));
        let marked = marked.map(|(folder, _)| (*folder, true));
        return Ok(marked.chain([("", false)]).collect());
    };
    let absent = components.iter().find(|name| !files.contains_key(name.as_str()));
    match absent {
        Some(absent) if !root_is_marked => return Err(Missing::Component(absent.clone())),
        _ => {}
    }
    let own = files
        .keys()
        .copied()
        .filter(|folder| components.contains(*folder));
    // Early pipelines have every file at their root.
    let root = ("", absent.is_some());
    Ok(own.map(|folder| (folder, true)).chain([root]).collect())
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

    #[test]
    fn of_a_lora_its_one_file_is_chosen() {
        let wanted = ModelFiles {
            part: ModelPart::Lora,
            ..ModelFiles::default()
        };
        let lora = |paths: &[&'static str]| chosen(paths, &[], &wanted);
        assert_eq!(
            lora(&[
                "README.md",
                "other.safetensors",
                "pytorch_lora_weights.safetensors"
            ])
            .unwrap(),
            ["pytorch_lora_weights.safetensors"]
        );
        assert_eq!(
            lora(&[
                "adapter_config.json",
                "adapter_model.safetensors",
                "unet/a.safetensors"
            ])
            .unwrap(),
            ["adapter_config.json", "adapter_model.safetensors"]
        );
        assert_eq!(
            lora(&["pixels.safetensors", "x.png"]).unwrap(),
            ["pixels.safetensors"]
        );
        assert!(lora(&["a.safetensors", "b.safetensors"]).is_err());
        assert!(lora(&["unet/a.safetensors", "x.png"]).is_err());
    }
}
