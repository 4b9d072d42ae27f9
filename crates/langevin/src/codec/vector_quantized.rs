//! The autoencoder with a table of codes (van den Oord et al. 2017), of the first latent diffusion models.

use std::path::Path;

use burn::tensor::Tensor;

use super::{Codec, Encoded};
use crate::{
    Result,
    models::{
        Model,
        autoencoder::{VQModel, one_by_one},
    },
};

/// A [`VQModel`] with the scale that its pipeline brings latents to.
#[derive(Clone, Debug)]
pub struct VectorQuantized {
    network: VQModel,
}

impl VectorQuantized {
    /// The codec of a network.
    pub fn new(network: VQModel) -> Self {
        Self { network }
    }
}

impl Codec for VectorQuantized {
    fn factor(&self) -> usize {
        self.network.config().factor()
    }

    fn channels(&self) -> usize {
        self.network.config().latent_channels
    }

    fn picture_channels(&self) -> usize {
        self.network.config().out_channels
    }

    fn encode(&self, pictures: Tensor<4>) -> Result<Encoded> {
        one_by_one(pictures, |picture| self.network.encode(picture)).map(Encoded::point)
    }

    fn scale(&self, latents: Tensor<4>) -> Tensor<4> {
        latents * self.network.config().scaling_factor
    }

    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        let latents = samples / self.network.config().scaling_factor;
        one_by_one(latents, |latent| self.network.decode(latent))
    }

    fn num_parameters(&self) -> usize {
        Model::num_parameters(&self.network)
    }

    fn save(&self, folder: &Path) -> Result<Option<&'static str>> {
        self.network.save(folder)?;
        Ok(Some(super::QUANTIZED))
    }
}
