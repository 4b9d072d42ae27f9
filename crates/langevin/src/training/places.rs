//! Where the files lie that a run's configuration names by relative paths, when it goes on from another folder.

use std::path::{Component, Path, PathBuf};

use super::{AutoencoderSource, CodecSource, ModelSource, TextEncoderSource, TrainingConfig, config::DIGITS};
use crate::{Error, Result};

/// The options that may be paths.
const PATHS: [&str; 10] = [
    "dataset_name",
    "train_data_dir",
    "model",
    "pretrained",
    "text_encoder",
    "vector_clip",
    "codec",
    "codec_model",
    "class_data_dir",
    "validation_image",
];

impl TrainingConfig {
    /// The same with the paths that lead somewhere from the folder where the run was begun, which is found out from where its own folder
    /// is now. Paths that lead nowhere from there stay as they are.
    pub(super) fn found_from(&self, run: &Path) -> Self {
        let Some(base) = self.begun_in(run) else {
            return self.clone();
        };
        let found = |path: &Path| Some(base.join(path)).filter(|whole| path.is_relative() && whole.exists());
        let path = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| found(path).unwrap_or_else(|| path.clone()))
        };
        let text = |name: &String| {
            let whole = (name != DIGITS).then(|| found(Path::new(name))).flatten();
            whole
                .and_then(|whole| whole.to_str().map(String::from))
                .unwrap_or_else(|| name.clone())
        };
        Self {
            dataset_name: self.dataset_name.as_ref().map(text),
            train_data_dir: path(&self.train_data_dir),
            pretrained: path(&self.pretrained),
            vector_clip: path(&self.vector_clip),
            class_data_dir: path(&self.class_data_dir),
            validation_image: self
                .validation_image
                .iter()
                .map(|file| found(file).unwrap_or_else(|| file.clone()))
                .collect(),
            model: match &self.model {
                ModelSource::Config(file) => ModelSource::Config(found(file).unwrap_or_else(|| file.clone())),
                preset => preset.clone(),
            },
            codec: self.codec.as_ref().map(|codec| match codec {
                CodecSource::Autoencoder(folder) => {
                    CodecSource::Autoencoder(found(folder).unwrap_or_else(|| folder.clone()))
                }
                other => other.clone(),
            }),
            codec_model: match &self.codec_model {
                AutoencoderSource::Config(file) => {
                    AutoencoderSource::Config(found(file).unwrap_or_else(|| file.clone()))
                }
                preset => preset.clone(),
            },
            text_encoder: match &self.text_encoder {
                TextEncoderSource::Folder(folder) => {
                    TextEncoderSource::Folder(found(folder).unwrap_or_else(|| folder.clone()))
                }
                small => small.clone(),
            },
            ..self.clone()
        }
    }

    /// The folder where the run was begun, if it is another one than this: from there, `output_dir` as it was typed leads to the run.
    fn begun_in(&self, run: &Path) -> Option<PathBuf> {
        let typed = self.output_dir.as_ref().filter(|typed| typed.is_relative())?;
        let whole = run.canonicalize().ok()?;
        let mut base = whole.as_path();
        for part in typed.components().rev() {
            match part {
                Component::CurDir => {}
                Component::Normal(name) if base.file_name() == Some(name) => base = base.parent()?,
                _ => return None,
            }
        }
        let here = std::env::current_dir()
            .and_then(|here| here.canonicalize())
            .ok()?;
        (base != here).then(|| base.to_path_buf())
    }

    /// Refuses to look on the Hub for data that were in a folder or a file when the run was begun.
    ///
    /// # Errors
    /// If they are not there; the error says where they were.
    pub(super) fn check_data_are_there(&self, run: &Path) -> Result<()> {
        let name = self.dataset()?;
        // What came from the Hub is named with its commit.
        if name == DIGITS || name.contains('@') || Path::new(&name).exists() {
            return Ok(());
        }
        let from = match self.begun_in(run) {
            Some(base) => format!("neither here nor in {}", base.display()),
            None => "not here".into(),
        };
        Err(Error::option(
            &["train_data_dir", "dataset_name"],
            format!(
                "{}: its data were in `{name}`, as seen from the folder where the run was begun, and such a path is {from}: \
                 go there, or say where they are now with `train_data_dir` or `dataset_name`",
                run.display()
            ),
        ))
    }
}

/// Whether both values of an option are paths to one place.
pub(super) fn one_place(option: &str, there: &str, here: &str) -> bool {
    let place = |json: &str| {
        let path: String = serde_json::from_str(json).ok()?;
        Path::new(&path).canonicalize().ok()
    };
    PATHS.contains(&option) && place(there).is_some_and(|there| place(here) == Some(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_found_from_where_the_run_was_begun() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().canonicalize().unwrap();
        for folder in ["data/pics", "runs/a-1"] {
            std::fs::create_dir_all(work.join(folder)).unwrap();
        }
        let config = TrainingConfig {
            dataset_name: Some("data/pics".into()),
            pretrained: Some("nowhere".into()),
            output_dir: Some("./runs/a-1".into()),
            ..TrainingConfig::script()
        };
        let run = work.join("runs/a-1");
        let found = config.found_from(&run);
        assert_eq!(found.dataset_name.as_deref(), work.join("data/pics").to_str());
        assert_eq!(found.pretrained, Some("nowhere".into()));
        found.check_data_are_there(&run).unwrap();
        let message = config.check_data_are_there(&run).unwrap_err().to_string();
        assert!(
            message.contains("`data/pics`") && message.contains(&*work.to_string_lossy()),
            "{message}"
        );
        // A folder that was renamed says nothing of where the others are.
        std::fs::rename(&run, work.join("runs/b")).unwrap();
        assert_eq!(config.found_from(&work.join("runs/b")), config);
        let named = TrainingConfig {
            dataset_name: Some("org/faces@0123".into()),
            ..config
        };
        named.check_data_are_there(&work).unwrap();
    }
}
