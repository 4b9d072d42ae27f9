//! The folder of a run.

use std::path::{Path, PathBuf};

use super::{TraineeKind, TrainingConfig};

impl TrainingConfig {
    /// The run's folder: `output_dir`, or the first of `runs/DATA-MODEL-1`, `-2` … that is not there yet, for a data set
    /// of this name.
    pub fn run_folder(&self, dataset: &str) -> PathBuf {
        self.output_dir
            .clone()
            .unwrap_or_else(|| next_free_folder(Path::new("runs"), &self.run_name(dataset)))
    }

    /// The model that is trained, by a name that is fit for a folder's.
    pub fn model_name(&self) -> String {
        match self.trainee {
            TraineeKind::Codec => format!("autoencoder-{}", self.codec_model.short_name()),
            _ => self.model.short_name(),
        }
    }

    /// The data set and the model, as one word.
    fn run_name(&self, dataset: &str) -> String {
        let model = self.model_name();
        if dataset == model {
            model
        } else {
            format!("{dataset}-{model}")
        }
    }
}

/// `root/name-1`, or with the number after the highest that is taken.
fn next_free_folder(root: &Path, name: &str) -> PathBuf {
    let taken = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix(name)?
                .strip_prefix('-')?
                .parse::<usize>()
                .ok()
        });
    root.join(format!("{name}-{}", taken.max().unwrap_or(0) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_numbered_after_the_last() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            next_free_folder(root.path(), "digits"),
            root.path().join("digits-1")
        );
        for taken in ["digits-1", "digits-9", "digits-x", "other-12"] {
            std::fs::create_dir(root.path().join(taken)).unwrap();
        }
        assert_eq!(
            next_free_folder(root.path(), "digits"),
            root.path().join("digits-10")
        );
    }

    #[test]
    fn a_run_is_named_after_its_data_and_its_model() {
        let named = |model: &str| TrainingConfig {
            model: model.to_string().into(),
            ..TrainingConfig::digits()
        };
        assert_eq!(named("digits").run_name("digits"), "digits");
        assert_eq!(named("course-mnist").run_name("digits"), "digits-course-mnist");
        assert_eq!(named("models/small/config.json").run_name("emoji"), "emoji-small");
    }
}
