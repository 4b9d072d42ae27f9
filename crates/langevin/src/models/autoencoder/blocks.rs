//! The levels of encoder and decoder. Mirrors `DownEncoderBlock2D`, `UpDecoderBlock2D` and `UNetMidBlock2D` of
//! `diffusers.models.unets.unet_2d_blocks`, without a time embedding.

use burn::{module::Module, tensor::Tensor};

use super::levels::Levels;
use crate::{
    Result,
    nn::{Attention, Downsample2D, Init, ResnetBlock2D, Upsample2D},
};

/// The kind of all levels of an encoder.
pub(super) const DOWN_BLOCK: &str = "DownEncoderBlock2D";
/// The kind of all levels of a decoder.
pub(super) const UP_BLOCK: &str = "UpDecoderBlock2D";

fn resnet(
    levels: &Levels<'_>,
    in_channels: usize,
    out_channels: usize,
    init: &mut Init<'_>,
) -> Result<ResnetBlock2D> {
    let config = levels.resnet(in_channels, out_channels);
    ResnetBlock2D::new(&config, init)
}

/// So many residual blocks, of which the first changes the channels.
fn resnets(
    levels: &Levels<'_>,
    count: usize,
    in_channels: usize,
    out_channels: usize,
    init: &mut Init<'_>,
) -> Result<Vec<ResnetBlock2D>> {
    let channels = |layer| if layer == 0 { in_channels } else { out_channels };
    (0..count)
        .map(|layer| resnet(levels, channels(layer), out_channels, init))
        .collect()
}

fn through(resnets: &[ResnetBlock2D], x: Tensor<4>) -> Tensor<4> {
    resnets.iter().fold(x, |x, resnet| resnet.forward_without_time(x))
}

/// One level of an encoder.
#[derive(Module, Debug)]
pub struct DownEncoderBlock2D {
    /// One a layer.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, or none on the last level. Its zeros are below and to the right alone.
    pub downsamplers: Vec<Downsample2D>,
}

impl DownEncoderBlock2D {
    pub(super) fn new(levels: &Levels<'_>, level: usize, init: &mut Init<'_>) -> Result<Self> {
        let channels = levels.block_out_channels;
        let (input, out) = (channels[level.saturating_sub(1)], channels[level]);
        let resnets = resnets(levels, levels.layers_per_block, input, out, init)?;
        let halves = level + 1 < channels.len();
        let downsamplers = halves.then(|| Downsample2D::new(out, 0, init));
        Ok(Self {
            resnets,
            downsamplers: downsamplers.into_iter().collect(),
        })
    }

    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, height / 2, width / 2, out]`; the last level leaves the size
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.downsamplers
            .iter()
            .fold(through(&self.resnets, x), |x, downsampler| downsampler.forward(x))
    }
}

/// The middle: a residual block, attention where there is any, a residual block.
#[derive(Module, Debug)]
pub struct UNetMidBlock2D {
    /// One or none.
    pub attentions: Vec<Attention>,
    /// Two.
    pub resnets: Vec<ResnetBlock2D>,
}

impl UNetMidBlock2D {
    pub(super) fn new(levels: &Levels<'_>, init: &mut Init<'_>) -> Result<Self> {
        let channels = levels.last();
        let first = resnet(levels, channels, channels, init)?;
        let attention = levels
            .mid_block_add_attention
            .then(|| Attention::new(&levels.attention(), init))
            .transpose()?;
        Ok(Self {
            attentions: attention.into_iter().collect(),
            resnets: vec![first, resnet(levels, channels, channels, init)?],
        })
    }

    /// # Shapes
    /// `[batch, height, width, channels]`, in and out
    pub fn forward(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward_without_time(x);
            // One attention, after the first residual block.
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(x);
            }
        }
        x
    }
}

/// One level of a decoder.
#[derive(Module, Debug)]
pub struct UpDecoderBlock2D {
    /// One more than on the way down.
    pub resnets: Vec<ResnetBlock2D>,
    /// One, or none on the last level.
    pub upsamplers: Vec<Upsample2D>,
}

impl UpDecoderBlock2D {
    /// Number `place` of the way up, from the smallest size.
    pub(super) fn new(levels: &Levels<'_>, place: usize, init: &mut Init<'_>) -> Result<Self> {
        let channels = levels.block_out_channels;
        let level = channels.len() - 1 - place;
        let (input, out) = (channels[(level + 1).min(channels.len() - 1)], channels[level]);
        let resnets = resnets(levels, levels.layers_per_block + 1, input, out, init)?;
        let upsamplers = (level > 0).then(|| Upsample2D::new(out, init));
        Ok(Self {
            resnets,
            upsamplers: upsamplers.into_iter().collect(),
        })
    }

    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, 2 · height, 2 · width, out]`; the last level leaves the size
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.upsamplers
            .iter()
            .fold(through(&self.resnets, x), |x, upsampler| upsampler.forward(x))
    }
}
