//! The LoRA that requests may name: those of a folder that the server was started with, by one plain name each.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use langevin::{
    Error, Pipeline, Result,
    pipelines::LentLora,
    settings::addition_hash,
    weights::{
        Checkpoint,
        lora::{LORA_ENDINGS, file_of},
    },
};

use crate::shelf::{Kept, Room, Shelf, stem};

/// How many stay loaded for each model, and may be named by one request: a LoRA is small beside its model.
pub(crate) const KEPT: usize = 16;

/// The LoRA of a folder: its files by their names without their endings, and its folders with one in them. One is loaded for a model when a
/// request first names it, and lies beside the model's weights while that request is drawn.
#[derive(Debug)]
pub struct Loras(Shelf<About>);

#[derive(Debug)]
struct About {
    /// What others know its file by, once somebody drew with it.
    hash: OnceLock<Option<String>>,
}

impl Loras {
    /// Those of a folder, of which nothing is read yet.
    ///
    /// # Errors
    /// If the folder cannot be read, or two of them would have one name.
    pub fn of(folder: impl AsRef<Path>) -> Result<Self> {
        let about = |_: &Path| {
            Ok(About {
                hash: OnceLock::new(),
            })
        };
        Shelf::of(folder.as_ref(), name_of, about).map(Self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of all of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The names of those that can lie beside a pipeline's weights.
    pub(crate) fn for_pipeline(&self, pipeline: &Pipeline) -> Vec<&str> {
        let paths: Vec<&Path> = self.0.iter().map(|(_, entry)| entry.path.as_path()).collect();
        let fit = pipeline.can_lend(&paths);
        let fitting = self.0.iter().zip(fit).filter(|(_, fits)| *fits);
        fitting.map(|((name, _), _)| name).collect()
    }

    /// The LoRA of a name for a pipeline, among those that were loaded for it.
    ///
    /// # Errors
    /// If there is none of this name, it does not fit, it is broken, or there is no room for it.
    pub(crate) fn get(
        &self,
        name: &str,
        pipeline: &Pipeline,
        kept: &Kept<LentLora>,
        room: Room<'_>,
    ) -> Result<LentLora> {
        let entry = self.0.get(name).ok_or_else(|| unknown(name))?;
        let load = || {
            let file = file_of(&entry.path)?;
            // As float32, which it is held in.
            room(
                Checkpoint::open(&file)?.loaded_bytes(),
                &format!("the LoRA `{name}`"),
            )?;
            let lora = pipeline.lend(&entry.path)?;
            let bytes = lora.bytes();
            Ok((lora, bytes))
        };
        kept.get(name, |_| load())
            .map_err(|error| self.0.hiding(&entry.path, error))
    }

    /// The path of a LoRA, and what others know it by.
    pub(crate) fn hash(&self, name: &str) -> Option<(PathBuf, String)> {
        let entry = self.0.get(name)?;
        let hash = entry
            .about
            .hash
            .get_or_init(|| addition_hash(&entry.path, true).ok());
        Some((entry.path.clone(), hash.clone()?))
    }
}

/// The error where a request names what is not there.
pub(crate) fn unknown(name: &str) -> Error {
    Error::option(
        &["loras"],
        format!("there is no LoRA `{name}` on this server; GET /api/models lists each model's `loras`"),
    )
}

/// What requests call an entry of the folder; `None` for what is no LoRA by its looks.
fn name_of(path: &Path) -> Option<String> {
    if path.is_file() {
        return stem(path, &LORA_ENDINGS);
    }
    file_of(path).ok()?;
    Some(path.file_name()?.to_str()?.to_string())
}
