//! What lies between the data and what a run's model draws.

use std::path::{Path, PathBuf};

use super::{DataCodec, ModelSource};
use crate::{
    Error, Result, files,
    models::{AutoencoderKLConfig, ModelConfig, autoencoder::AutoencoderPreset},
    named::Named,
    weights::CONFIG_NAME,
};

/// Nothing, spectrograms, or an autoencoder, whose latents the model draws.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CodecSource {
    /// One without a network.
    Data(DataCodec),
    /// An autoencoder that is trained on the data first, in the same run.
    Train,
    /// That of a folder or a file: its own, or that of a pipeline.
    Autoencoder(PathBuf),
}

/// The autoencoder that is trained first.
const TRAIN: &str = "train";

impl CodecSource {
    /// Whether the model draws an autoencoder's latents.
    pub fn is_latent(&self) -> bool {
        !matches!(self, Self::Data(_))
    }

    /// Refuses a path that leads nowhere.
    ///
    /// # Errors
    /// If it does.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Autoencoder(path) if !path.exists() => {
                let kinds: Vec<&str> = DataCodec::ALL.iter().map(|codec| codec.name()).collect();
                Err(Error::option(
                    &["codec"],
                    format!(
                        "there is no codec `{}`: there are {} and {TRAIN}, and there is no such folder of an autoencoder",
                        path.display(),
                        kinds.join(", ")
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl From<DataCodec> for CodecSource {
    fn from(codec: DataCodec) -> Self {
        Self::Data(codec)
    }
}

impl From<String> for CodecSource {
    fn from(text: String) -> Self {
        match (text.as_str(), DataCodec::from_name(&text)) {
            (TRAIN, _) => Self::Train,
            (_, Ok(codec)) => Self::Data(codec),
            _ => Self::Autoencoder(text.into()),
        }
    }
}

impl From<CodecSource> for String {
    fn from(source: CodecSource) -> Self {
        match source {
            CodecSource::Data(codec) => codec.name().into(),
            CodecSource::Train => TRAIN.into(),
            CodecSource::Autoencoder(path) => path.display().to_string(),
        }
    }
}

/// The autoencoder that a run trains: a preset by its name, or a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AutoencoderSource {
    /// One of the built-in configurations.
    Preset(AutoencoderPreset),
    /// A diffusers `config.json` of an `AutoencoderKL`, or a folder that has one.
    Config(PathBuf),
}

impl AutoencoderSource {
    /// A name that is fit for a folder's.
    pub fn short_name(&self) -> String {
        match self {
            Self::Preset(preset) => preset.name().into(),
            // Named as models are.
            Self::Config(path) => ModelSource::Config(path.clone()).short_name(),
        }
    }

    /// The configuration, for pictures of so many pixels along a side and so many channels.
    ///
    /// # Errors
    /// If there is no such file, or it is not the configuration of an autoencoder of such pictures.
    pub fn config(&self, side: usize, channels: usize) -> Result<AutoencoderKLConfig> {
        let path = match self {
            Self::Preset(preset) => return Ok(preset.config(side, channels)),
            Self::Config(path) => path,
        };
        let file = [
            path.clone(),
            path.join(CONFIG_NAME),
            path.join("vae").join(CONFIG_NAME),
        ]
        .into_iter()
        .find(|file| file.is_file());
        let Some(file) = file else {
            let presets: Vec<&str> = AutoencoderPreset::ALL
                .iter()
                .map(|preset| preset.name())
                .collect();
            return Err(Error::option(
                &["codec_model"],
                format!(
                    "there is no autoencoder `{}`: there are {}, and there is no such configuration",
                    path.display(),
                    presets.join(" and ")
                ),
            ));
        };
        let config = of_file(&file)?;
        if config.in_channels != channels || config.out_channels != channels {
            return Err(Error::file(
                file,
                format!(
                    "is of an autoencoder of pictures with {} channels, and these have {channels}",
                    config.in_channels
                ),
            ));
        }
        Ok(AutoencoderKLConfig {
            sample_size: crate::models::unet2d::SampleSize::Square(side),
            ..config
        })
    }
}

fn of_file(file: &Path) -> Result<AutoencoderKLConfig> {
    let value: serde_json::Value = files::read_json(file)?;
    let class = value.get("_class_name").and_then(serde_json::Value::as_str);
    if let Some(class) = class.filter(|class| *class != AutoencoderKLConfig::CLASS) {
        return Err(Error::file(
            file,
            format!(
                "is the configuration of a {class}; an {} is trained",
                AutoencoderKLConfig::CLASS
            ),
        ));
    }
    let config = AutoencoderKLConfig::of_value(value, file)?;
    config.validate().map_err(|e| Error::file(file, e.to_string()))?;
    Ok(config)
}

impl From<AutoencoderPreset> for AutoencoderSource {
    fn from(preset: AutoencoderPreset) -> Self {
        Self::Preset(preset)
    }
}

impl From<String> for AutoencoderSource {
    fn from(text: String) -> Self {
        AutoencoderPreset::from_name(&text).map_or_else(|_| Self::Config(text.into()), Self::Preset)
    }
}

impl From<AutoencoderSource> for String {
    fn from(source: AutoencoderSource) -> Self {
        match source {
            AutoencoderSource::Preset(preset) => preset.name().into(),
            AutoencoderSource::Config(path) => path.display().to_string(),
        }
    }
}
