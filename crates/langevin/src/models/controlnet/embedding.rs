//! The small network that brings a conditioning picture to the size of latents.

use burn::{module::Module, tensor::Tensor};

use crate::{
    nn::{Activation, Conv2d, Init},
    ops::Geometry,
};

/// Convolutions, of which every second halves the picture. Mirrors diffusers' `ControlNetConditioningEmbedding`.
#[derive(Module, Debug)]
pub struct ConditioningEmbedding {
    /// From the picture's channels.
    pub conv_in: Conv2d,
    /// Two for each step to the next width: one of the same size, and one that halves.
    pub blocks: Vec<Conv2d>,
    /// To the channels of the UNet's first level; zero in a new network.
    pub conv_out: Conv2d,
}

impl ConditioningEmbedding {
    /// From `channels` through `widths`, of which there is at least one, to `out` channels.
    pub(super) fn new(channels: usize, widths: &[usize], out: usize, init: &mut Init<'_>) -> Self {
        let same = Geometry::uniform(1, 1);
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let conv_in = Conv2d::new(channels, first, 3, same, init);
        let mut blocks = Vec::with_capacity(2 * widths.len());
        for pair in widths.windows(2) {
            blocks.push(Conv2d::new(pair[0], pair[0], 3, same, init));
            blocks.push(Conv2d::new(pair[0], pair[1], 3, Geometry::uniform(2, 1), init));
        }
        Self {
            conv_in,
            blocks,
            conv_out: zero_convolution(last, out, 3, init),
        }
    }

    /// # Shapes
    /// `[batch, height, width, channels]` → `[batch, height / factor, width / factor, out]`
    pub fn forward(&self, picture: Tensor<4>) -> Tensor<4> {
        let first = Activation::Silu.forward(self.conv_in.forward(picture));
        let embedded = self
            .blocks
            .iter()
            .fold(first, |x, block| Activation::Silu.forward(block.forward(x)));
        self.conv_out.forward(embedded)
    }
}

/// A convolution that gives zeros until it is trained; its parameters are drawn first, as in diffusers, which draws and then sets them.
pub(super) fn zero_convolution(inputs: usize, outputs: usize, kernel: usize, init: &mut Init<'_>) -> Conv2d {
    let mut layer = Conv2d::new(inputs, outputs, kernel, Geometry::uniform(1, kernel / 2), init);
    layer.weight = init.constant([kernel, kernel, inputs, outputs], 0.0);
    layer.bias = Some(init.constant([outputs], 0.0));
    layer
}
