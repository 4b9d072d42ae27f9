//! The convolutional network that a hybrid depth estimator begins with: BiT (Kolesnikov et al. 2020, "Big Transfer").
//! Mirrors `transformers.models.bit.modeling_bit.BitBackbone` with bottleneck layers; parameters have its names.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module::max_pool2d, ops::MaxPoolOptions},
};

use super::config::BitConfig;
use crate::{
    Result,
    nn::{Activation, GroupNorm, Init},
    ops::{self, Geometry},
};

/// Added to the variance of a normalisation's groups.
const NORM_EPS: f64 = 1e-5;
/// The same for a kernel's weights.
const WEIGHT_EPS: f64 = 1e-8;

/// A convolution without bias whose kernels are brought to mean 0 and variance 1 (Qiao et al. 2019), with zeros around the picture as
/// TensorFlow's `SAME` puts them: the odd one below and to the right.
#[derive(Module, Debug)]
pub struct StandardizedConv {
    /// `[out, in, kernel height, kernel width]`
    pub weight: Param<Tensor<4>>,
    stride: usize,
}

impl StandardizedConv {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, init: &mut Init<'_>) -> Self {
        let weight = init.uniform([outputs, inputs, kernel, kernel], inputs * kernel * kernel);
        Self {
            weight: Param::from_tensor(weight),
            stride,
        }
    }

    /// `[batch, height, width, in]` → `[batch, height / stride, width / stride, out]`, rounded up
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let [outputs, inputs, kernel, _] = weight.dims();
        let rows = weight.reshape([outputs, inputs * kernel * kernel]);
        let centred = rows.clone() - rows.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        let rows = centred / (variance + WEIGHT_EPS).sqrt();
        let weight = rows
            .reshape([outputs, inputs, kernel, kernel])
            .permute([2, 3, 1, 0]);
        let [_, height, width, _] = x.dims();
        let geometry = Geometry {
            stride: [self.stride; 2],
            padding: [
                same(height, kernel, self.stride),
                same(width, kernel, self.stride),
            ],
        };
        ops::conv2d(x, weight, None, None, geometry)
    }
}

/// The zeros before and after a side.
fn same(side: usize, kernel: usize, stride: usize) -> [usize; 2] {
    let reach = (side.div_ceil(stride) - 1) * stride + kernel;
    let padding = reach.saturating_sub(side);
    [padding / 2, padding - padding / 2]
}

/// What brings a picture to a layer's shape.
#[derive(Module, Debug)]
pub struct BitDownsample {
    /// One pixel.
    pub conv: StandardizedConv,
    /// Without activation.
    pub norm: GroupNorm,
}

/// Narrow, 3x3, wide; then the picture is added.
#[derive(Module, Debug)]
pub struct BitLayer {
    /// Only in a stage's first layer.
    pub downsample: Option<BitDownsample>,
    /// To fewer channels.
    pub conv1: StandardizedConv,
    /// With activation.
    pub norm1: GroupNorm,
    /// 3x3, with the stage's stride in its first layer.
    pub conv2: StandardizedConv,
    /// With activation.
    pub norm2: GroupNorm,
    /// To more channels.
    pub conv3: StandardizedConv,
    /// Without activation.
    pub norm3: GroupNorm,
    #[module(skip)]
    activation: Activation,
}

