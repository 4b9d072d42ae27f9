//! Between what people see or hear and what a model denoises.

mod pixels;

pub use pixels::Pixels;

use burn::tensor::Tensor;

use crate::{Result, Size};

/// Brings pictures into a model's space and back. A file per kind here, and a variant of [`AnyCodec`].
pub trait Codec {
    /// The shape of what a model denoises for a picture of this size: channels, height and width.
    ///
    /// # Errors
    /// If no picture can be of that size.
    fn latent_shape(&self, size: Size) -> Result<[usize; 3]>;

    /// Pictures, `[batch, channels, height, width]` in -1..1, as the model denoises them.
    ///
    /// # Errors
    /// If they are not of its kind.
    fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<4>>;

    /// What the model has denoised as pictures, `[batch, channels, height, width]` in about -1..1. Differentiable.
    ///
    /// # Errors
    /// If it is not of the model's shape.
    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>>;

    /// The same where it is only looked at on the way: cheaper, and as good as it can be then.
    ///
    /// # Errors
    /// As [`Self::decode`].
    fn preview(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        self.decode(samples)
    }
}

/// Any codec that there is.
#[derive(Clone, Debug)]
pub enum AnyCodec {
    /// Pictures as they are.
    Pixels(Pixels),
}

impl Codec for AnyCodec {
    fn latent_shape(&self, size: Size) -> Result<[usize; 3]> {
        match self {
            Self::Pixels(codec) => codec.latent_shape(size),
        }
    }

    fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        match self {
            Self::Pixels(codec) => codec.encode(pictures),
        }
    }

    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        match self {
            Self::Pixels(codec) => codec.decode(samples),
        }
    }
}
