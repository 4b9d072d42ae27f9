//! A model with its scheduler: load, save, call.
//!
//! Mirrors `diffusers.pipelines`. A pipeline is a folder: `model_index.json` names its class and its components, each of
//! which has a folder of its own.

mod animation;
mod any;
mod classes;
mod ddim;
mod ddpm;
mod evaluation;
mod inpainting;
mod interpolation;
mod latents;
mod model_index;
mod open_step;
mod parts;
mod sampling;
mod staging;
mod together;
mod told;
mod words;

pub use animation::Animation;
pub use any::AnyPipeline;
pub use classes::{CLASSES, Classes};
pub use ddim::DdimPipeline;
pub use ddpm::DdpmPipeline;
pub use evaluation::{EvaluationOptions, PictureSet, agreement, draw_set, real_set, shared_classes};
pub use interpolation::slerp;
pub use latents::Latents;
pub use model_index::{Component, MODEL_INDEX, ModelIndex};
pub use open_step::OpenStep;
pub(crate) use parts::{SCHEDULER, component_folder};
pub use parts::{checkpoint, save_model};
pub use sampling::{Sampling, Step};
pub use together::step_together;
pub use told::ConditioningImage;
pub use words::Facts;

use burn::tensor::Tensor;

use crate::{Error, Result, data::Picture, grid, guidance::ClassifierFree};

/// What a pipeline is asked for. The keyword arguments of diffusers' pipeline calls.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// Pictures drawn together.
    pub batch_size: usize,
    /// Denoising steps; `None` is the pipeline's own default, such as 1000 for DDPM and 50 for DDIM.
    pub num_inference_steps: Option<usize>,
    /// DDIM's η: 0, its default, is deterministic, 1 adds as much noise as DDPM. TCD's γ, 0.3 by default. Others overlook it.
    pub eta: Option<f64>,
    /// DDIM: derive the noise direction from the clipped predicted clean sample. DDPM overlooks it.
    ///
    /// Always so under guidance, which drives the prediction beyond the range that is clipped to: what clipping took from the
    /// picture would otherwise come back, negated, as noise. (Without clipping it makes no difference.)
    pub use_clipped_model_output: bool,
    /// One class a picture. `None` is the null class of a class-conditional model, and right for any other.
    pub classes: Option<Vec<i64>>,
    /// One text a picture. `None` is the empty text of a model that looks at texts, and right for any other.
    pub prompts: Option<Vec<String>>,
    /// What a model that is shown a picture is shown.
    pub conditioning_image: Option<ConditioningImage>,
    /// The vectors of a model that is told one, `[1 or batch, dimension]`. `None` is zeros, and right for any other.
    pub vectors: Option<Tensor<2>>,
    /// Classifier-free guidance towards classes and texts. Off by default.
    pub guidance: ClassifierFree,
    /// The classes that guidance leads away from, one a picture. `None` is the null class.
    pub negative_classes: Option<Vec<i64>>,
    /// The texts that guidance leads away from, one a picture. `None` is the empty text.
    pub negative_prompts: Option<Vec<String>>,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            batch_size: 1,
            num_inference_steps: None,
            eta: None,
            use_clipped_model_output: false,
            classes: None,
            prompts: None,
            conditioning_image: None,
            vectors: None,
            guidance: ClassifierFree::default(),
            negative_classes: None,
            negative_prompts: None,
        }
    }
}

/// Samples, `[batch, channels, height, width]` in -1..1, as `[batch, height, width, channels]` in 0..1.
fn to_unit_range(samples: Tensor<4>) -> Tensor<4> {
    (samples / 2.0 + 0.5).clamp(0.0, 1.0).permute([0, 2, 3, 1])
}

/// Samples, `[batch, channels, height, width]` in -1..1, as pictures of 8 bits a channel.
///
/// # Errors
/// If there are neither one nor three channels.
pub fn to_pictures(samples: &Tensor<4>) -> Result<Vec<Picture>> {
    let values = samples.clone().into_data().convert::<f32>();
    let values = values
        .as_slice()
        .map_err(|e| Error::Shape(format!("the samples cannot be read: {e:?}")))?;
    grid::to_pictures(values, samples.dims())
}
