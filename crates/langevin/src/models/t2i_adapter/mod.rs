//! `T2IAdapter`: a small network that makes of a picture what is added to a UNet's way down (Mou et al. 2023).

mod config;
mod open;

use burn::{
    module::Module,
    tensor::{Tensor, activation::relu},
};

pub use config::{AdapterType, T2IAdapterConfig};

use super::{DIFFUSERS_VERSION, Model, Residuals};
use crate::{
    Error, Result,
    nn::{Conv2d, Init},
    ops::Geometry,
};

/// Makes of a picture what lets a [`UNet2DConditionModel`](super::UNet2DConditionModel)'s pictures follow it; unlike a ControlNet it is
/// asked once and not in every step. Mirrors `diffusers.T2IAdapter`; parameters have its names.
#[derive(Module, Debug)]
pub struct T2IAdapter {
    /// The network that the configuration's `adapter_type` names.
    pub adapter: Body,
    #[module(skip)]
    config: T2IAdapterConfig,
}

/// The levels of an adapter. Mirrors diffusers' `FullAdapter`, `FullAdapterXL` and `LightAdapter`.
#[derive(Module, Debug)]
pub struct Body {
    /// Into the first level's channels; a light adapter has none.
    pub conv_in: Option<Conv2d>,
    /// From the largest level down.
    pub body: Vec<Block>,
}

/// One level: halved or not, brought to its channels, and residual layers.
#[derive(Module, Debug)]
pub struct Block {
    /// To the channels of the layers, where they are not those of the level above.
    pub in_conv: Option<Conv2d>,
    /// One after another.
    pub resnets: Vec<Layer>,
    /// A light adapter's, to the level's channels.
    pub out_conv: Option<Conv2d>,
    #[module(skip)]
    halves: bool,
}

/// Two convolutions with a ReLU between, added to what they are given.
#[derive(Module, Debug)]
pub struct Layer {
    /// Over 3x3 pixels.
    pub block1: Conv2d,
    /// Of each pixel, or over 3x3 in a light adapter.
    pub block2: Conv2d,
}

fn convolution(inputs: usize, outputs: usize, kernel: usize, init: &mut Init<'_>) -> Conv2d {
    Conv2d::new(inputs, outputs, kernel, Geometry::uniform(1, kernel / 2), init)
}

impl Layer {
    fn new(channels: usize, last_kernel: usize, init: &mut Init<'_>) -> Self {
        Self {
            block1: convolution(channels, channels, 3, init),
            block2: convolution(channels, channels, last_kernel, init),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = relu(self.block1.forward(x.clone()));
        self.block2.forward_add(inner, x)
    }
}

impl Block {
    fn full(inputs: usize, outputs: usize, layers: usize, halves: bool, init: &mut Init<'_>) -> Self {
        Self {
            in_conv: (inputs != outputs).then(|| convolution(inputs, outputs, 1, init)),
            resnets: (0..layers).map(|_| Layer::new(outputs, 1, init)).collect(),
            out_conv: None,
            halves,
        }
    }

    fn light(inputs: usize, outputs: usize, layers: usize, halves: bool, init: &mut Init<'_>) -> Self {
        // Its layers have a quarter of the channels.
        let inner = outputs / 4;
        Self {
            in_conv: Some(convolution(inputs, inner, 1, init)),
            resnets: (0..layers).map(|_| Layer::new(inner, 3, init)).collect(),
            out_conv: Some(convolution(inner, outputs, 1, init)),
            halves,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.halves { halved(x) } else { x };
        let x = match &self.in_conv {
            Some(layer) => layer.forward(x),
            None => x,
        };
        let x = self.resnets.iter().fold(x, |x, layer| layer.forward(x));
        match &self.out_conv {
            Some(layer) => layer.forward(x),
            None => x,
        }
    }
}

/// The means of 2x2 pixels each; at an odd edge of those that there are. Mirrors `torch.nn.AvgPool2d(2, ceil_mode=True)`.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, ⌈height / 2⌉, ⌈width / 2⌉, channels]`
fn halved(x: Tensor<4>) -> Tensor<4> {
    let pairs = |x: Tensor<4>, axis: usize| {
        let length = x.dims()[axis];
        // The mean of the last with itself is itself.
        let x = match length % 2 {
            1 => Tensor::cat(vec![x.clone(), x.narrow(axis, length - 1, 1)], axis),
            _ => x,
        };
        let [batch, height, width, channels] = x.dims();
        match axis {
            1 => x
                .reshape([batch, height / 2, 2, width, channels])
                .mean_dim(2)
                .reshape([batch, height / 2, width, channels]),
            _ => x
                .reshape([batch, height, width / 2, 2, channels])
                .mean_dim(3)
                .reshape([batch, height, width / 2, channels]),
        }
    };
    pairs(pairs(x, 1), 2)
}

impl Model for T2IAdapter {
    type Config = T2IAdapterConfig;

