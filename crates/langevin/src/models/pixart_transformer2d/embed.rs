//! What all blocks of a PixArt transformer are told: the timestep, and a picture's size.

use burn::{module::Module, tensor::Tensor};

use super::config::PixArtTransformer2DConfig;
use crate::{
    Error, Result,
    models::Conditioning,
    nn::{Init, Linear, TIME_CHANNELS, TimestepEmbedding, ada_numbers, sinusoidal_embedding},
};

/// Numbers a channel that all blocks share: shift, scale and gate of two branches.
const NUMBERS: usize = 6;
/// How many numbers a picture's size is: height, width and their ratio.
pub const SIZE_NUMBERS: usize = 3;

/// The embedding of the timestep, and of a picture's size where the model is told it.
/// Mirrors `diffusers.models.embeddings.PixArtAlphaCombinedTimestepSizeEmbeddings`.
#[derive(Module, Debug)]
pub struct TimestepSizeEmbedding {
    /// Of the timestep's sines and cosines.
    pub timestep_embedder: TimestepEmbedding,
    /// Of height and width, each to a third of the channels.
    pub resolution_embedder: Option<TimestepEmbedding>,
    /// Of height over width, to the last third.
    pub aspect_ratio_embedder: Option<TimestepEmbedding>,
}

impl TimestepSizeEmbedding {
    fn new(channels: usize, sizes: bool, init: &mut Init<'_>) -> Self {
        let timestep_embedder = TimestepEmbedding::new(TIME_CHANNELS, channels, init);
        let mut third = || sizes.then(|| TimestepEmbedding::new(TIME_CHANNELS, channels / 3, init));
        Self {
            timestep_embedder,
            resolution_embedder: third(),
            aspect_ratio_embedder: third(),
        }
    }

    /// `[batch]` → `[batch, channels]`
    fn forward(&self, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<2>> {
        let [batch] = timesteps.dims();
        let time = self
            .timestep_embedder
            .forward(sinusoidal_embedding(timesteps, TIME_CHANNELS, true, 0.0));
        let (Some(resolution), Some(ratio)) = (&self.resolution_embedder, &self.aspect_ratio_embedder) else {
            return Ok(time);
        };
        let expected = [batch, SIZE_NUMBERS];
        let Some(sizes) = conditioning.time_ids.clone().filter(|ids| ids.dims() == expected) else {
            return Err(Error::Config(format!(
                "this model needs {SIZE_NUMBERS} numbers for each picture: height, width and height over width"
            )));
        };
        let embed = |layers: &TimestepEmbedding, first: usize, count: usize| {
            let numbers = sizes.clone().narrow(1, first, count).reshape([batch * count]);
            let embedded = layers.forward(sinusoidal_embedding(numbers, TIME_CHANNELS, true, 0.0));
            let [_, channels] = embedded.dims();
            embedded.reshape([batch, count * channels])
        };
        Ok(time + Tensor::cat(vec![embed(resolution, 0, 2), embed(ratio, 2, 1)], 1))
    }
}

/// What all blocks are told. Mirrors `diffusers.models.normalization.AdaLayerNormSingle`.
#[derive(Module, Debug)]
pub struct AdaLayerNormSingle {
    /// Of timestep and size.
    pub emb: TimestepSizeEmbedding,
    /// To the numbers of the blocks.
    pub linear: Linear,
}

impl AdaLayerNormSingle {
    pub(super) fn new(config: &PixArtTransformer2DConfig, init: &mut Init<'_>) -> Self {
        let channels = config.numbers().inner_dim();
        Self {
            emb: TimestepSizeEmbedding::new(channels, config.is_told_sizes(), init),
            linear: Linear::new(channels, NUMBERS * channels, init),
        }
    }

    /// The embedding, `[batch, channels]`, and the blocks' numbers, `[batch, 6, channels]`.
    pub(super) fn forward(
        &self,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
    ) -> Result<(Tensor<2>, Tensor<3>)> {
        let embedding = self.emb.forward(timesteps, conditioning)?;
        let numbers = ada_numbers(&self.linear, embedding.clone());
        Ok((embedding, numbers))
    }
}
