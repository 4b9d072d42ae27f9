//! The small UNet of the course's second notebook, written there from scratch.

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};

use super::{Conditioning, Denoiser, Model, ModelConfig};
use crate::{
    Error, Result,
    nn::{Activation, Conv2d, Init},
    ops::{self, Geometry},
};

/// The configuration of a [`BasicUNet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BasicUNetConfig {
    /// `BasicUNet`
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Height and width that it was trained at.
    pub sample_size: Option<usize>,
}

impl Default for BasicUNetConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            in_channels: 1,
            out_channels: 1,
            sample_size: Some(28),
        }
    }
}

impl ModelConfig for BasicUNetConfig {
    const CLASS: &'static str = "BasicUNet";
    // The course's own networks are the classes that diffusers does not have.
    const LIBRARY: &'static str = "langevin";

    fn validate(&self) -> Result<()> {
        let limit = 1..=4096;
        if !limit.contains(&self.in_channels) || !limit.contains(&self.out_channels) {
            return Err(Error::Config(
                "in_channels and out_channels must be from 1 to 4096".into(),
            ));
        }
        Ok(())
    }

    fn size_divisor(&self) -> usize {
        4
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        self.sample_size.map(|side| [side; 2])
    }
}

/// Three convolutions down and three up, with the pictures of the way down added on the way up; 309,057 parameters for grey pictures.
/// It is told neither the timestep nor anything else.
#[derive(Module, Debug)]
pub struct BasicUNet {
    /// 5x5: to 32, 64 and 64 channels.
    pub down_layers: Vec<Conv2d>,
    /// 5x5: to 64, 32 and the picture's channels.
    pub up_layers: Vec<Conv2d>,
    #[module(skip)]
    config: BasicUNetConfig,
}

impl Model for BasicUNet {
    type Config = BasicUNetConfig;

    fn build(config: &BasicUNetConfig, init: &mut Init<'_>) -> Result<Self> {
        let geometry = Geometry::uniform(1, 2);
        let mut layers = |channels: [[usize; 2]; 3]| -> Vec<Conv2d> {
            channels
                .into_iter()
                .map(|[i, o]| Conv2d::new(i, o, 5, geometry, init))
                .collect()
        };
        Ok(Self {
            down_layers: layers([[config.in_channels, 32], [32, 64], [64, 64]]),
            up_layers: layers([[64, 64], [64, 32], [32, config.out_channels]]),
            config: config.clone(),
        })
    }

    fn config(&self) -> &BasicUNetConfig {
        &self.config
    }
}

/// The largest of each block of two by two. Mirrors `torch.nn.MaxPool2d(2)`.
fn max_pool(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    x.reshape([batch, height / 2, 2, width / 2, 2, channels])
        .max_dim(4)
        .max_dim(2)
        .reshape([batch, height / 2, width / 2, channels])
}

impl Denoiser for BasicUNet {
    fn denoise(&self, x: Tensor<4>, _timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let [_, channels, height, width] = x.dims();
        if channels != self.config.in_channels || height % 4 != 0 || width % 4 != 0 {
            return Err(Error::Shape(format!(
                "BasicUNet takes pictures of {} channels with height and width divisible by 4, not {channels}x{height}x{width}",
                self.config.in_channels
            )));
        }
        if conditioning.classes.is_some() {
            return Err(Error::Config(
                "BasicUNet has no classes, but classes were given: leave them out".into(),
            ));
        }
        let mut x = x.permute([0, 2, 3, 1]);
        let mut skips = vec![];
        for (i, layer) in self.down_layers.iter().enumerate() {
            x = Activation::Silu.forward(layer.forward(x));
            if i < 2 {
                skips.push(x.clone());
                x = max_pool(x);
            }
        }
        for layer in &self.up_layers {
            x = Activation::Silu.forward(layer.forward(x));
            // Before the second and the third layer: twice the size, plus what was there on the way down.
            if let Some(skip) = skips.pop() {
                let [_, height, width, _] = x.dims();
                x = ops::upsample_nearest(x, [2 * height, 2 * width]) + skip;
            }
        }
        Ok(x.permute([0, 3, 1, 2]))
    }
}
