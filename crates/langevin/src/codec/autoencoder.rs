//! Stable Diffusion's autoencoder (Rombach et al. 2022) between pictures and latents.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};

use super::{Codec, Encoded, Tiny, preview};
use crate::{
    Result, Size,
    data::free_memory,
    models::{
        Model,
        autoencoder::{AutoencoderKL, Tiling, one_by_one},
    },
    weights,
};

/// An [`AutoencoderKL`] with the scale that its pipeline brings latents to.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    network: AutoencoderKL,
    tiling: When,
    preview: Option<Tiny>,
}

/// When pictures are encoded and decoded in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Those that would take too much memory as a whole.
    Large,
    /// All that are larger than a tile.
    Always,
}

/// Pixels of a picture that is always encoded and decoded as a whole.
const ALWAYS_WHOLE: usize = 512 * 512;
/// Bytes that decoding takes for each pixel of a picture, with Stable Diffusion's widths: three tensors of 256 channels at its size.
const BYTES_PER_PIXEL: u64 = 3 * 256 * 4;

impl Autoencoder {
    /// The codec of a network.
    pub fn new(network: AutoencoderKL) -> Self {
        Self {
            network,
            tiling: When::Large,
            preview: None,
        }
    }

    /// In tiles wherever a picture is larger than one: less memory, and seams that may show.
    pub fn tiled(self) -> Self {
        Self {
            tiling: When::Always,
            ..self
        }
    }

    /// With a tiny autoencoder of the same space for previews.
    pub(super) fn with_preview(self, preview: Tiny) -> Self {
        Self {
            preview: Some(preview),
            ..self
        }
    }

    /// The network.
    pub fn network(&self) -> &AutoencoderKL {
        &self.network
    }

    /// The tiles of pictures of so many pixels, where there are some.
    fn tiles(&self, pixels: usize) -> Option<Tiling> {
        let needed = pixels as u64 * BYTES_PER_PIXEL;
        let too_large = || pixels > ALWAYS_WHOLE && free_memory().is_some_and(|free| needed > free);
        let tiled = self.tiling == When::Always || too_large();
        tiled.then(|| Tiling::of(self.network.config()))
    }

    /// Means and deviations of latents, for each channel, where a network is scaled by them.
    fn statistics(&self, latents: &Tensor<4>) -> Option<[Tensor<4>; 2]> {
        let config = self.network.config();
        let (mean, std) = (config.latents_mean.as_ref()?, config.latents_std.as_ref()?);
        let of = |numbers: &Vec<f64>| {
            let values: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
            let shape = [1, values.len(), 1, 1];
            Tensor::from_data(TensorData::new(values, shape), &latents.device())
        };
        Some([of(mean), of(std)])
    }

    /// What the network decodes: [`Codec::scale`] undone.
    fn unscale(&self, samples: Tensor<4>) -> Tensor<4> {
        let config = self.network.config();
        match (self.statistics(&samples), config.shift_factor) {
            (Some([mean, std]), _) => samples * std / config.scaling_factor + mean,
            (None, Some(shift)) => samples / config.scaling_factor + shift,
            (None, None) => samples / config.scaling_factor,
        }
    }
}

impl Codec for Autoencoder {
    fn factor(&self) -> usize {
        self.network.config().factor()
    }

    fn channels(&self) -> usize {
        self.network.config().latent_channels
    }

    fn picture_channels(&self) -> usize {
        self.network.config().out_channels
    }

    fn digest(&self) -> Option<[u8; 32]> {
        Some(weights::digest(&self.network))
    }

    fn decoding_bytes(&self, size: Size) -> u64 {
        let channels = self.network.config().block_out_channels.get(1);
        let whole = |pixels: usize| (3 * 4 * pixels * channels.copied().unwrap_or_default()) as u64;
        match self.tiles(size.height * size.width) {
            Some(_) => whole(ALWAYS_WHOLE),
            None => whole(size.height * size.width),
        }
    }

    fn encode(&self, pictures: Tensor<4>) -> Result<Encoded> {
        let [batch, _, height, width] = pictures.dims();
        let tiling = self.tiles(height * width);
        let mut moments = Vec::with_capacity(batch);
        for row in 0..batch {
            let picture = pictures.clone().narrow(0, row, 1);
            moments.push(match &tiling {
                Some(tiling) => self.network.encode_tiled(picture, tiling)?,
                None => self.network.encode(picture)?,
            });
        }
        let deviation = moments
            .iter()
            .map(|m| (m.log_variance.clone() * 0.5).exp())
            .collect();
        let mean = moments.into_iter().map(|m| m.mean).collect();
        Ok(Encoded::distribution(
            Tensor::cat(mean, 0),
            Tensor::cat(deviation, 0),
        ))
    }

    fn scale(&self, latents: Tensor<4>) -> Tensor<4> {
        let config = self.network.config();
        match (self.statistics(&latents), config.shift_factor) {
            (Some([mean, std]), _) => (latents - mean) * config.scaling_factor / std,
            (None, Some(shift)) => (latents - shift) * config.scaling_factor,
            (None, None) => latents * config.scaling_factor,
        }
    }

    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        let [_, _, height, width] = samples.dims();
        let tiling = self.tiles(height * width * self.factor() * self.factor());
        one_by_one(self.unscale(samples), |latent| match &tiling {
            Some(tiling) => self.network.decode_tiled(latent, tiling),
            None => self.network.decode(latent),
        })
    }

    fn preview(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        if let Some(preview) = &self.preview {
            return preview.decode(samples);
        }
        let config = self.network.config();
        match preview::matrix(config.latent_channels, config.scaling_factor) {
            Some(matrix) => Ok(preview::project(samples, matrix, self.factor())),
            None => self.decode(samples),
        }
    }

    fn num_parameters(&self) -> usize {
        Model::num_parameters(&self.network)
    }

    fn save(&self, folder: &Path) -> Result<Option<&'static str>> {
        self.network.save(folder)?;
        Ok(Some(super::CLASS))
    }
}
