//! The codec of models that denoise pictures themselves.

use burn::tensor::Tensor;

use super::{Codec, Encoded};
use crate::Result;

/// Pictures as they are.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Their channels.
    pub channels: usize,
}

impl Codec for Pixels {
    fn channels(&self) -> usize {
        self.channels
    }

    fn encode(&self, pictures: Tensor<4>) -> Result<Encoded> {
        Ok(Encoded::point(pictures))
    }

    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        Ok(samples)
    }
}
