//! What a model is told besides the noisy picture and its timestep: read off a configuration, and written into one.

use serde_json::{Map, Value};

use super::{
    AnyModelConfig, BasicUNetConfig, ClassChannels, ClassConditionedConfig, ImageCondition, ModelConfig,
    UNet2DConditionConfig, UNet2DConfig,
    unet2d::{ClassEmbedType, SampleSize},
    unet2d_condition::ConditionClassEmbedType,
};
use crate::{Error, Result};

/// What the keys of a UNet's configuration begin with that say what it is conditioned on, where diffusers has no place for it; diffusers
/// overlooks them.
const NOTE: &str = "conditioning_";
/// The one that says what picture a model is shown beside the noisy one.
const CONDITIONING_IMAGE: &str = "conditioning_image";

/// What a model is given besides the noisy picture and its timestep.
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

/// A vector that is added to a model's time embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorInput {
    /// What it is, as the model's configuration says it: a key that begins with `conditioning_`, and its value.
    pub note: (&'static str, Value),
    /// How many numbers it has.
    pub dimension: usize,
    /// How it is brought to the time embedding's dimension: as it is, or by one or two linear layers.
    pub embedding: ConditionClassEmbedType,
}

impl AnyModelConfig {
    /// Channels of what it answers with: those of a picture, or twice as many where it predicts its variance too.
    pub fn out_channels(&self) -> usize {
        match self {
            Self::UNet2D(config) => config.out_channels,
            Self::Condition(config) => config.out_channels,
            Self::DiT(config) => config.out_channels.unwrap_or(config.in_channels),
            Self::PixArt(_) | Self::SD3(_) => self.in_channels(),
            Self::ClassChannels(config) => config.model.out_channels,
            Self::Basic(config) => config.out_channels,
        }
    }

