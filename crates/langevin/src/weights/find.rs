//! Which of a folder's files hold its weights.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::CONFIG_NAME;
use crate::{Error, Result};

/// What the names of a library's weights begin with: of safetensors files, and of pickles.
#[derive(Clone, Copy, Debug)]
pub struct FileNames {
    safetensors: &'static str,
    pickle: &'static str,
}

impl FileNames {
    /// The name of the safetensors file that holds all weights.
    pub fn whole(&self) -> String {
        format!("{}.safetensors", self.safetensors)
    }
}

/// Diffusers' names.
pub const DIFFUSERS: FileNames = FileNames {
    safetensors: "diffusion_pytorch_model",
    pickle: "diffusion_pytorch_model",
};

/// The names that transformers gives its models' weights.
pub const TRANSFORMERS: FileNames = FileNames {
    safetensors: "model",
    pickle: "pytorch_model",
};

/// A file that holds weights or says where they are, by its name. The order is that in which diffusers looks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    format: Format,
    kind: Kind,
    variant: Option<String>,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    Safetensors,
    Pickle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Names the files that together hold the weights.
    Index,
    /// Holds all of them.
    Whole,
}

impl Candidate {
    /// What a file's name says; `None` where it is not one of weights, or one of several shards.
    fn of(name: &str, names: &FileNames) -> Option<Self> {
        let (stem, rest) = name.split_once('.')?;
        let words: Vec<&str> = rest.split('.').collect();
        let (format, kind, variant) = match words.as_slice() {
            [format] => (format, Kind::Whole, None),
            [variant, format] => (format, Kind::Whole, Some(variant)),
            [format, "index", "json"] => (format, Kind::Index, None),
            // Where the variant stands in an index's name has changed.
            [format, "index", variant, "json"] | [format, variant, "index", "json"] => {
                (format, Kind::Index, Some(variant))
            }
            _ => return None,
        };
        let format = match *format {
            "safetensors" if stem == names.safetensors => Format::Safetensors,
            "bin" if stem == names.pickle => Format::Pickle,
            _ => return None,
        };
        let is_shard = variant.is_some_and(|variant| variant.contains("-of-"));
        (!is_shard).then(|| Self {
            format,
            kind,
            variant: variant.map(ToString::to_string),
            name: name.to_string(),
        })
    }
}

/// The file of a model's folder to load: its weights, or the index of their shards. Of several, the one that diffusers
/// would choose: safetensors before pickles, an index before a single file.
///
/// `variant` is what stands in the names of other versions of the same weights, as in
/// `diffusion_pytorch_model.fp16.safetensors`. Where none is asked for, the plain files count, or else the only variant
/// that there is.
///
/// # Errors
/// If the folder cannot be read, or holds no such weights.
pub(super) fn weights_in(folder: &Path, variant: Option<&str>, names: &FileNames) -> Result<PathBuf> {
    let mut candidates = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
        let entry = entry.map_err(|e| Error::io("read", folder, e))?;
        let name = entry.file_name();
        // Opening a pipe of that name would wait for whoever writes into it.
        let name = name.to_str().filter(|_| entry.path().is_file());
        candidates.extend(name.and_then(|name| Candidate::of(name, names)));
    }
    candidates.sort();
    let mut variants: Vec<&str> = candidates.iter().filter_map(|c| c.variant.as_deref()).collect();
    variants.sort_unstable();
    variants.dedup();
    let wanted = |variant: Option<&str>| candidates.iter().find(|c| c.variant.as_deref() == variant);
    let only_variant = || match variants.as_slice() {
        [only] => wanted(Some(only)),
        _ => None,
    };
    let found = match variant {
        Some(_) => wanted(variant),
        None => wanted(None).or_else(only_variant),
    };
    found.map(|found| folder.join(&found.name)).ok_or_else(|| {
        let there = match variants.len() {
            0 => format!(
                "{}.safetensors, the index of its shards, or {}.bin should be beside {CONFIG_NAME}",
                names.safetensors, names.pickle
            ),
            _ => format!("there are the variants {}; name one", variants.join(", ")),
        };
        let what = variant.map_or(String::new(), |variant| format!(" of the variant `{variant}`"));
        Error::file(folder, format!("holds no weights{what}: {there}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], variant: Option<&str>) -> std::result::Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        match weights_in(folder.path(), variant, &DIFFUSERS) {
            Ok(path) => Ok(path.file_name().unwrap().to_str().unwrap().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_order_is_diffusers() {
        let all = [
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.safetensors.index.json",
            "diffusion_pytorch_model.bin.index.json",
        ];
        assert_eq!(
            chosen(&all, None).unwrap(),
            "diffusion_pytorch_model.safetensors.index.json"
        );
        assert_eq!(
            chosen(&all[..5], None).unwrap(),
            "diffusion_pytorch_model.safetensors"
        );
        assert_eq!(chosen(&all[..2], None).unwrap(), "diffusion_pytorch_model.bin");
        assert_eq!(
            chosen(&all, Some("fp16")).unwrap(),
            "diffusion_pytorch_model.fp16.safetensors"
        );
    }

    #[test]
    fn a_variants_index_has_either_spelling() {
        for index in [
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.safetensors.fp16.index.json",
        ] {
            let shard = "diffusion_pytorch_model.fp16-00001-of-00002.safetensors";
            assert_eq!(chosen(&[index, shard], Some("fp16")).unwrap(), index);
        }
    }

    #[test]
    fn the_only_variant_is_taken_and_of_several_none() {
        let fp16 = "diffusion_pytorch_model.fp16.bin";
        assert_eq!(chosen(&[fp16], None).unwrap(), fp16);
        let message = chosen(&[fp16, "diffusion_pytorch_model.non_ema.bin"], None).unwrap_err();
        assert!(message.contains("fp16, non_ema"), "{message}");
        let message = chosen(&[fp16], Some("bf16")).unwrap_err();
        assert!(
            message.contains("`bf16`") && message.contains("fp16;"),
            "{message}"
        );
    }

    #[test]
    fn transformers_names_its_files_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "pytorch_model.bin",
            "diffusion_pytorch_model.safetensors",
            "model.safetensors",
        ] {
            let found = weights_in(folder.path(), None, &TRANSFORMERS);
            assert_eq!(found.is_ok(), folder.path().join("pytorch_model.bin").exists());
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = weights_in(folder.path(), None, &TRANSFORMERS).unwrap();
        assert_eq!(found, folder.path().join("model.safetensors"));
    }

    #[test]
    fn what_should_be_there_is_said() {
        let message = chosen(&["config.json", "model.onnx"], None).unwrap_err();
        assert!(
            message.contains("diffusion_pytorch_model.safetensors"),
            "{message}"
        );
    }
}
