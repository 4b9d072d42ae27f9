//! Whichever model a folder or a preset holds.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::Value;

use super::{
    BasicUNet, BasicUNetConfig, Checkpoint, Conditioning, Denoiser, UNet2DConfig, UNet2DModel,
    unet2d::SampleSize,
    weights::{self, CONFIG_NAME},
};
use crate::{Error, Result, files, random::Generator};

const UNET2D: &str = "UNet2DModel";
const BASIC: &str = "BasicUNet";

/// The configuration of any model that there is, told apart by `_class_name`.
#[derive(Clone, Debug, PartialEq)]
// A handful of these ever exist.
#[allow(clippy::large_enum_variant)]
pub enum AnyModelConfig {
    /// Of a [`UNet2DModel`].
    UNet2D(UNet2DConfig),
    /// Of a [`BasicUNet`].
    Basic(BasicUNetConfig),
}

impl AnyModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it cannot be read, is of a class that is not there yet, or makes no sense.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let value: Value = files::read_json(path)?;
        let wrong = |message: String| Error::file(path, message);
        // A configuration written by hand may leave its class out.
        let class_name = value
            .get("_class_name")
            .and_then(Value::as_str)
            .unwrap_or(UNET2D)
            .to_string();
        let config = match class_name.as_str() {
            UNET2D => serde_json::from_value(value).map(Self::UNet2D),
            BASIC => serde_json::from_value(value).map(Self::Basic),
            other => {
                let message = format!("{}: a {other} is not there yet; a {UNET2D} is", path.display());
                return Err(Error::Unsupported(message));
            }
        };
        let config = config.map_err(|e| wrong(format!("is not the configuration of a {class_name}: {e}")))?;
        config.validate().map_err(|e| wrong(e.to_string()))?;
        Ok(config)
    }

    /// Checks the values.
    ///
    /// # Errors
    /// If they make no model.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::UNet2D(config) => config.validate(),
            // Its few values are checked where it is built.
            Self::Basic(_) => Ok(()),
        }
    }

    /// The name of the model's class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::UNet2D(_) => UNET2D,
            Self::Basic(_) => BASIC,
        }
    }

    /// Height and width of the pictures it is for.
    pub fn sample_size(&self) -> Option<[usize; 2]> {
        match self {
            Self::UNet2D(config) => config.sample_size.map(SampleSize::height_width),
            Self::Basic(config) => config.sample_size.map(|side| [side; 2]),
        }
    }

    /// Channels of the pictures it takes.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::UNet2D(config) => config.in_channels,
            Self::Basic(config) => config.in_channels,
        }
    }

    /// The number of classes that it tells apart, the null class included; `None` where it is unconditional.
    pub fn num_class_embeds(&self) -> Option<usize> {
        match self {
            Self::UNet2D(config) => config.num_class_embeds,
            Self::Basic(_) => None,
        }
    }

    /// Whether such a model can be told a picture's class.
    pub fn takes_classes(&self) -> bool {
        matches!(self, Self::UNet2D(_))
    }

    /// The same model for pictures of another size and number of channels, with so many classes.
    ///
    /// # Errors
    /// If it cannot be told a class.
    pub fn made_for(
        mut self,
        resolution: usize,
        channels: usize,
        num_class_embeds: Option<usize>,
    ) -> Result<Self> {
        match &mut self {
            Self::UNet2D(config) => {
                config.sample_size = Some(SampleSize::Square(resolution));
                (config.in_channels, config.out_channels) = (channels, channels);
                config.num_class_embeds = num_class_embeds;
            }
            Self::Basic(config) => {
                if num_class_embeds.is_some() {
                    return Err(Error::Config(format!("a {BASIC} has no input for a class")));
                }
                config.sample_size = Some(resolution);
                (config.in_channels, config.out_channels) = (channels, channels);
            }
        }
        Ok(self)
    }

    /// A new model, initialised as PyTorch does with numbers from `generator`.
    ///
    /// # Errors
    /// If the configuration makes no model.
    pub fn build(&self, device: &Device, generator: &mut Generator) -> Result<AnyModel> {
        match self {
            Self::UNet2D(config) => UNet2DModel::new(config, device, generator).map(AnyModel::UNet2D),
            Self::Basic(config) => BasicUNet::new(config, device, generator).map(AnyModel::Basic),
        }
    }
}

