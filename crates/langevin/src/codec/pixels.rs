//! The codec of models that denoise pictures themselves.

use burn::tensor::Tensor;

use super::Codec;
use crate::{Result, Size};

/// Pictures as they are.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Their channels.
    pub channels: usize,
}

impl Codec for Pixels {
    fn latent_shape(&self, size: Size) -> Result<[usize; 3]> {
        Ok([self.channels, size.height, size.width])
    }

    fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        Ok(pictures)
    }

    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        Ok(samples)
    }
}