    /// Channels of the pictures it draws; those that it is shown beside them do not count.
    pub fn in_channels(&self) -> usize {
        let all = match self {
            Self::UNet2D(config) => config.in_channels,
            Self::Condition(config) => config.in_channels,
            Self::DiT(config) => config.in_channels,
            Self::PixArt(config) => config.in_channels,
            Self::SD3(config) => config.in_channels,
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

    /// Takes latents of 64 for those that a Stable Diffusion UNet of before diffusers 0.9 says are smaller, as diffusers' pipelines do: early
    /// files say 32 of models that were trained at 64.
    pub fn mend_early_size(&mut self) {
        const TRAINED_AT: usize = 64;
        let Self::Condition(config) = self else { return };
        let mut numbers = config
            .diffusers_version
            .split('.')
            .map_while(|part| part.parse::<u32>().ok());
        let is_early = (numbers.next(), numbers.next()) < (Some(0), Some(9))
            && config.diffusers_version.starts_with('0');
        let is_small = config
            .sample_size
            .is_some_and(|size| size.height_width()[0] < TRAINED_AT);
        if is_early && is_small {
            config.sample_size = Some(SampleSize::Square(TRAINED_AT));
        }
    }

    /// Channels of its first level, which are those of its largest tensors; `None` where it is no UNet.
    pub fn first_channels(&self) -> Option<usize> {
        match self {
            Self::UNet2D(config) => config.block_out_channels.first().copied(),
            Self::Condition(config) => config.block_out_channels.first().copied(),
            Self::ClassChannels(config) => config.model.block_out_channels.first().copied(),
            Self::Basic(_) | Self::DiT(_) | Self::PixArt(_) | Self::SD3(_) => None,
        }
    }

    /// The picture that it is shown beside the noisy one.
    pub fn image_condition(&self) -> Option<ImageCondition> {
        let unknown = match self {
            Self::UNet2D(config) => &config.unknown,
            Self::Condition(config) => &config.unknown,
            Self::ClassChannels(config) => &config.model.unknown,
            Self::Basic(_) | Self::DiT(_) | Self::PixArt(_) | Self::SD3(_) => return None,
        };
        unknown.get(CONDITIONING_IMAGE)?.as_str()?.parse().ok()
    }

    /// What the vector is that is added to its time embedding, where its configuration says so: [`VectorInput::note`].
    pub fn vector_note(&self) -> Option<(&str, &Value)> {
        let Self::Condition(config) = self else {
            return None;
        };
        let mut notes = config.unknown.iter().map(|(key, value)| (key.as_str(), value));
        notes.find(|(key, _)| key.starts_with(NOTE) && *key != CONDITIONING_IMAGE)
    }

    /// How many numbers that vector has, of whatever kind; `None` where it is told none.
    pub fn vector_dim(&self) -> Option<usize> {
        match self {
            Self::Condition(config) => config.class_embed_type.and_then(|kind| match kind {
                ConditionClassEmbedType::Timestep => None,
                _ => config.vector_dim(),
            }),
            Self::SD3(config) => Some(config.pooled_projection_dim),
            _ => None,
        }
    }

    /// The number of classes that it tells apart, the null class included; `None` where it is unconditional.
    pub fn num_class_embeds(&self) -> Option<usize> {
        match self {
            Self::UNet2D(config) => config.num_class_embeds,
            Self::Condition(config) => config.num_class_embeds,
            Self::ClassChannels(config) => Some(config.num_classes),
            Self::DiT(config) => Some(config.num_classes()),
            Self::Basic(_) | Self::PixArt(_) | Self::SD3(_) => None,
        }
    }

    /// Whether such a model can be told a picture's class.
    pub fn takes_classes(&self) -> bool {
        !matches!(self, Self::Basic(_) | Self::PixArt(_) | Self::SD3(_))
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
        if let Self::PixArt(_) | Self::SD3(_) = self {
            return Err(Error::Unsupported(format!(
                "a {} can be drawn with, and not trained yet",
                self.class_name()
            )));
        }
        if let Self::DiT(config) = self {
            return config.made_with(resolution, channels, inputs).map(Self::DiT);
        }
        let size = [resolution; 2];
        let mut in_channels = channels;
        if let Some(image) = &inputs.image {
            image.validate(channels, size)?;
            in_channels += image.channels(channels);
        }
        let note = |unknown: &mut Map<String, Value>| {
            unknown.retain(|key, _| !key.starts_with(NOTE));
            if let Some(image) = &inputs.image {
                unknown.insert(CONDITIONING_IMAGE.into(), Value::String(image.to_string()));
            }
        };
        let sample_size = Some(SampleSize::Square(resolution));
        if let Some(vector) = &inputs.vector {
            let mut config = match (self, inputs.sequence_dim) {
                (Self::UNet2D(plain), dim) => UNet2DConditionConfig::of_plain(&plain, dim)?,
                (Self::Condition(config), _) => config,
                (model, _) => {
                    return Err(Error::Config(format!(
                        "a {} cannot be told a vector: `conditioning` cannot be `vector` or `attributes`",
                        model.class_name()
                    )));
                }
            };
            config.sample_size = sample_size;
            (config.in_channels, config.out_channels) = (in_channels, channels);
            note(&mut config.unknown);
            config.take_vector(vector)?;
            let (key, value) = vector.note.clone();
            config.unknown.insert(key.into(), value);
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
                note(&mut config.unknown);
                Ok(Self::Condition(config))
            }
            (Self::UNet2D(mut model), None, Some(class_emb_size)) => {
                let mut config = ClassConditionedConfig {
                    class_name: ClassConditionedConfig::CLASS.into(),
                    num_classes: inputs.num_classes.unwrap_or_default(),
                    class_emb_size,
                    model: UNet2DConfig::default(),
                };
                model.sample_size = sample_size;
                (model.in_channels, model.out_channels) = (in_channels + config.class_channels(), channels);
                (model.num_class_embeds, model.class_embed_type) = (None, None);
                note(&mut model.unknown);
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
                note(&mut config.unknown);
                Ok(Self::UNet2D(config))
            }
            (Self::Basic(mut config), None, None) if inputs.image.is_none() => {
                if inputs.num_classes.is_some() {
                    return Err(Error::Config(format!(
                        "a {} has no input for a class",
                        BasicUNetConfig::CLASS
                    )));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_stable_diffusion_was_trained_at_64() {
        let size = |version: &str, size| {
            let mut config = AnyModelConfig::Condition(UNet2DConditionConfig {
                diffusers_version: version.into(),
                sample_size: Some(SampleSize::Square(size)),
                ..UNet2DConditionConfig::default()
            });
            config.mend_early_size();
            config.sample_size()
        };
        assert_eq!(size("0.6.0", 32), Some([64; 2]));
        assert_eq!(size("0.8.1", 96), Some([96; 2]));
        for version in ["0.9.0", "0.42.1", "1.0", "", "x"] {
            assert_eq!(size(version, 32), Some([32; 2]), "{version}");
        }
    }
}
