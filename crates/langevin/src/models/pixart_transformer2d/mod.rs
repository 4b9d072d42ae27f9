//! `PixArtTransformer2DModel`: a transformer over a picture's patches that looks at a caption (Chen et al. 2024, "PixArt-α").

mod config;
mod embed;

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

pub use config::PixArtTransformer2DConfig;
pub use embed::{AdaLayerNormSingle, SIZE_NUMBERS, TimestepSizeEmbedding};

use super::{Conditioning, DIFFUSERS_VERSION, Denoiser, Model, ModelConfig};
use crate::{
    Error, Result,
    nn::{
        ADA_NORM_EPS, AdaBlockConfig, AdaSingleBlock, Init, Linear, PatchConfig, PatchEmbed, TextProjection,
        modulated, of_patches, plain_layer_norm, rows, scale_shift_table,
    },
};

/// What is added to the scores of padding; diffusers' number.
const PADDING: f64 = -10_000.0;

/// Predicts noise, and in further channels its variance, from a noisy picture and a sequence, such as a caption's embedding by T5.
/// Mirrors `diffusers.PixArtTransformer2DModel`; parameters have its names.
#[derive(Module, Debug)]
pub struct PixArtTransformer2DModel {
    /// Of patches and their places.
    pub pos_embed: PatchEmbed,
    /// One after another.
    pub transformer_blocks: Vec<AdaSingleBlock>,
    /// Shift and scale of the last normalisation, to which the timestep's embedding is added, `[2, channels]`.
    pub scale_shift_table: Param<Tensor<2>>,
    /// To the patches of the prediction.
    pub proj_out: Linear,
    /// What all blocks are told.
    pub adaln_single: AdaLayerNormSingle,
    /// Brings the sequence to the channels of the tokens.
    pub caption_projection: Option<TextProjection>,
    #[module(skip)]
    config: PixArtTransformer2DConfig,
}

impl Model for PixArtTransformer2DModel {
    type Config = PixArtTransformer2DConfig;

    fn build(config: &PixArtTransformer2DConfig, init: &mut Init<'_>) -> Result<Self> {
        let numbers = config.numbers();
        let channels = numbers.inner_dim();
        let patch = PatchConfig {
            in_channels: config.in_channels,
            channels,
            patch_size: config.patch_size,
            base_size: numbers.base_size(),
            interpolation_scale: config.interpolation(),
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
                .map(|_| AdaSingleBlock::new(&block, config.context_dim(), init))
                .collect(),
            scale_shift_table: scale_shift_table(2, channels, init),
            proj_out: Linear::new(channels, numbers.patch_numbers(), init),
            adaln_single: AdaLayerNormSingle::new(config, init),
            caption_projection: config
                .caption_channels
                .map(|dim| TextProjection::new(dim, channels, init)),
            config: config.clone(),
        })
    }

    fn config(&self) -> &PixArtTransformer2DConfig {
        &self.config
    }

    fn written_config(&self) -> PixArtTransformer2DConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        PixArtTransformer2DConfig {
            class_name: PixArtTransformer2DConfig::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl PixArtTransformer2DModel {
    /// The sequence in the blocks' dimension, and what is added to the scores of its tokens.
    fn sequence(&self, conditioning: &Conditioning, batch: usize) -> Result<(Tensor<3>, Option<Tensor<2>>)> {
        let sequence = conditioning.needed_sequence(batch, self.config.sequence_dim())?;
        let expected = [batch, sequence.dims()[1]];
        let mask = conditioning.sequence_mask.clone();
        if let Some(mask) = mask.as_ref().filter(|mask| mask.dims() != expected) {
            return Err(Error::Shape(format!(
                "the sequence's mask has shape {:?} where {expected:?} is needed: a number for each token",
                mask.dims()
            )));
        }
        let sequence = match &self.caption_projection {
            Some(projection) => projection.forward(sequence),
            None => sequence,
        };
        Ok((sequence, mask.map(|mask| (-mask + 1.0) * PADDING)))
    }
}

impl Denoiser for PixArtTransformer2DModel {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let x = conditioning.beside(x)?;
        let (batch, patches) = self.config.numbers().check_input(&x, &timesteps)?;
        let (sequence, bias) = self.sequence(conditioning, batch)?;
        let (embedding, told) = self.adaln_single.forward(timesteps, conditioning)?;
        let tokens = self
            .transformer_blocks
            .iter()
            .fold(self.pos_embed.forward(x)?, |tokens, block| {
                block.forward(tokens, sequence.clone(), bias.as_ref(), told.clone())
            });
        let table = self.scale_shift_table.val().unsqueeze_dim::<3>(0);
        let [shift, scale] = rows(&(table + embedding.unsqueeze_dim::<3>(1)));
        let tokens = modulated(plain_layer_norm(tokens, ADA_NORM_EPS), scale, shift);
        Ok(of_patches(
            self.proj_out.forward(tokens),
            patches,
            self.config.patch_size,
        ))
    }
}
