//! From pictures down to latents.

use burn::{module::Module, tensor::Tensor};

use super::{
    blocks::{DownEncoderBlock2D, UNetMidBlock2D},
    levels::{EPS, Levels},
};
use crate::{
    Result,
    nn::{Activation, Conv2d, GroupNorm, Init},
    ops::Geometry,
};

/// Mirrors `diffusers.models.autoencoders.vae.Encoder`; parameters have its names.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Into the first level's channels.
    pub conv_in: Conv2d,
    /// From the picture's size down.
    pub down_blocks: Vec<DownEncoderBlock2D>,
    /// At the latents' size.
    pub mid_block: UNetMidBlock2D,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the latents, or to twice as many channels.
    pub conv_out: Conv2d,
}

impl Encoder {
    /// An encoder whose output has `out_channels`.
    pub(super) fn new(levels: &Levels<'_>, out_channels: usize, init: &mut Init<'_>) -> Result<Self> {
        let same = Geometry::uniform(1, 1);
        let conv_in = Conv2d::new(levels.in_channels, levels.first(), 3, same, init);
        let down_blocks = (0..levels.block_out_channels.len())
            .map(|level| DownEncoderBlock2D::new(levels, level, init))
            .collect::<Result<_>>()?;
        let mid_block = UNetMidBlock2D::new(levels, init)?;
        let conv_norm_out = GroupNorm::new(levels.norm_num_groups, levels.last(), EPS, init)?;
        Ok(Self {
            conv_in,
            down_blocks,
            mid_block,
            conv_norm_out,
            conv_out: Conv2d::new(levels.last(), out_channels, 3, same, init),
        })
    }

    /// # Shapes
    /// `[batch, height, width, in_channels]` → `[batch, height / factor, width / factor, out_channels]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self
            .down_blocks
            .iter()
            .fold(self.conv_in.forward(x), |x, block| block.forward(x));
        let x = self.mid_block.forward(x);
        // SiLU whatever the residual blocks have, as in diffusers.
        self.conv_norm_out
            .modulated_conv(x, None, Activation::Silu, &self.conv_out, None)
    }
}
