//! The small UNet of the course's second notebook, written there from scratch.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Conditioning, Denoiser, weights};
use crate::{
    Error, Result,
    nn::{Activation, Conv2d, Init},
    ops::{self, Geometry},
    random::Generator,
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
            class_name: "BasicUNet".into(),
            in_channels: 1,
            out_channels: 1,
            sample_size: Some(28),
        }
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

impl BasicUNet {
    /// A new model with PyTorch's initialisation.
    ///
    /// # Errors
    /// If there are no channels.
    pub fn new(config: &BasicUNetConfig, device: &Device, generator: &mut Generator) -> Result<Self> {
        let limit = 1..=4096;
        if !limit.contains(&config.in_channels) || !limit.contains(&config.out_channels) {
            return Err(Error::Config(
                "in_channels and out_channels must be from 1 to 4096".into(),
            ));
        }
        let init = &mut Init::new(generator, device);
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

    /// Loads `config.json` and the weights from a folder.
    ///
    /// # Errors
    /// If a file is missing or broken, or the weights are not this model's.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let config = weights::read_config(&folder)?;
        Self::with_weights(&config, &mut Checkpoint::in_folder(folder)?, device)
    }

    /// A model with the weights of a checkpoint.
    ///
    /// # Errors
    /// If they are not this model's.
    pub fn with_weights(
        config: &BasicUNetConfig,
        checkpoint: &mut Checkpoint,
        device: &Device,
    ) -> Result<Self> {
        let model = Self::new(config, device, &mut Generator::new(0))?;
        weights::load(model, checkpoint, device)
    }

    /// Saves both files into a folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        weights::save_with_config(self, &self.config, folder)
    }

    /// Its configuration.
    pub fn config(&self) -> &BasicUNetConfig {
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
