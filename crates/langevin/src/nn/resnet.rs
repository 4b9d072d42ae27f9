//! The residual block that every UNet and autoencoder here is made of.

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Activation, Conv2d, Dropout, GroupNorm, Init, Linear, average_pool, checkpoint, fir_downsample,
    fir_upsample,
};
use crate::{
    Result,
    ops::{self, BlockInputs, Geometry},
};

/// How the time embedding enters a residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbeddingNorm {
    /// Added before the second normalisation.
    #[default]
    Default,
    /// As scale and shift after the second normalisation.
    ScaleShift,
}

/// What a residual block does to the size of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resampling {
    /// Nothing.
    #[default]
    None,
    /// Half, by the mean of two by two.
    Down,
    /// Half, by the filter [1, 3, 3, 1].
    FirDown,
    /// Twice, by nearest neighbour.
    Up,
    /// Twice, by the filter [1, 3, 3, 1].
    FirUp,
}

impl Resampling {
    fn forward(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::None => x,
            Self::Down => average_pool(x),
            Self::FirDown => fir_downsample(x),
            Self::Up => {
                let [_, height, width, _] = x.dims();
                ops::upsample_nearest(x, [2 * height, 2 * width])
            }
            Self::FirUp => fir_upsample(x),
        }
    }
}

/// The arguments of a [`ResnetBlock2D`], with diffusers' names.
#[derive(Clone, Debug)]
pub struct ResnetConfig {
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Dimension of the time embedding; `None` for a block that is told no time, as an autoencoder's.
    pub temb_channels: Option<usize>,
    /// Groups of the first normalisation.
    pub groups: usize,
    /// Groups of the second.
    pub groups_out: usize,
    /// Added to the normalisations' variances.
    pub eps: f64,
    /// Between the layers.
    pub activation: Activation,
    /// How the time embedding enters.
    pub time_embedding_norm: TimeEmbeddingNorm,
    /// The sum is divided by it.
    pub output_scale_factor: f64,
    /// Before the second convolution.
    pub dropout: f64,
    /// Whether the input passes a 1x1 convolution even where the channels stay the same.
    pub force_shortcut: bool,
    /// Half or twice the size on the way.
    pub resampling: Resampling,
}

/// Normalisation, activation and convolution, twice, around the time embedding, plus the input.
/// Mirrors `diffusers.models.resnet.ResnetBlock2D`.
#[derive(Module, Debug)]
pub struct ResnetBlock2D {
    /// Of the input.
    pub norm1: GroupNorm,
    /// 3x3
    pub conv1: Conv2d,
    /// From the time embedding to the channels (twice as many for scale and shift), where there is one.
    pub time_emb_proj: Option<Linear>,
    /// Of the first convolution's output.
    pub norm2: GroupNorm,
    /// 3x3
    pub conv2: Conv2d,
    /// 1x1 on the input, where the channels change.
    pub conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    time_embedding_norm: TimeEmbeddingNorm,
    #[module(skip)]
    resampling: Resampling,
    output_scale_factor: f64,
}

impl ResnetBlock2D {
    /// A new block.
    ///
    /// # Errors
    /// If the groups do not divide the channels.
    pub fn new(config: &ResnetConfig, init: &mut Init<'_>) -> Result<Self> {
        let c = config;
        let projected = match c.time_embedding_norm {
            TimeEmbeddingNorm::Default => c.out_channels,
            TimeEmbeddingNorm::ScaleShift => 2 * c.out_channels,
        };
        let same = Geometry::uniform(1, 1);
        let norm1 = GroupNorm::new(c.groups, c.in_channels, c.eps, init)?;
        let conv1 = Conv2d::new(c.in_channels, c.out_channels, 3, same, init);
        let time_emb_proj = c
            .temb_channels
            .map(|channels| Linear::new(channels, projected, init));
        let norm2 = GroupNorm::new(c.groups_out, c.out_channels, c.eps, init)?;
        let conv2 = Conv2d::new(c.out_channels, c.out_channels, 3, same, init);
        let conv_shortcut = (c.force_shortcut || c.in_channels != c.out_channels)
            .then(|| Conv2d::new(c.in_channels, c.out_channels, 1, Geometry::uniform(1, 0), init));
        Ok(Self {
            norm1,
            conv1,
            time_emb_proj,
            norm2,
            conv2,
            conv_shortcut,
            dropout: Dropout::new(c.dropout),
            activation: c.activation,
            time_embedding_norm: c.time_embedding_norm,
            resampling: c.resampling,
            output_scale_factor: c.output_scale_factor,
        })
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, in]`
    /// - `temb`: `[batch, temb_channels]`, already activated: a UNet does that once for all its blocks
    /// - result: `[batch, height, width, out]`, height and width resampled
    pub fn forward(&self, x: Tensor<4>, temb: &Tensor<2>) -> Tensor<4> {
        let [batch, dimension] = temb.dims();
        let told = temb.clone().reshape([batch, 1, dimension]);
        checkpoint::block(self, x, Some(told), Self::compute)
    }

    /// The same in a model that knows no time.
    ///
    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, height, width, out]`
    pub fn forward_without_time(&self, x: Tensor<4>) -> Tensor<4> {
        checkpoint::block(self, x, None, Self::compute)
    }

    fn compute(&self, inputs: BlockInputs) -> Tensor<4> {
        let BlockInputs { x, shortcut, told } = inputs;
        let activation = self.activation;
        // First, so that nobody else wants `x` when it is normalised.
        let shortcut = self.resampling.forward(shortcut);
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(shortcut),
            None => shortcut,
        };
        let h = if self.resampling == Resampling::None {
            self.norm1.modulated_conv(x, None, activation, &self.conv1, None)
        } else {
            let h = self.norm1.forward_activated(x, activation);
            self.conv1.forward(self.resampling.forward(h))
        };
        let time = told.zip(self.time_emb_proj.as_ref()).map(|(told, projection)| {
            let [batch, _, dimension] = told.dims();
            projection.forward(told.reshape([batch, dimension]))
        });
        let (h, modulation) = match (time, self.time_embedding_norm) {
            (None, _) => (h, None),
            (Some(time), TimeEmbeddingNorm::Default) => (ops::add_per_picture(h, time), None),
            (Some(time), TimeEmbeddingNorm::ScaleShift) => {
                let half = time.dims()[1] / 2;
                let [scale, shift] = [0, 1].map(|i| time.clone().narrow(1, i * half, half));
                (h, Some((scale, shift)))
            }
        };
        let y = if self.dropout.is_active() {
            let h = self
                .dropout
                .forward(self.norm2.modulated(h, modulation, activation));
            self.conv2.forward_add(h, shortcut)
        } else {
            let residual = Some(shortcut);
            self.norm2
                .modulated_conv(h, modulation, activation, &self.conv2, residual)
        };
        scale_down(y, self.output_scale_factor)
    }
}

/// `x / factor`, and nothing where the factor is one.
pub(super) fn scale_down(x: Tensor<4>, factor: f64) -> Tensor<4> {
    if factor == 1.0 { x } else { x.div_scalar(factor) }
}
