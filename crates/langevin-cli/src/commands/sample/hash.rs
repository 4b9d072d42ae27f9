//! The hashes of a model's file and of what is put on it, which take a while and are wanted at the end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use langevin::{
    Pipeline,
    settings::{ModelName, addition_hash},
    weights::FileHashes,
};

/// Hashes that are being computed.
pub(super) struct Hash(JoinHandle<Found>);

struct Found {
    sha256: Option<String>,
    hashes: BTreeMap<PathBuf, String>,
}

impl Hash {
    /// Of a model where it is a single file, and of the LoRA and learned words of its pipeline.
    pub(super) fn of(path: &Path, pipeline: &Pipeline) -> Self {
        let model = path.is_file().then(|| path.to_path_buf());
        let loras: Vec<PathBuf> = pipeline.loras().iter().map(|lora| lora.path.clone()).collect();
        let words: Vec<PathBuf> = pipeline
            .embeddings()
            .iter()
            .map(|word| word.path.clone())
            .collect();
        Self(thread::spawn(move || {
            let additions = loras
                .into_iter()
                .map(|path| (path, true))
                .chain(words.into_iter().map(|path| (path, false)));
            let hash =
                |(path, is_lora): (PathBuf, bool)| Some((path.clone(), addition_hash(&path, is_lora).ok()?));
            Found {
                hashes: additions.filter_map(hash).collect(),
                sha256: model.and_then(|path| Some(FileHashes::of(path).ok()?.sha256)),
            }
        }))
    }

    /// The model's name with its hashes, once they are there; without those whose file could not be read.
    pub(super) fn name(self, path: String) -> ModelName {
        match self.0.join() {
            Ok(Found { sha256, hashes }) => ModelName {
                sha256,
                hashes,
                ..ModelName::of(path)
            },
            Err(_) => ModelName::of(path),
        }
    }
}
