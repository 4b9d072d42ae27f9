//! `UNet2DModel`. Mirrors `diffusers.UNet2DModel`.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::{Conditioning, Denoiser};
use crate::{Error, Result, random::Generator};

/// The configuration of a [`UNet2DModel`].
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UNet2DConfig {
    /// Height and width of the pictures it was made for.
    pub sample_size: Option<usize>,
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Number of classes, the null class included, where it is class-conditional.
    pub num_class_embeds: Option<usize>,
}

/// The UNet.
#[derive(Debug, Clone)]
pub struct UNet2DModel {}

impl UNet2DModel {
    /// A model with PyTorch's initialisation, drawn from `generator`.
    pub fn new(_config: &UNet2DConfig, _device: &Device, _generator: &mut Generator) -> Result<Self> {
        Err(Error::Unsupported("not yet".into()))
    }
    /// Loads `config.json` and `diffusion_pytorch_model.safetensors` from a folder.
    pub fn load(_folder: impl AsRef<Path>, _device: &Device) -> Result<Self> {
        Err(Error::Unsupported("not yet".into()))
    }
    /// Saves both files into a folder.
    pub fn save(&self, _folder: impl AsRef<Path>) -> Result<()> {
        Err(Error::Unsupported("not yet".into()))
    }
    /// Its configuration.
    pub fn config(&self) -> &UNet2DConfig {
        unimplemented!()
    }
    /// How many parameters it has.
    pub fn num_parameters(&self) -> usize {
        0
    }
}

impl Denoiser for UNet2DModel {
    fn denoise(&self, x: Tensor<4>, _timesteps: Tensor<1>, _conditioning: &Conditioning) -> Result<Tensor<4>> {
        Ok(x)
    }
}
