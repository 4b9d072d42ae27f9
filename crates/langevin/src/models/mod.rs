//! The networks: configuration, module, loading.

pub mod autoencoder;
pub mod basic_unet;
mod checks;
pub mod class_conditioned;
pub mod clip;
pub mod components;
mod control;
pub mod controlnet;
pub mod dit_transformer2d;
pub mod dpt;
pub mod image_condition;
mod image_prompts;
mod inception;
mod inputs;
pub mod ip_adapter;
pub mod model;
pub mod pixart_transformer2d;
pub mod presets;
pub mod registry;
mod residuals;
mod room;
pub mod safety_checker;
pub mod sd3_transformer2d;
pub mod t2i_adapter;
pub mod unet2d;
pub mod unet2d_condition;

pub use autoencoder::{
    AutoencoderKL, AutoencoderKLConfig, AutoencoderTiny, AutoencoderTinyConfig, VQModel, VQModelConfig,
};
pub use basic_unet::{BasicUNet, BasicUNetConfig};
pub use class_conditioned::{ClassChannels, ClassConditionedConfig, ClassConditionedUnet};
pub use clip::{ClipImageProcessor, ClipModel, ClipTextEncoder, ClipTokenizer, ClipVisionEncoder};
pub use components::Components;
pub use control::{AnyControl, AnyControlConfig};
pub use controlnet::{ControlNetConfig, ControlNetModel};
pub use dit_transformer2d::{DiTTransformer2DConfig, DiTTransformer2DModel};
pub use dpt::{DptConfig, DptForDepthEstimation};
pub use image_condition::ImageCondition;
pub use image_prompts::ImagePrompts;
pub use inception::{INCEPTION_FEATURES, INCEPTION_SPACE, Inception};
pub use inputs::{ModelInputs, VectorInput};
pub use ip_adapter::{ImageEncoder, IpAdapter, IpAdapterConfig, IpAdapterModel};
pub use model::{Model, ModelConfig};
pub use pixart_transformer2d::{PixArtTransformer2DConfig, PixArtTransformer2DModel};
pub use presets::ModelPreset;
pub use registry::{AnyModel, AnyModelConfig};
pub use residuals::Residuals;
pub use safety_checker::{SafetyChecker, SafetyCheckerConfig};
pub use sd3_transformer2d::{SD3Transformer2DConfig, SD3Transformer2DModel};
pub use t2i_adapter::{AdapterType, T2IAdapter, T2IAdapterConfig};
pub use unet2d::{UNet2DConfig, UNet2DModel};
pub use unet2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};

use burn::tensor::{Int, Tensor, kind::Basic};

pub use crate::weights::{self, Checkpoint};
use crate::{Error, Result, nn::LentRows};

/// The version of diffusers whose files this library writes.
pub const DIFFUSERS_VERSION: &str = "0.42.1";

/// What a model may be told besides the noisy picture and its timestep. Each part is optional; a model uses those it has inputs for.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// One class a picture, `[batch]`.
    pub classes: Option<Tensor<1, Int>>,
    /// A vector added to the time embedding, `[batch, dimension]`.
    pub vector: Option<Tensor<2>>,
    /// What a picture's sizes are: to Stable Diffusion XL original size, crop and target size, `[batch, 6]`, to PixArt height, width and
    /// their ratio, `[batch, 3]`.
    pub time_ids: Option<Tensor<2>>,
    /// A sequence for cross-attention, `[batch, length, dimension]`.
    pub sequence: Option<Tensor<3>>,
    /// Which of the sequence's tokens are looked at: 1, or 0 where a token is padding, `[batch, length]`. Without one all are.
    pub sequence_mask: Option<Tensor<2>>,
    /// Channels put beside the picture's, `[batch, channels, height, width]`.
    pub channels: Option<Tensor<4>>,
    /// The guidance scale of a model that was distilled to take it, `[batch]`.
    pub guidance_scale: Option<Tensor<1>>,
    /// What networks beside the model add inside of it.
    pub residuals: Option<Residuals>,
    /// Pictures that are looked at beside the sequence.
    pub images: Option<ImagePrompts>,
    /// What a ControlNet that is trained along is shown, `[batch, channels, height, width]` in 0..1.
    pub control: Option<Tensor<4>>,
    /// LoRA that lie beside the model's layers.
    pub lent: Option<LentRows>,
}

impl Conditioning {
    /// What a batch is told that has the pictures of `self` first and then those of `other`.
    ///
    /// # Errors
    /// If one of the two says something of a kind that the other does not, or in another shape.
    pub fn followed_by(&self, other: &Self) -> Result<Self> {
        let Self {
            classes,
            vector,
            time_ids,
            sequence,
            sequence_mask,
            channels,
            guidance_scale,
            residuals,
            images,
            control,
            lent,
        } = self;
        Ok(Self {
            classes: one_after_another("classes", classes, &other.classes)?,
            vector: one_after_another("a vector", vector, &other.vector)?,
            time_ids: one_after_another("sizes", time_ids, &other.time_ids)?,
            sequence: one_after_another("a sequence", sequence, &other.sequence)?,
            sequence_mask: one_after_another("a sequence's mask", sequence_mask, &other.sequence_mask)?,
            channels: one_after_another("channels", channels, &other.channels)?,
            guidance_scale: one_after_another("a guidance scale", guidance_scale, &other.guidance_scale)?,
            residuals: Residuals::one_after_another(residuals.as_ref(), other.residuals.as_ref())?,
            images: ImagePrompts::one_after_another(images.as_ref(), other.images.as_ref())?,
            control: one_after_another("a control", control, &other.control)?,
            lent: match (lent, &other.lent) {
                (None, None) => None,
                (Some(first), Some(second)) => Some(first.followed_by(second)),
                _ => {
                    return Err(Error::Config(
                        "one half of a batch has LoRA beside the model and the other says nothing of it"
                            .into(),
                    ));
                }
            },
        })
    }

