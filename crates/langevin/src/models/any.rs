//! Whichever model a folder or a preset holds.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::Value;

use super::{
    BasicUNet, BasicUNetConfig, Checkpoint, ClassChannels, ClassConditionedConfig, ClassConditionedUnet,
    Conditioning, Denoiser, ImageCondition, PictureVector, UNet2DConditionConfig, UNet2DConditionModel,
    UNet2DConfig, UNet2DModel,
    unet2d::{ClassEmbedType, SampleSize},
    unet2d_condition::ConditionClassEmbedType,
    weights::{self, CONFIG_NAME},
};
use crate::{Error, Result, files, random::Generator};

const UNET2D: &str = "UNet2DModel";
const CONDITION: &str = "UNet2DConditionModel";
const CLASS_CHANNELS: &str = "ClassConditionedUnet";
const BASIC: &str = "BasicUNet";

/// The key of a UNet's configuration that says what picture it is shown beside the noisy one; diffusers overlooks it.
const CONDITIONING_IMAGE: &str = "conditioning_image";
/// The same for the vector that it is told of a picture.
const CONDITIONING_VECTOR: &str = "conditioning_vector";

/// What a model is to be told besides the noisy picture and its timestep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInputs {
    /// How many classes it tells apart, the null class included; `None` where it is told none.
    pub num_classes: Option<usize>,
    /// Where classes are channels beside the picture's: what channels. Otherwise they are vectors added to the time embedding.
    pub class_channels: Option<ClassChannels>,
    /// Whether a class's number is embedded as a timestep's is, and not by a table.
    pub class_timestep: bool,
    /// A picture beside the noisy one.
    pub image: Option<ImageCondition>,
    /// The dimension of a sequence that it looks at.
    pub sequence_dim: Option<usize>,
    /// A vector that is added to the time embedding.
    pub vector: Option<VectorInput>,
}

/// A vector of a picture that a model is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorInput {
    /// What it is.
    pub kind: PictureVector,
    /// How many numbers it has.
    pub dimension: usize,
    /// How it is brought to the time embedding's dimension: as it is, or by one or two linear layers.
    pub embedding: ConditionClassEmbedType,
}