impl BitLayer {
    fn new(
        config: &BitConfig,
        inputs: usize,
        outputs: usize,
        first: Option<usize>,
        init: &mut Init<'_>,
    ) -> Result<Self> {
        let (middle, stride) = (divisible(outputs / 4), first.unwrap_or(1));
        let norm = |channels, init: &Init<'_>| GroupNorm::new(config.num_groups, channels, NORM_EPS, init);
        Ok(Self {
            downsample: match first {
                Some(stride) => Some(BitDownsample {
                    conv: StandardizedConv::new(inputs, outputs, 1, stride, init),
                    norm: norm(outputs, init)?,
                }),
                None => None,
            },
            conv1: StandardizedConv::new(inputs, middle, 1, 1, init),
            norm1: norm(middle, init)?,
            conv2: StandardizedConv::new(middle, middle, 3, stride, init),
            norm2: norm(middle, init)?,
            conv3: StandardizedConv::new(middle, outputs, 1, 1, init),
            norm3: norm(outputs, init)?,
            activation: config.hidden_act,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.norm.forward(downsample.conv.forward(x.clone())),
            None => x.clone(),
        };
        let x = self
            .norm1
            .forward_activated(self.conv1.forward(x), self.activation);
        let x = self
            .norm2
            .forward_activated(self.conv2.forward(x), self.activation);
        let x = self.norm3.forward(self.conv3.forward(x));
        self.activation.forward(x + shortcut)
    }
}

/// A number of channels near this one that eight divides, and no more than a tenth smaller.
fn divisible(channels: usize) -> usize {
    let near = ((channels + 4) / 8 * 8).max(8);
    if near * 10 < channels * 9 { near + 8 } else { near }
}

/// Layers at one size.
#[derive(Module, Debug)]
pub struct BitStage {
    /// In order.
    pub layers: Vec<BitLayer>,
}

/// Stage after stage.
#[derive(Module, Debug)]
pub struct BitEncoder {
    /// In order.
    pub stages: Vec<BitStage>,
}

/// 7x7 with stride 2, and the largest of 3x3 with stride 2.
#[derive(Module, Debug)]
pub struct BitEmbedder {
    /// 7x7.
    pub convolution: StandardizedConv,
    /// With activation.
    pub norm: GroupNorm,
    #[module(skip)]
    activation: Activation,
}

/// The network.
#[derive(Module, Debug)]
pub struct BitModel {
    /// To a quarter of the size.
    pub embedder: BitEmbedder,
    /// The stages.
    pub encoder: BitEncoder,
}

/// The network under the name that it has in a checkpoint.
#[derive(Module, Debug)]
pub struct BitBackbone {
    /// The network.
    pub bit: BitModel,
}

impl BitBackbone {
    pub(super) fn new(config: &BitConfig, init: &mut Init<'_>) -> Result<Self> {
        let width = config.embedding_size;
        let embedder = BitEmbedder {
            convolution: StandardizedConv::new(config.num_channels, width, 7, 2, init),
            norm: GroupNorm::new(config.num_groups, width, NORM_EPS, init)?,
            activation: config.hidden_act,
        };
        let mut inputs = width;
        let mut stages = Vec::new();
        for (number, (outputs, depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
            let outputs = divisible(*outputs);
            let stride = if number == 0 { 1 } else { 2 };
            let mut layers = Vec::new();
            for layer in 0..*depth {
                let first = (layer == 0).then_some(stride);
                layers.push(BitLayer::new(config, inputs, outputs, first, init)?);
                inputs = outputs;
            }
            stages.push(BitStage { layers });
        }
        let encoder = BitEncoder { stages };
        Ok(Self {
            bit: BitModel { embedder, encoder },
        })
    }

    /// What every stage makes: `[batch, height, width, channels]`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let BitModel { embedder, encoder } = &self.bit;
        let x = embedder.convolution.forward(x);
        let mut x = largest(embedder.norm.forward_activated(x, embedder.activation));
        let mut stages = Vec::new();
        for stage in &encoder.stages {
            x = stage.layers.iter().fold(x, |x, layer| layer.forward(x));
            stages.push(x.clone());
        }
        stages
    }
}

/// The largest of 3x3 with stride 2. The zeros that it is padded with count, as in the original; what it is given is never negative.
fn largest(x: Tensor<4>) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let ([top, bottom], [left, right]) = (same(height, 3, 2), same(width, 3, 2));
    let x = x.permute([0, 3, 1, 2]);
    let x = x.pad((left, right, top, bottom), 0.0);
    max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2])).permute([0, 2, 3, 1])
}