    /// What both say; where both say something of a kind, it is `self`.
    pub fn and(self, other: Self) -> Self {
        let Self {
            classes,
            vector,
            time_ids,
            sequence,
            sequence_mask,
            channels,
            guidance_scale,
            residuals,
            images,
            control,
            lent,
        } = self;
        // A sequence has its own mask, or none.
        let masked = if sequence.is_some() {
            sequence_mask
        } else {
            sequence_mask.or(other.sequence_mask)
        };
        Self {
            classes: classes.or(other.classes),
            vector: vector.or(other.vector),
            time_ids: time_ids.or(other.time_ids),
            sequence: sequence.or(other.sequence),
            sequence_mask: masked,
            channels: channels.or(other.channels),
            guidance_scale: guidance_scale.or(other.guidance_scale),
            residuals: residuals.or(other.residuals),
            images: images.or(other.images),
            control: control.or(other.control),
            lent: lent.or(other.lent),
        }
    }

    /// Of the given rows, one per picture, in their order.
    pub fn rows(&self, rows: &[usize]) -> Self {
        let Self {
            classes,
            vector,
            time_ids,
            sequence,
            sequence_mask,
            channels,
            guidance_scale,
            residuals,
            images,
            control,
            lent,
        } = self;
        Self {
            classes: of_rows(classes, rows),
            vector: of_rows(vector, rows),
            time_ids: of_rows(time_ids, rows),
            sequence: of_rows(sequence, rows),
            sequence_mask: of_rows(sequence_mask, rows),
            channels: of_rows(channels, rows),
            guidance_scale: of_rows(guidance_scale, rows),
            residuals: residuals.as_ref().map(|residuals| residuals.rows(rows)),
            images: images.as_ref().map(|images| images.rows(rows)),
            control: of_rows(control, rows),
            lent: lent.as_ref().map(|lent| lent.of_rows(rows)),
        }
    }

    /// The noisy picture with the channels beside it, where there are any.
    ///
    /// # Errors
    /// If they are not of the picture's size, or not as many.
    fn beside(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let Some(channels) = &self.channels else {
            return Ok(x);
        };
        let ([batch, _, height, width], shape) = (x.dims(), channels.dims());
        if [shape[0], shape[2], shape[3]] != [batch, height, width] {
            return Err(Error::Shape(format!(
                "{} conditioning pictures of {}x{} were given for {batch} pictures of {height}x{width}: they should be as many and as large",
                shape[0], shape[2], shape[3]
            )));
        }
        Ok(Tensor::cat(vec![x, channels.clone()], 1))
    }
}

/// Refuses pictures that do not fit a model of `in_channels` whose `parts` need sizes that `divisor` divides, and timesteps that are not
/// one per picture.
fn check_input(
    x: &Tensor<4>,
    timesteps: &Tensor<1>,
    in_channels: usize,
    parts: std::fmt::Arguments<'_>,
    divisor: usize,
) -> Result<()> {
    let [batch, channels, height, width] = x.dims();
    if channels != in_channels {
        return Err(Error::Shape(format!(
            "the model takes pictures of {in_channels} channels, this one has {channels}"
        )));
    }
    if height == 0 || width == 0 || height % divisor != 0 || width % divisor != 0 {
        return Err(Error::Shape(format!(
            "a picture of {height}x{width} does not fit this model: its {parts} need height and width divisible by {divisor}"
        )));
    }
    if timesteps.dims() != [batch] {
        return Err(Error::Shape(format!(
            "there are {} timesteps for {batch} pictures: each needs one",
            timesteps.dims()[0]
        )));
    }
    Ok(())
}

fn of_rows<const D: usize, K: Basic>(all: &Option<Tensor<D, K>>, rows: &[usize]) -> Option<Tensor<D, K>> {
    let all = all.as_ref()?;
    let row = |&row: &usize| all.clone().narrow(0, row, 1);
    Some(Tensor::cat(rows.iter().map(row).collect(), 0))
}

fn one_after_another<const D: usize, K: Basic>(
    what: &str,
    first: &Option<Tensor<D, K>>,
    second: &Option<Tensor<D, K>>,
) -> Result<Option<Tensor<D, K>>> {
    match (first, second) {
        (None, None) => Ok(None),
        (Some(first), Some(second)) if first.dims()[1..] == second.dims()[1..] => {
            Ok(Some(Tensor::cat(vec![first.clone(), second.clone()], 0)))
        }
        (Some(first), Some(second)) => Err(Error::Shape(format!(
            "one half of a batch is told {what} of shape {:?} and the other of {:?}; only the first number may differ",
            first.dims(),
            second.dims()
        ))),
        _ => Err(Error::Config(format!(
            "one half of a batch is told {what} and the other is not"
        ))),
    }
}

/// Anything that predicts noise, a clean picture or a velocity from a noisy picture: every model, and guided ones too.
pub trait Denoiser: Send {
    /// The prediction for `x` (`[batch, channels, height, width]`) at `timesteps` (`[batch]`, float). Shape of `x`, but for the channels.
    ///
    /// # Errors
    /// If a shape does not fit the model, or a conditioning that it needs is missing.
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>>;
}

impl<D: Denoiser + Sync + ?Sized> Denoiser for &D {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        (**self).denoise(x, timesteps, conditioning)
    }
}
