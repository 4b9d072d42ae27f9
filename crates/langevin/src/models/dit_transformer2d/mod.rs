//! `DiTTransformer2DModel`: a transformer over a picture's patches, told a class (Peebles and Xie 2023, "Scalable Diffusion Models with
//! Transformers").

mod config;

use burn::{module::Module, tensor::Tensor};

pub use config::DiTTransformer2DConfig;

use super::{Conditioning, DIFFUSERS_VERSION, Denoiser, Model, ModelConfig};
use crate::{
    Error, Result,
    nn::{
        ADA_NORM_EPS, AdaBlockConfig, AdaZeroBlock, Init, Linear, PatchConfig, PatchEmbed, TIME_CHANNELS,
        ada_numbers, modulated, of_patches, plain_layer_norm, rows, sinusoidal_embedding,
    },
};

/// Predicts noise, and in further channels its variance where it has them, from a noisy picture and its class.
/// Mirrors `diffusers.DiTTransformer2DModel`; parameters have its names.
#[derive(Module, Debug)]
pub struct DiTTransformer2DModel {
    /// Of patches and their places.
    pub pos_embed: PatchEmbed,
    /// One after another.
    pub transformer_blocks: Vec<AdaZeroBlock>,
    /// Shift and scale of the last normalisation.
    pub proj_out_1: Linear,
    /// To the patches of the prediction.
    pub proj_out_2: Linear,
    #[module(skip)]
    config: DiTTransformer2DConfig,
}

impl Model for DiTTransformer2DModel {
    type Config = DiTTransformer2DConfig;

    fn build(config: &DiTTransformer2DConfig, init: &mut Init<'_>) -> Result<Self> {
        let numbers = config.numbers();
        let channels = numbers.inner_dim();
        let patch = PatchConfig {
            in_channels: config.in_channels,
            channels,
            patch_size: config.patch_size,
            base_size: numbers.base_size(),
            interpolation_scale: 1.0,
            table_size: None,
        };
        let block = AdaBlockConfig {
            channels,
            heads: config.num_attention_heads,
            attention_bias: config.attention_bias,
            eps: config.norm_eps,
        };
        Ok(Self {
            pos_embed: PatchEmbed::new(patch, init),
            transformer_blocks: (0..config.num_layers)
                .map(|_| AdaZeroBlock::new(&block, config.num_classes(), init))
                .collect(),
            proj_out_1: Linear::new(channels, 2 * channels, init),
            proj_out_2: Linear::new(channels, numbers.patch_numbers(), init),
            config: config.clone(),
        })
    }

    fn config(&self) -> &DiTTransformer2DConfig {
        &self.config
    }

    fn written_config(&self) -> DiTTransformer2DConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        DiTTransformer2DConfig {
            class_name: DiTTransformer2DConfig::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl Denoiser for DiTTransformer2DModel {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let x = conditioning.beside(x)?;
        let (batch, patches) = self.config.numbers().check_input(&x, &timesteps)?;
        let classes = conditioning.needed_classes(batch)?;
        let time = sinusoidal_embedding(timesteps, TIME_CHANNELS, true, 1.0);
        let mut tokens = self.pos_embed.forward(x)?;
        // Every block has an embedding of its own; the last normalisation is told the first block's.
        let mut first = None;
        for block in &self.transformer_blocks {
            let told = block.norm1.emb.forward(time.clone(), classes.clone());
            tokens = block.forward(tokens, told.clone());
            first.get_or_insert(told);
        }
        let Some(told) = first else {
            return Err(Error::Config("num_layers is 0: a DiT has at least one".into()));
        };
        let [shift, scale] = rows(&ada_numbers(&self.proj_out_1, told));
        let tokens = modulated(plain_layer_norm(tokens, ADA_NORM_EPS), scale, shift);
        Ok(of_patches(
            self.proj_out_2.forward(tokens),
            patches,
            self.config.patch_size,
        ))
    }
}
