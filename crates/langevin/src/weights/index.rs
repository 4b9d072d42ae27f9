//! `diffusion_pytorch_model.safetensors.index.json`: which of several files holds which weights.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{Error, Result, files};

/// The files that together hold a model's weights.
pub(super) struct Index {
    shards: BTreeMap<PathBuf, BTreeSet<String>>,
}

/// As it is written. The metadata beside the map, the total size in bytes, is not needed.
#[derive(Deserialize)]
struct Written {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index, and checks that its files are there, beside it.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let written: Written = files::read_json(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for (name, file) in written.weight_map {
            // An index comes from elsewhere: it does not choose files outside of its folder.
            if !files::is_plain_name(&file) {
                return Err(Error::file(
                    path,
                    format!("looks for weights in `{file}`, where the name of a file beside it should be"),
                ));
            }
            let shard = folder.join(&file);
            if !shard.is_file() {
                return Err(Error::file(
                    path,
                    format!("names the file {file}, which is not there"),
                ));
            }
            shards.entry(shard).or_default().insert(name);
        }
        if shards.is_empty() {
            return Err(Error::file(path, "names no weights"));
        }
        Ok(Self { shards })
    }

    /// Every file with the names of the tensors to be read from it.
    pub(super) fn shards(&self) -> impl Iterator<Item = (PathBuf, &BTreeSet<String>)> {
        self.shards.iter().map(|(path, names)| (path.clone(), names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_lie_beside_their_index() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("unet");
        std::fs::create_dir(&folder).unwrap();
        for file in [root.path().join("out.safetensors"), folder.join("in.safetensors")] {
            std::fs::write(file, "").unwrap();
        }
        let path = folder.join("index.json");
        let load = |file: &str| {
            let written = serde_json::json!({ "weight_map": { "w": file } });
            std::fs::write(&path, written.to_string()).unwrap();
            Index::load(&path)
                .map(|index| index.shards().count())
                .map_err(|e| e.to_string())
        };
        assert_eq!(load("in.safetensors"), Ok(1));
        let absolute = root.path().join("out.safetensors").display().to_string();
        for file in [
            "../out.safetensors",
            "..\\out.safetensors",
            "C:in.safetensors",
            "./in.safetensors",
            "nul",
            &absolute,
        ] {
            let message = load(file).unwrap_err();
            assert!(
                message.contains("where the name of a file beside it should be"),
                "{message}"
            );
        }
    }
}