/// The configuration of any model that there is, told apart by `_class_name`.
#[derive(Clone, Debug, PartialEq)]
// A handful of these ever exist.
#[allow(clippy::large_enum_variant)]
pub enum AnyModelConfig {
    /// Of a [`UNet2DModel`].
    UNet2D(UNet2DConfig),
    /// Of a [`UNet2DConditionModel`].
    Condition(UNet2DConditionConfig),
    /// Of a [`ClassConditionedUnet`].
    ClassChannels(ClassConditionedConfig),
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
            CONDITION => serde_json::from_value(value).map(Self::Condition),
            CLASS_CHANNELS => serde_json::from_value(value).map(Self::ClassChannels),
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
            Self::Condition(config) => config.validate(),
            Self::ClassChannels(config) => config.validate(),
            // Its few values are checked where it is built.
            Self::Basic(_) => Ok(()),
        }
    }

    /// The name of the model's class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::UNet2D(_) => UNET2D,
            Self::Condition(_) => CONDITION,
            Self::ClassChannels(_) => CLASS_CHANNELS,
            Self::Basic(_) => BASIC,
        }
    }

    /// Height and width of the pictures it is for.
    pub fn sample_size(&self) -> Option<[usize; 2]> {
        match self {
            Self::UNet2D(config) => config.sample_size.map(SampleSize::height_width),
            Self::Condition(config) => config.sample_size.map(SampleSize::height_width),
            Self::ClassChannels(config) => config.model.sample_size.map(SampleSize::height_width),
            Self::Basic(config) => config.sample_size.map(|side| [side; 2]),
        }
    }

    /// Channels of the pictures it draws; those that it is shown beside them do not count.
    pub fn in_channels(&self) -> usize {
        let all = match self {
            Self::UNet2D(config) => config.in_channels,
            Self::Condition(config) => config.in_channels,
            Self::ClassChannels(config) => config.model.in_channels.saturating_sub(config.class_channels()),
            Self::Basic(config) => config.in_channels,
        };
        match self.image_condition() {
            // As many as are left when the conditioning picture has its own.
            Some(condition) => (1..=all)
                .find(|&channels| channels + condition.channels(channels) == all)
                .unwrap_or(all),
            None => all,
        }
    }

    /// The picture that it is shown beside the noisy one.
    pub fn image_condition(&self) -> Option<ImageCondition> {
        let unknown = match self {
            Self::UNet2D(config) => &config.unknown,
            Self::Condition(config) => &config.unknown,
            Self::ClassChannels(config) => &config.model.unknown,
            Self::Basic(_) => return None,
        };
        unknown.get(CONDITIONING_IMAGE)?.as_str()?.parse().ok()
    }

    /// The vector of a picture that it is told.
    pub fn picture_vector(&self) -> Option<PictureVector> {
        match self {
            Self::Condition(config) => config.unknown.get(CONDITIONING_VECTOR)?.as_str()?.parse().ok(),
            _ => None,
        }
    }

    /// How many numbers that vector has, of whatever kind; `None` where it is told none.
    pub fn vector_dim(&self) -> Option<usize> {
        match self {
            Self::Condition(config) => config.class_embed_type.and_then(|kind| match kind {
                ConditionClassEmbedType::Timestep => None,
                _ => config.vector_dim(),
            }),
            _ => None,
        }
    }

    /// The number of classes that it tells apart, the null class included; `None` where it is unconditional.
    pub fn num_class_embeds(&self) -> Option<usize> {
        match self {
            Self::UNet2D(config) => config.num_class_embeds,
            Self::Condition(config) => config.num_class_embeds,
            Self::ClassChannels(config) => Some(config.num_classes),
            Self::Basic(_) => None,
        }
    }

    /// Whether such a model can be told a picture's class.
    pub fn takes_classes(&self) -> bool {
        !matches!(self, Self::Basic(_))
    }

    /// The same model for pictures of another size and number of channels, with so many classes.
    ///
    /// # Errors
    /// If it cannot be told a class.
    pub fn made_for(
        self,
        resolution: usize,
        channels: usize,
        num_class_embeds: Option<usize>,
    ) -> Result<Self> {
        let inputs = ModelInputs {
            num_classes: num_class_embeds,
            ..ModelInputs::default()
        };
        self.made_with(resolution, channels, &inputs)
    }

    /// The same model for pictures of another size and number of channels, told so much.
    ///
    /// # Errors
    /// If it cannot be told it.
    pub fn made_with(self, resolution: usize, channels: usize, inputs: &ModelInputs) -> Result<Self> {
        let size = [resolution; 2];
        let mut in_channels = channels;
        if let Some(image) = &inputs.image {
            image.validate(channels, size)?;
            in_channels += image.channels(channels);
        }
        let told = |unknown: &mut serde_json::Map<String, Value>| {
            unknown.remove(CONDITIONING_IMAGE);
            if let Some(image) = &inputs.image {
                unknown.insert(CONDITIONING_IMAGE.into(), Value::String(image.to_string()));
            }
        };
        let sample_size = Some(SampleSize::Square(resolution));
        if let Some(vector) = inputs.vector {
            let mut config = match (self, inputs.sequence_dim) {
                (Self::UNet2D(plain), dim) => UNet2DConditionConfig::of_plain(&plain, dim)?,
                (Self::Condition(config), _) => config,
                (model, _) => {
                    return Err(Error::Config(format!(
                        "a {} cannot be told a vector: `conditioning` cannot be `vector`",
                        model.class_name()
                    )));
                }
            };
            config.sample_size = sample_size;
            (config.in_channels, config.out_channels) = (in_channels, channels);
            told(&mut config.unknown);
            config.told_vector(vector)?;
            let name = Value::String(vector.kind.to_string());
            config.unknown.insert(CONDITIONING_VECTOR.into(), name);
            return Ok(Self::Condition(config));
        }
        match (self, inputs.sequence_dim, inputs.class_channels) {
            (Self::UNet2D(plain), Some(dim), _) => {
                Self::Condition(UNet2DConditionConfig::of_plain(&plain, Some(dim))?)
                    .made_with(resolution, channels, inputs)
            }
            (Self::Condition(mut config), Some(dim), None) => {
                if config.sequence_dim() != dim {
                    return Err(Error::Config(format!(
                        "the text encoder makes vectors of {dim} numbers, and the model looks at vectors of {} (cross_attention_dim)",
                        config.sequence_dim()
                    )));
                }
                config.sample_size = sample_size;
                (config.in_channels, config.out_channels) = (in_channels, channels);
                config.num_class_embeds = inputs.num_classes;
                told(&mut config.unknown);
                Ok(Self::Condition(config))
            }
            (Self::UNet2D(mut model), None, Some(class_emb_size)) => {
                let mut config = ClassConditionedConfig {
                    class_name: CLASS_CHANNELS.into(),
                    num_classes: inputs.num_classes.unwrap_or_default(),
                    class_emb_size,
                    model: UNet2DConfig::default(),
                };
                model.sample_size = sample_size;
                (model.in_channels, model.out_channels) = (in_channels + config.class_channels(), channels);
                (model.num_class_embeds, model.class_embed_type) = (None, None);
                told(&mut model.unknown);
                config.model = model;
                Ok(Self::ClassChannels(config))
            }
            (Self::ClassChannels(config), None, Some(_)) => {
                Self::UNet2D(config.model).made_with(resolution, channels, inputs)
            }
            (Self::UNet2D(mut config), None, None) => {
                config.sample_size = sample_size;
                (config.in_channels, config.out_channels) = (in_channels, channels);
                config.num_class_embeds = inputs.num_classes;
                if inputs.class_timestep {
                    config.class_embed_type = Some(ClassEmbedType::Timestep);
                }
                told(&mut config.unknown);
                Ok(Self::UNet2D(config))
            }
            (Self::Basic(mut config), None, None) if inputs.image.is_none() => {
                if inputs.num_classes.is_some() {
                    return Err(Error::Config(format!("a {BASIC} has no input for a class")));
                }
                config.sample_size = Some(resolution);
                (config.in_channels, config.out_channels) = (channels, channels);
                Ok(Self::Basic(config))
            }
            (model, Some(_), _) => Err(Error::Config(format!(
                "a {} does not look at texts: `conditioning` cannot be `cross-attention`",
                model.class_name()
            ))),
            (model, None, _) => Err(Error::Config(format!(
                "a {} cannot be told that: it needs another `conditioning`, or is another model's",
                model.class_name()
            ))),
        }
    }

    /// A new model, initialised as PyTorch does with numbers from `generator`.
    ///
    /// # Errors
    /// If the configuration makes no model.
    pub fn build(&self, device: &Device, generator: &mut Generator) -> Result<AnyModel> {
        match self {
            Self::UNet2D(config) => UNet2DModel::new(config, device, generator).map(AnyModel::UNet2D),
            Self::ClassChannels(config) => {
                ClassConditionedUnet::new(config, device, generator).map(AnyModel::ClassChannels)
            }
            Self::Condition(config) => {
                UNet2DConditionModel::new(config, device, generator).map(AnyModel::Condition)
            }
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
    /// Diffusers' UNet that looks at a sequence.
    Condition(UNet2DConditionModel),
    /// The course's UNet with a class as channels.
    ClassChannels(ClassConditionedUnet),
    /// The course's network from scratch.
    Basic(BasicUNet),
}

impl AnyModel {
    /// Loads the model in `folder`, by the class that its `config.json` names.
    ///
    /// # Errors
    /// If a file is missing or broken, or the weights are not the model's.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let config = AnyModelConfig::load(folder.join(CONFIG_NAME))?;
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
            AnyModelConfig::ClassChannels(config) => {
                ClassConditionedUnet::with_weights(config, checkpoint, device).map(Self::ClassChannels)
            }
            AnyModelConfig::Condition(config) => {
                UNet2DConditionModel::with_weights(config, checkpoint, device).map(Self::Condition)
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
            Self::Condition(model) => model.save(folder),
            Self::ClassChannels(model) => model.save(folder),
            Self::Basic(model) => model.save(folder),
        }
    }

    /// A copy of its configuration.
    pub fn config(&self) -> AnyModelConfig {
        match self {
            Self::UNet2D(model) => AnyModelConfig::UNet2D(model.config().clone()),
            Self::Condition(model) => AnyModelConfig::Condition(model.config().clone()),
            Self::ClassChannels(model) => AnyModelConfig::ClassChannels(model.config().clone()),
            Self::Basic(model) => AnyModelConfig::Basic(model.config().clone()),
        }
    }

    /// How many parameters it has.
    pub fn num_parameters(&self) -> usize {
        match self {
            Self::UNet2D(model) => model.num_parameters(),
            Self::Condition(model) => model.num_parameters(),
            Self::ClassChannels(model) => model.num_params(),
            Self::Basic(model) => model.num_params(),
        }
    }

    /// Where dropout draws from from now on, where the model has dropout; `None` ends it.
    pub fn set_dropout(&self, generator: Option<Generator>) {
        match self {
            Self::UNet2D(model) => model.set_dropout(generator),
            Self::Condition(model) => model.set_dropout(generator),
            Self::ClassChannels(model) => model.model.set_dropout(generator),
            Self::Basic(_) => {}
        }
    }

    /// Ends dropout, and gives back what it drew from.
    pub fn take_dropout(&self) -> Option<Generator> {
        match self {
            Self::UNet2D(model) => model.take_dropout(),
            Self::Condition(model) => model.take_dropout(),
            Self::ClassChannels(model) => model.model.take_dropout(),
            Self::Basic(_) => None,
        }
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        let devices = match self {
            Self::UNet2D(model) => model.devices(),
            Self::Condition(model) => model.devices(),
            Self::ClassChannels(model) => model.devices(),
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

impl From<UNet2DConditionModel> for AnyModel {
    fn from(model: UNet2DConditionModel) -> Self {
        Self::Condition(model)
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
            Self::Condition(model) => model.denoise(x, timesteps, conditioning),
            Self::ClassChannels(model) => model.denoise(x, timesteps, conditioning),
            Self::Basic(model) => model.denoise(x, timesteps, conditioning),
        }
    }
}
