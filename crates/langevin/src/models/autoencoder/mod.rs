//! The autoencoders of latent diffusion (Rombach et al. 2022): between pictures and the smaller space that a model denoises in.
//!
//! All take and give `[batch, channels, height, width]`, pictures in -1..1. Latents are those of the autoencoder itself: what they are
//! multiplied by on the way to a diffusion model (`scaling_factor` and what stands beside it in a configuration) is for a pipeline to apply.

mod blocks;
mod decoder;
mod encoder;
mod kl;
mod levels;
mod posterior;
mod presets;
mod slicing;
mod tiling;
mod tiny;
mod vq;

pub use blocks::{DownEncoderBlock2D, UNetMidBlock2D, UpDecoderBlock2D};
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use kl::{AutoencoderKL, AutoencoderKLConfig};
pub use posterior::Posterior;
pub use presets::AutoencoderPreset;
pub use slicing::one_by_one;
pub use tiling::Tiling;
pub use tiny::{
    AutoencoderTiny, AutoencoderTinyBlock, AutoencoderTinyConfig, TinyConv, TinyLayer, TinyLayers, TinyStep,
};
pub use vq::{Quantized, VQModel, VQModelConfig, VectorQuantizer};

use burn::tensor::Tensor;

use crate::{Error, Result};

/// Refuses pictures that an encoder of so many channels does not take, or that are smaller than a latent.
fn check_pictures(x: &Tensor<4>, in_channels: usize, factor: usize) -> Result<()> {
    let [_, channels, height, width] = x.dims();
    if channels != in_channels {
        return Err(Error::Shape(format!(
            "the autoencoder takes pictures of {in_channels} channels, this one has {channels}"
        )));
    }
    if height < factor || width < factor {
        return Err(Error::Shape(format!(
            "a picture of {height}x{width} is too small for this autoencoder, whose latents stand for {factor}x{factor} pixels each"
        )));
    }
    Ok(())
}

/// Refuses latents that a decoder of so many channels does not take.
fn check_latents(z: &Tensor<4>, latent_channels: usize) -> Result<()> {
    let [_, channels, height, width] = z.dims();
    if channels != latent_channels || height == 0 || width == 0 {
        return Err(Error::Shape(format!(
            "the autoencoder decodes latents of {latent_channels} channels, these are {channels} of {height}x{width}"
        )));
    }
    Ok(())
}
