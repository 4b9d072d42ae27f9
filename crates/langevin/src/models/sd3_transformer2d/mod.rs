//! `SD3Transformer2DModel`: Stable Diffusion 3's transformer over a picture's patches and a text at once (Esser et al. 2024, "Scaling
//! Rectified Flow Transformers for High-Resolution Image Synthesis").

mod config;

use burn::{module::Module, tensor::Tensor};

pub use config::SD3Transformer2DConfig;

use super::{Conditioning, DIFFUSERS_VERSION, Denoiser, Model, ModelConfig};
use crate::{
    Result,
    nn::{
        AdaLayerNorm, Init, JointBlockConfig, JointTransformerBlock, Linear, PatchConfig, PatchEmbed,
        TIME_CHANNELS, TimestepEmbedding, of_patches, sinusoidal_embedding,
    },
};

/// The embedding of the timestep plus that of the texts' pooled vectors.
/// Mirrors `diffusers.models.embeddings.CombinedTimestepTextProjEmbeddings`.
#[derive(Module, Debug)]
pub struct TimestepTextEmbedding {
    /// Of the timestep's sines and cosines.
    pub timestep_embedder: TimestepEmbedding,
    /// Of the pooled vectors.
    pub text_embedder: TimestepEmbedding,
}

impl TimestepTextEmbedding {
    fn new(pooled: usize, channels: usize, init: &mut Init<'_>) -> Self {
        Self {
            timestep_embedder: TimestepEmbedding::new(TIME_CHANNELS, channels, init),
            text_embedder: TimestepEmbedding::new(pooled, channels, init),
        }
    }

    /// `[batch]` and `[batch, pooled]` → `[batch, channels]`
    fn forward(&self, timesteps: Tensor<1>, pooled: Tensor<2>) -> Tensor<2> {
        let time = sinusoidal_embedding(timesteps, TIME_CHANNELS, true, 0.0);
        self.timestep_embedder.forward(time) + self.text_embedder.forward(pooled)
    }
}

/// Predicts the velocity of a rectified flow from a noisy picture, a text's sequence and its pooled vector.
/// Mirrors `diffusers.SD3Transformer2DModel`; parameters have its names.
#[derive(Module, Debug)]
pub struct SD3Transformer2DModel {
    /// Of patches and their places.
    pub pos_embed: PatchEmbed,
    /// Of the timestep and the pooled vector.
    pub time_text_embed: TimestepTextEmbedding,
    /// Brings the text to the channels of the tokens.
    pub context_embedder: Linear,
    /// One after another; the text ends in the last.
    pub transformer_blocks: Vec<JointTransformerBlock>,
    /// The last normalisation.
    pub norm_out: AdaLayerNorm,
    /// To the patches of the prediction.
    pub proj_out: Linear,
    #[module(skip)]
    config: SD3Transformer2DConfig,
}

impl Model for SD3Transformer2DModel {
    type Config = SD3Transformer2DConfig;

    fn build(config: &SD3Transformer2DConfig, init: &mut Init<'_>) -> Result<Self> {
        let numbers = config.numbers();
        let channels = numbers.inner_dim();
        let patch = PatchConfig {
            in_channels: config.in_channels,
            channels,
            patch_size: config.patch_size,
            base_size: numbers.base_size(),
            interpolation_scale: 1.0,
            table_size: Some(config.pos_embed_max_size),
        };
        let block = |layer: usize| JointBlockConfig {
            channels,
            heads: config.num_attention_heads,
            qk_norm: config.qk_norm.is_some(),
            context_pre_only: layer + 1 == config.num_layers,
            dual_attention: config.dual_attention_layers.contains(&layer),
        };
        Ok(Self {
            pos_embed: PatchEmbed::new(patch, init),
            time_text_embed: TimestepTextEmbedding::new(config.pooled_projection_dim, channels, init),
            context_embedder: Linear::new(config.joint_attention_dim, channels, init),
            transformer_blocks: (0..config.num_layers)
                .map(|layer| JointTransformerBlock::new(&block(layer), init))
                .collect(),
            norm_out: AdaLayerNorm::new(channels, 2, init),
            proj_out: Linear::new(channels, numbers.patch_numbers(), init),
            config: config.clone(),
        })
    }

    fn config(&self) -> &SD3Transformer2DConfig {
        &self.config
    }

    fn written_config(&self) -> SD3Transformer2DConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        SD3Transformer2DConfig {
            class_name: SD3Transformer2DConfig::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl Denoiser for SD3Transformer2DModel {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let config = &self.config;
        let x = conditioning.beside(x)?;
        let (batch, patches) = config.numbers().check_input(&x, &timesteps)?;
        let text = conditioning.needed_sequence(batch, config.joint_attention_dim)?;
        let pooled = conditioning.needed_vector(batch, config.pooled_projection_dim)?;
        let told = self.time_text_embed.forward(timesteps, pooled);
        let start = (self.pos_embed.forward(x)?, self.context_embedder.forward(text));
        let (tokens, _) = self
            .transformer_blocks
            .iter()
            .fold(start, |(tokens, text), block| block.forward(tokens, text, &told));
        let tokens = self.norm_out.normed(tokens, told);
        Ok(of_patches(
            self.proj_out.forward(tokens),
            patches,
            config.patch_size,
        ))
    }
}