/// Any model that there is.
#[derive(Module, Debug)]
// There is one of these to a pipeline; the difference in size is nothing beside the weights.
#[allow(clippy::large_enum_variant)]
pub enum AnyModel {
    /// Diffusers' unconditional or class-conditional UNet.
    UNet2D(UNet2DModel),
    /// The course's network from scratch.
    Basic(BasicUNet),
}

impl AnyModel {
    /// Loads the model in `folder`, by the class that its `config.json` names.
    ///
    /// # Errors
    /// If a file is missing or broken, or the weights are not the model's.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = AnyModelConfig::load(folder.as_ref().join(CONFIG_NAME))?;
        Self::with_weights(&config, &mut Checkpoint::in_folder(folder)?, device)
    }

    /// A model with the weights of a checkpoint.
    ///
    /// # Errors
    /// If they are not this model's.
    pub fn with_weights(
        config: &AnyModelConfig,
        checkpoint: &mut Checkpoint,
        device: &Device,
    ) -> Result<Self> {
        match config {
            AnyModelConfig::UNet2D(config) => {
                UNet2DModel::with_weights(config, checkpoint, device).map(Self::UNet2D)
            }
            AnyModelConfig::Basic(config) => {
                BasicUNet::with_weights(config, checkpoint, device).map(Self::Basic)
            }
        }
    }

    /// This model with the weights of a checkpoint, but for those whose key begins with `kept`, which stay.
    ///
    /// # Errors
    /// If they are not this model's.
    pub fn with_weights_but(self, checkpoint: &mut Checkpoint, kept: &str, device: &Device) -> Result<Self> {
        weights::load_but(self, checkpoint, Some(kept), device)
    }

    /// Saves the configuration and the weights into a folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        match self {
            Self::UNet2D(model) => model.save(folder),
            Self::Basic(model) => model.save(folder),
        }
    }

    /// A copy of its configuration.
    pub fn config(&self) -> AnyModelConfig {
        match self {
            Self::UNet2D(model) => AnyModelConfig::UNet2D(model.config().clone()),
            Self::Basic(model) => AnyModelConfig::Basic(model.config().clone()),
        }
    }

    /// How many parameters it has.
    pub fn num_parameters(&self) -> usize {
        match self {
            Self::UNet2D(model) => model.num_parameters(),
            Self::Basic(model) => model.num_params(),
        }
    }

    /// Where dropout draws from from now on, where the model has dropout; `None` ends it.
    pub fn set_dropout(&self, generator: Option<Generator>) {
        if let Self::UNet2D(model) = self {
            model.set_dropout(generator);
        }
    }

    /// Ends dropout, and gives back what it drew from.
    pub fn take_dropout(&self) -> Option<Generator> {
        match self {
            Self::UNet2D(model) => model.take_dropout(),
            Self::Basic(_) => None,
        }
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        let devices = match self {
            Self::UNet2D(model) => model.devices(),
            Self::Basic(model) => model.devices(),
        };
        // A model without parameters would be anywhere; there is none.
        devices.into_iter().next().unwrap_or_default()
    }
}

impl From<UNet2DModel> for AnyModel {
    fn from(model: UNet2DModel) -> Self {
        Self::UNet2D(model)
    }
}

impl From<BasicUNet> for AnyModel {
    fn from(model: BasicUNet) -> Self {
        Self::Basic(model)
    }
}

impl Denoiser for AnyModel {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        match self {
            Self::UNet2D(model) => model.denoise(x, timesteps, conditioning),
            Self::Basic(model) => model.denoise(x, timesteps, conditioning),
        }
    }
}
