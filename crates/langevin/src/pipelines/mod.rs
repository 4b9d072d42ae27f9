//! A model with its scheduler: load, save, call.
//!
//! Mirrors `diffusers.pipelines`. A pipeline is a folder: `model_index.json` names its class and its components, each of
//! which has a folder of its own.

mod classes;
mod control;
mod depth;
mod feature_extractor;
mod few_steps;
mod folder;
mod inpainting;
mod interpolation;
mod latents;
mod lend;
mod lora;
mod margins;
mod model_index;
mod open_step;
mod pipeline;
mod safety;
mod sampling;
mod single_file;
mod size;
mod source;
mod staging;
mod together;

pub use classes::{LatentUsage, PictureUse, PipelineClass, Role, Usage};
pub(crate) use control::{Adds, Control};
pub use depth::DepthEstimation;
pub use few_steps::FewSteps;
pub(crate) use folder::component_folder;
pub use folder::{checkpoint, save_model};
pub(crate) use inpainting::Inpainting;
pub use interpolation::slerp;
pub use latents::Latents;
pub use lend::LentLora;
pub use lora::lora_targets;
pub(crate) use margins::Margins;
pub use model_index::{Component, MODEL_INDEX, ModelIndex};
pub use open_step::OpenStep;
pub use pipeline::{Held, LoadOptions, Pipeline, USUAL_DDIM_STEPS};
pub use safety::Safety;
pub(crate) use sampling::{Draws, KnownPart, cutoff};
pub use sampling::{Sampling, Step};
pub use single_file::{pack, repack, unpack};
pub use size::loaded_bytes;
pub(crate) use source::PipelineSource;
pub(crate) use together::step_among;
pub use together::step_together;

pub use crate::{
    conditioning::{CLASSES, Classes},
    options::{ConditioningImage, SampleOptions},
};

use burn::tensor::Tensor;

use crate::{Error, Result, data::Picture, grid};

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
