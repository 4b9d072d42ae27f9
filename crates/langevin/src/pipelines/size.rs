//! How much memory a pipeline takes, before it is loaded.

use std::path::Path;

use super::{Held, LoadOptions, source::PipelineSource};
use crate::Result;

/// The bytes that the weights of the pipeline in a folder or a file take once they are loaded, as far as its files tell. They are not read;
/// what else would keep the pipeline from being loaded is mostly found out.
///
/// # Errors
/// If there is no pipeline, it is of a class that is not there yet, or a component or the model's weights are missing.
pub fn loaded_bytes(path: impl AsRef<Path>, options: &LoadOptions) -> Result<u64> {
    let mut source = PipelineSource::open(path.as_ref(), options.variant.as_deref(), options.kind)?;
    // What a LoRA changes is held in float32. Which weights that are is not looked up for this: all are counted so.
    source.held = match options.held {
        Held::Stored if !options.loras.is_empty() && !options.rounded_loras => Held::Float32,
        held => held,
    };
    source.check(options.codec.is_some())?;
    source.model_config()?;
    let denoiser = source.model_weights()?.loaded_bytes();
    Ok(denoiser.saturating_add(source.other_bytes(options.without_safety_checker)))
}
