//! The model that a run trains.

use std::path::{Path, PathBuf};

use super::{ConditioningKind, TrainingConfig};
use crate::{
    Error, Result,
    data::{Channels, looks_like_hub_name},
    files,
    models::{AnyModelConfig, ModelInputs, ModelPreset},
    named::Named,
    pipelines::PipelineSource,
    weights::single_file,
};

/// Which model a run trains: a preset by its name, or a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ModelSource {
    /// One of the built-in configurations.
    Preset(ModelPreset),
    /// A diffusers `config.json`, or a folder that has one.
    Config(PathBuf),
}

impl ModelSource {
    /// The configuration, as the preset or the file has it.
    ///
    /// # Errors
    /// If there is no such file, or it is not the configuration of a model that there is.
    pub fn config(&self) -> Result<AnyModelConfig> {
        match self {
            Self::Preset(preset) => Ok(preset.config()),
            Self::Config(path) if single_file::is_named(path) => {
                PipelineSource::open(path, None, None)?.model_config()
            }
            Self::Config(path) => AnyModelConfig::load(config_file(path)?),
        }
    }

    /// A name for the model that is fit for a folder's: the preset's, or the file's without its extension.
    pub fn short_name(&self) -> String {
        match self {
            Self::Preset(preset) => preset.name().to_string(),
            Self::Config(path) => {
                if let Some(repository) = files::cached_repository(path) {
                    return repository.name().to_string();
                }
                // `some-model/config.json` is better called by its folder.
                let named_by = if path.file_name().is_some_and(|name| name == "config.json") {
                    path.parent()
                        .filter(|parent| parent.file_name().is_some())
                        .unwrap_or(path)
                } else {
                    path
                };
                named_by
                    .file_stem()
                    .map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
            }
        }
    }
}

/// The model configuration that a path stands for: the file itself, or that of a model's or a pipeline's folder.
///
/// # Errors
/// If there is nothing at the path, or a folder without a model.
fn config_file(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return [path.join("config.json"), path.join("unet/config.json")]
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| Error::file(path, "holds no config.json of a model"));
    }
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let name = path.display();
    if looks_like_hub_name(&name.to_string()) {
        return Err(Error::Unsupported(format!(
            "there is no file `{name}`; if it is a repository of the Hub, pull it and name the folder"
        )));
    }
    let presets: Vec<&str> = ModelPreset::ALL.iter().map(|preset| preset.name()).collect();
    Err(Error::Config(format!(
        "there is no model `{name}`: there are {}, and there is no such file",
        presets.join(", ")
    )))
}

impl From<ModelPreset> for ModelSource {
    fn from(preset: ModelPreset) -> Self {
        Self::Preset(preset)
    }
}

/// A preset's name is that preset; anything else is a path.
impl From<String> for ModelSource {
    fn from(text: String) -> Self {
        ModelPreset::from_name(&text).map_or_else(|_| Self::Config(text.into()), Self::Preset)
    }
}

impl From<ModelSource> for String {
    fn from(source: ModelSource) -> Self {
        source.to_string()
    }
}

impl std::fmt::Display for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Preset(preset) => preset.fmt(f),
            Self::Config(path) => path.display().fmt(f),
        }
    }
}

impl TrainingConfig {
    /// Trains `model`, on pictures of the size and channels that it is made for.
    ///
    /// # Errors
    /// If it is a file that cannot be read, or is not a model's configuration.
    pub fn use_model(&mut self, model: ModelSource) -> Result<()> {
        let config = model.config()?;
        if let Some([height, width]) = config.sample_size() {
            if height != width {
                return Err(Error::Unsupported(format!(
                    "the model `{model}` is for pictures of {height}x{width}; only square ones can be trained on yet"
                )));
            }
            self.resolution = height;
        }
        let (drawn, predicted) = (config.in_channels(), config.out_channels());
        if predicted == 2 * drawn {
            return Err(Error::Unsupported(format!(
                "the model `{model}` predicts its variance beside the noise ({predicted} out_channels, {drawn} in_channels), and training \
                 teaches no variance: such models are drawn from, and not trained on"
            )));
        }
        self.channels = Channels::from_count(drawn).unwrap_or(self.channels);
        if !config.takes_classes() {
            self.conditioning = ConditioningKind::None;
        }
        self.model = model;
        Ok(())
    }

    /// The configuration of the model that is to be trained, for this configuration's pictures and with these inputs besides.
    ///
    /// # Errors
    /// If the model's file is broken, or the model cannot have them.
    pub fn model_config(&self, inputs: &ModelInputs) -> Result<AnyModelConfig> {
        self.model
            .config()?
            .made_with(self.resolution, self.channels.count(), inputs)
    }

    /// How often a picture's class is replaced by the null class: 0.1 unless the configuration says otherwise, and
    /// never where the model is told no class.
    pub fn class_dropout(&self) -> f64 {
        if self.conditioning.tells_classes() {
            self.class_dropout.unwrap_or(0.1)
        } else {
            0.0
        }
    }

    /// How often a picture's caption is replaced by the empty one: 0.1 unless the configuration says otherwise.
    pub fn caption_dropout(&self) -> f64 {
        self.caption_dropout.unwrap_or(0.1)
    }

    /// How often zeros take the place of a picture's vector: 0.1 unless the configuration says otherwise.
    pub fn vector_dropout(&self) -> f64 {
        self.vector_dropout.unwrap_or(0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_brings_its_size_along() {
        let mut config = TrainingConfig::digits();
        config.use_model(ModelPreset::CourseButterflies.into()).unwrap();
        assert_eq!((config.resolution, config.channels), (32, Channels::Rgb));
        config.use_model(ModelPreset::BasicUnet.into()).unwrap();
        assert_eq!((config.resolution, config.channels), (28, Channels::Grey));
        config.validate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"sample_size": 48, "in_channels": 3}"#,
        )
        .unwrap();
        config
            .use_model(ModelSource::Config(folder.path().into()))
            .unwrap();
        assert_eq!((config.resolution, config.channels), (48, Channels::Rgb));
    }

    #[test]
    fn the_model_is_made_for_the_pictures_and_a_null_class() {
        let config = TrainingConfig {
            resolution: 16,
            ..TrainingConfig::digits()
        };
        let inputs = ModelInputs {
            num_classes: Some(11),
            ..ModelInputs::default()
        };
        let model = config.model_config(&inputs).unwrap();
        assert_eq!((model.sample_size(), model.in_channels()), (Some([16, 16]), 1));
        assert_eq!(model.num_class_embeds(), Some(11));
        let without = config.model_config(&ModelInputs::default()).unwrap();
        assert_eq!(without.num_class_embeds(), None);
    }

    #[test]
    fn a_model_that_is_not_there_is_told_the_ones_that_are() {
        let refused = |name: &str| {
            TrainingConfig::digits()
                .use_model(name.to_string().into())
                .unwrap_err()
                .to_string()
        };
        assert!(refused("no-such-model").contains("course-butterflies"));
        assert!(refused("google/ddpm-cat-256").contains("pull it and name the folder"));
    }
}
