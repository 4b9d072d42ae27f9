//! The blocks' way to half and to twice the size.

use burn::{module::Module, tensor::Tensor};

use super::{Conv2d, Init};
use crate::ops::{self, Geometry};

/// Half the size by a convolution of stride 2. Mirrors `diffusers.models.downsampling.Downsample2D(use_conv=True)`.
#[derive(Module, Debug)]
pub struct Downsample2D {
    /// 3x3, stride 2
    pub conv: Conv2d,
}

impl Downsample2D {
    /// A new layer. `padding` 0 means one row of zeros below and one column to the right, as in the original DDPM.
    pub fn new(channels: usize, padding: usize, init: &mut Init<'_>) -> Self {
        let padding = if padding == 0 {
            [[0, 1]; 2]
        } else {
            [[padding; 2]; 2]
        };
        Self {
            conv: Conv2d::new(
                channels,
                channels,
                3,
                Geometry {
                    stride: [2; 2],
                    padding,
                },
                init,
            ),
        }
    }

    /// # Shapes
    /// `[batch, height, width, channels]` → `[batch, height / 2, width / 2, channels]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }
}

/// Twice the size by nearest neighbour, then a convolution. Mirrors `diffusers.models.upsampling.Upsample2D(use_conv=True)`.
#[derive(Module, Debug)]
pub struct Upsample2D {
    /// 3x3
    pub conv: Conv2d,
}

impl Upsample2D {
    /// A new layer.
    pub fn new(channels: usize, init: &mut Init<'_>) -> Self {
        Self {
            conv: Conv2d::new(channels, channels, 3, Geometry::uniform(1, 1), init),
        }
    }

    /// # Shapes
    /// `[batch, height, width, channels]` → `[batch, 2 · height, 2 · width, channels]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        self.forward_to(x, [2 * height, 2 * width])
    }

    /// To another size, `[height, width]`, about twice its own.
    pub fn forward_to(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        self.conv.forward(ops::upsample_nearest(x, size))
    }
}

/// The mean of each block of two by two. Mirrors `torch.nn.AvgPool2d(2, 2)`.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, ⌊height / 2⌋, ⌊width / 2⌋, channels]`
pub fn average_pool(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let (height, width) = (height / 2, width / 2);
    x.narrow(1, 0, 2 * height)
        .narrow(2, 0, 2 * width)
        .reshape([batch, height, 2, width, 2, channels])
        .mean_dim(4)
        .mean_dim(2)
        .reshape([batch, height, width, channels])
}
