//! From latents up to pictures.

use burn::{module::Module, tensor::Tensor};

use super::{
    blocks::{UNetMidBlock2D, UpDecoderBlock2D},
    levels::{EPS, Levels},
};
use crate::{
    Result,
    nn::{Activation, Conv2d, GroupNorm, Init},
    ops::Geometry,
};

/// Mirrors `diffusers.models.autoencoders.vae.Decoder`; parameters have its names.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Into the last level's channels.
    pub conv_in: Conv2d,
    /// At the latents' size.
    pub mid_block: UNetMidBlock2D,
    /// From the latents' size up.
    pub up_blocks: Vec<UpDecoderBlock2D>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the picture.
    pub conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(levels: &Levels<'_>, init: &mut Init<'_>) -> Result<Self> {
        let same = Geometry::uniform(1, 1);
        let conv_in = Conv2d::new(levels.latent_channels, levels.last(), 3, same, init);
        let mid_block = UNetMidBlock2D::new(levels, init)?;
        let up_blocks = (0..levels.block_out_channels.len())
            .map(|place| UpDecoderBlock2D::new(levels, place, init))
            .collect::<Result<_>>()?;
        let conv_norm_out = GroupNorm::new(levels.norm_num_groups, levels.first(), EPS, init)?;
        Ok(Self {
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out,
            conv_out: Conv2d::new(levels.first(), levels.out_channels, 3, same, init),
        })
    }

    /// Keeps nothing that the next layer does not want, but for what a backward needs.
    ///
    /// # Shapes
    /// `[batch, height, width, latent_channels]` → `[batch, factor · height, factor · width, out_channels]`
    pub fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        let x = self.mid_block.forward(self.conv_in.forward(z));
        let x = self.up_blocks.iter().fold(x, |x, block| block.forward(x));
        // SiLU whatever the residual blocks have, as in diffusers.
        self.conv_norm_out
            .modulated_conv(x, None, Activation::Silu, &self.conv_out, None)
    }
}