    fn build(config: &T2IAdapterConfig, init: &mut Init<'_>) -> Result<Self> {
        let channels = &config.channels;
        let (layers, levels) = (config.num_res_blocks, channels.len());
        let input = config.in_channels * config.downscale_factor * config.downscale_factor;
        let before = |level: usize| channels[level.saturating_sub(1)];
        let (conv_in, body) = match config.adapter_type {
            AdapterType::FullAdapter => {
                let conv_in = convolution(input, channels[0], 3, init);
                let block =
                    |level: usize| Block::full(before(level), channels[level], layers, level > 0, init);
                (Some(conv_in), (0..levels).map(block).collect())
            }
            AdapterType::FullAdapterXl => {
                let conv_in = convolution(input, channels[0], 3, init);
                // The second and the third come from the one above, and the third alone halves.
                let block = |level: usize| {
                    let inputs = if matches!(level, 1 | 2) {
                        before(level)
                    } else {
                        channels[level]
                    };
                    Block::full(inputs, channels[level], layers, level == 2, init)
                };
                (Some(conv_in), (0..levels).map(block).collect())
            }
            AdapterType::LightAdapter => {
                let last = channels[levels - 1];
                let mut ends: Vec<[usize; 2]> = vec![[input, channels[0]]];
                ends.extend((1..levels).map(|level| [before(level), channels[level]]));
                ends.push([last, last]);
                let block = |(level, [inputs, outputs]): (usize, [usize; 2])| {
                    Block::light(inputs, outputs, layers, level > 0, init)
                };
                (None, ends.into_iter().enumerate().map(block).collect())
            }
        };
        Ok(Self {
            adapter: Body { conv_in, body },
            config: config.clone(),
        })
    }

    fn config(&self) -> &T2IAdapterConfig {
        &self.config
    }

    fn written_config(&self) -> T2IAdapterConfig {
        T2IAdapterConfig {
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl T2IAdapter {
    /// What is added on each level of a UNet's way down.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` in 0..1, sides divisible by the configuration's `downscale_factor`
    ///
    /// # Errors
    /// If the picture has other channels, or another size.
    pub fn residuals(&self, picture: Tensor<4>) -> Result<Residuals> {
        let [batch, channels, height, width] = picture.dims();
        let factor = self.config.downscale_factor;
        if channels != self.config.in_channels {
            return Err(Error::Shape(format!(
                "the adapter is shown pictures of {} channels, and this one has {channels}",
                self.config.in_channels
            )));
        }
        if height % factor != 0 || width % factor != 0 || height * width == 0 {
            return Err(Error::Shape(format!(
                "the adapter is shown pictures whose sides {factor} divides, and this one has {width}x{height} pixels"
            )));
        }
        // PixelUnshuffle: the pixels of a square become channels, in PyTorch's order.
        let (rows, columns) = (height / factor, width / factor);
        let x = picture
            .reshape([batch, channels, rows, factor, columns, factor])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows, columns, channels * factor * factor]);
        let mut x = match &self.adapter.conv_in {
            Some(layer) => layer.forward(x),
            None => x,
        };
        let mut levels = Vec::with_capacity(self.adapter.body.len());
        for block in &self.adapter.body {
            x = block.forward(x);
            levels.push(x.clone());
        }
        Ok(Residuals {
            levels,
            ..Residuals::default()
        })
    }
}
