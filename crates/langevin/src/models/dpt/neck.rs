//! What makes one picture of depths out of several of features: they are brought to sizes that double, and added from the smallest up
//! (Ranftl et al. 2021, "Vision Transformers for Dense Prediction", sec. 3.1). Mirrors `transformers`' `DPTNeck` and
//! `DPTDepthEstimationHead`; parameters have their names.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu},
};

use super::config::{DptConfig, Readout};
use crate::{
    nn::{Activation, Conv2d, Init, Interpolation, Linear, interpolate},
    ops::{self, Geometry},
};

/// Makes a picture larger by a whole factor: every pixel becomes a square of its own. Mirrors `torch.nn.ConvTranspose2d` with a kernel as
/// large as its stride.
#[derive(Module, Debug)]
pub struct Enlarge {
    /// `[in, out, factor, factor]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
}

impl Enlarge {
    fn new(channels: usize, factor: usize, init: &mut Init<'_>) -> Self {
        let fan_in = channels * factor * factor;
        Self {
            weight: Param::from_tensor(init.uniform([channels, channels, factor, factor], fan_in)),
            bias: Param::from_tensor(init.uniform([channels], fan_in)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, inputs] = x.dims();
        let weight = self.weight.val();
        let [_, outputs, factor, _] = weight.dims();
        let weight = weight
            .permute([0, 2, 3, 1])
            .reshape([inputs, factor * factor * outputs]);
        let squares = ops::linear(x, weight, None, None);
        let squares = squares.reshape([batch, height, width, factor, factor, outputs]);
        let large =
            squares
                .permute([0, 1, 3, 2, 4, 5])
                .reshape([batch, height * factor, width * factor, outputs]);
        large + self.bias.val().reshape([1, 1, 1, outputs])
    }
}

/// How a picture of features is brought to its size.
#[derive(Module, Debug)]
// The variants are a convolution each but for one.
#[allow(clippy::large_enum_variant)]
pub enum Resize {
    /// It is larger afterwards.
    Larger(Enlarge),
    /// It is smaller afterwards.
    Smaller(Conv2d),
}

/// Brings tokens that are a picture again to their channels and size.
#[derive(Module, Debug)]
pub struct ReassembleLayer {
    /// Of a pixel.
    pub projection: Conv2d,
    /// Where the size changes.
    pub resize: Option<Resize>,
}

impl ReassembleLayer {
    fn new(config: &DptConfig, channels: usize, factor: f64, init: &mut Init<'_>) -> Self {
        Self {
            projection: Conv2d::new(config.hidden_size, channels, 1, Geometry::uniform(1, 0), init),
            resize: if factor > 1.0 {
                Some(Resize::Larger(Enlarge::new(channels, factor as usize, init)))
            } else if factor < 1.0 {
                let stride = (1.0 / factor) as usize;
                let geometry = Geometry::uniform(stride, 1);
                Some(Resize::Smaller(Conv2d::new(
                    channels, channels, 3, geometry, init,
                )))
            } else {
                None
            },
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.projection.forward(x);
        match &self.resize {
            Some(Resize::Larger(enlarge)) => enlarge.forward(x),
            Some(Resize::Smaller(conv)) => conv.forward(x),
            None => x,
        }
    }
}

/// Makes pictures of tokens.
#[derive(Module, Debug)]
pub struct ReassembleStage {
    /// One per picture; `None` for those that are pictures already.
    pub layers: Vec<Option<ReassembleLayer>>,
    /// Where the whole picture's token stands beside the others: a layer in a list, as in the Python class an activation stands beside it.
    pub readout_projects: Vec<Vec<Linear>>,
}

/// Two 3x3 convolutions with an activation before each; then the picture is added.
#[derive(Module, Debug)]
pub struct FusionResidual {
    /// First.
    pub convolution1: Conv2d,
    /// After the first.
    pub batch_norm1: Option<BatchNorm>,
    /// Second.
    pub convolution2: Conv2d,
    /// After the second.
    pub batch_norm2: Option<BatchNorm>,
}

/// A normalisation by the means and variances that training has left. Mirrors `torch.nn.BatchNorm2d` in evaluation.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    /// `[channels]`
    pub running_mean: Param<Tensor<1>>,
    /// `[channels]`
    pub running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;

    fn new(channels: usize, init: &Init<'_>) -> Self {
        Self {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            running_mean: init.constant([channels], 0.0),
            running_var: init.constant([channels], 1.0),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let scale = self.weight.val() / (self.running_var.val() + Self::EPS).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        let wide = |vector: Tensor<1>| {
            let channels = vector.dims()[0];
            vector.reshape([1, 1, 1, channels])
        };
        x * wide(scale) + wide(shift)
    }
}

impl FusionResidual {
    fn new(config: &DptConfig, init: &mut Init<'_>) -> Self {
        let channels = config.fusion_hidden_size;
        let conv = match config.has_fusion_bias() {
            true => Conv2d::new,
            false => Conv2d::without_bias,
        };
        let norm = |init: &Init<'_>| config.has_batch_norm().then(|| BatchNorm::new(channels, init));
        Self {
            convolution1: conv(channels, channels, 3, Geometry::uniform(1, 1), init),
            batch_norm1: norm(init),
            convolution2: conv(channels, channels, 3, Geometry::uniform(1, 1), init),
            batch_norm2: norm(init),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let normed = |norm: &Option<BatchNorm>, x| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let y = normed(&self.batch_norm1, self.convolution1.forward(relu(x.clone())));
        normed(&self.batch_norm2, self.convolution2.forward(relu(y))) + x
    }
}

/// Adds a picture to the smaller ones, and makes the sum twice as large.
#[derive(Module, Debug)]
pub struct FusionLayer {
    /// Of a pixel.
    pub projection: Conv2d,
    /// Of the picture that is added.
    pub residual_layer1: FusionResidual,
    /// Of the sum.
    pub residual_layer2: FusionResidual,
}

impl FusionLayer {
    fn new(config: &DptConfig, init: &mut Init<'_>) -> Self {
        let channels = config.fusion_hidden_size;
        Self {
            projection: Conv2d::new(channels, channels, 1, Geometry::uniform(1, 0), init),
            residual_layer1: FusionResidual::new(config, init),
            residual_layer2: FusionResidual::new(config, init),
        }
    }

    fn forward(&self, sum: Option<Tensor<4>>, x: Tensor<4>) -> Tensor<4> {
        let x = match sum {
            None => x,
            Some(sum) => {
                let [_, height, width, _] = sum.dims();
                let x = match x.dims() == sum.dims() {
                    true => x,
                    false => interpolate(x, [height, width], Interpolation::Bilinear),
                };
                sum + self.residual_layer1.forward(x)
            }
        };
        self.projection.forward(twice(self.residual_layer2.forward(x)))
    }
}

/// Twice as high and wide.
fn twice(x: Tensor<4>) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    interpolate(x, [2 * height, 2 * width], Interpolation::BilinearCorners)
}

/// From the smallest picture up.
#[derive(Module, Debug)]
pub struct FusionStage {
    /// From the smallest up.
    pub layers: Vec<FusionLayer>,
}

/// The neck.
#[derive(Module, Debug)]
pub struct DptNeck {
    /// Tokens to pictures.
    pub reassemble_stage: ReassembleStage,
    /// To the same channels.
    pub convs: Vec<Conv2d>,
    /// To one picture.
    pub fusion_stage: FusionStage,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    readout: Readout,
}

impl DptNeck {
    pub(super) fn new(config: &DptConfig, init: &mut Init<'_>) -> Self {
        let (sizes, hidden) = (&config.neck_hidden_sizes, config.hidden_size);
        let parts = 0..sizes.len();
        let layer = |part: usize, init: &mut Init<'_>| {
            config
                .reassembles(part)
                .then(|| ReassembleLayer::new(config, sizes[part], config.reassemble_factors[part], init))
        };
        let project = |part: usize, init: &mut Init<'_>| match config.reassembles(part) {
            true => vec![Linear::new(2 * hidden, hidden, init)],
            false => Vec::new(),
        };
        let conv = |channels: &usize, init: &mut Init<'_>| {
            let geometry = Geometry::uniform(1, 1);
            Conv2d::without_bias(*channels, config.fusion_hidden_size, 3, geometry, init)
        };
        Self {
            reassemble_stage: ReassembleStage {
                layers: parts.clone().map(|part| layer(part, init)).collect(),
                readout_projects: match config.readout_type {
                    Readout::Project => parts.clone().map(|part| project(part, init)).collect(),
                    Readout::Add | Readout::Ignore => Vec::new(),
                },
            },
            convs: sizes.iter().map(|channels| conv(channels, init)).collect(),
            fusion_stage: FusionStage {
                layers: parts.map(|_| FusionLayer::new(config, init)).collect(),
            },
            activation: config.hidden_act,
            readout: config.readout_type,
        }
    }

    /// One picture of features of early pictures and later tokens, which are of so many rows and columns.
    pub(super) fn forward(
        &self,
        early: Vec<Tensor<4>>,
        tokens: Vec<Tensor<3>>,
        [rows, columns]: [usize; 2],
    ) -> Option<Tensor<4>> {
        let count = early.len();
        let mut pictures = early;
        for (number, tokens) in tokens.into_iter().enumerate() {
            let part = count + number;
            let tokens = self.read_out(part, tokens);
            let [batch, _, width] = tokens.dims();
            let picture = tokens.reshape([batch, rows, columns, width]);
            pictures.push(
                match self.reassemble_stage.layers.get(part).and_then(Option::as_ref) {
                    Some(layer) => layer.forward(picture),
                    None => picture,
                },
            );
        }
        let features = pictures.into_iter().zip(&self.convs);
        let features: Vec<_> = features.map(|(picture, conv)| conv.forward(picture)).collect();
        let layers = self.fusion_stage.layers.iter();
        features
            .into_iter()
            .rev()
            .zip(layers)
            .fold(None, |sum, (picture, layer)| Some(layer.forward(sum, picture)))
    }

    /// The patches' tokens, with what the whole picture's does to them.
    fn read_out(&self, part: usize, tokens: Tensor<3>) -> Tensor<3> {
        let [_, count, _] = tokens.dims();
        let whole = tokens.clone().narrow(1, 0, 1);
        let patches = tokens.narrow(1, 1, count - 1);
        let projects = self.reassemble_stage.readout_projects.get(part);
        match (self.readout, projects.and_then(|layers| layers.first())) {
            (Readout::Add, _) => patches + whole,
            (Readout::Project, Some(project)) => {
                let both = Tensor::cat(vec![patches.clone(), whole.expand(patches.dims())], 2);
                self.activation.forward(project.forward(both))
            }
            _ => patches,
        }
    }
}

/// Depths of features: three convolutions, with the size doubled after the first.
#[derive(Module, Debug)]
pub struct DptHead {
    /// 3x3, on some models before the rest.
    pub projection: Option<Conv2d>,
    /// The convolutions at the places that they have in the Python class, where activations stand between them.
    pub head: Vec<Option<Conv2d>>,
}

impl DptHead {
    pub(super) fn new(config: &DptConfig, init: &mut Init<'_>) -> Self {
        const CHANNELS: usize = 32;
        const PROJECTED: usize = 256;
        let features = config.fusion_hidden_size;
        let wide = Geometry::uniform(1, 1);
        Self {
            projection: config
                .add_projection
                .then(|| Conv2d::new(PROJECTED, PROJECTED, 3, wide, init)),
            head: vec![
                Some(Conv2d::new(features, features / 2, 3, wide, init)),
                None,
                Some(Conv2d::new(features / 2, CHANNELS, 3, wide, init)),
                None,
                Some(Conv2d::new(CHANNELS, 1, 1, Geometry::uniform(1, 0), init)),
            ],
        }
    }

    /// `[batch, height, width, features]` → `[batch, 2 · height, 2 · width, 1]`, not negative
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.projection {
            Some(projection) => relu(projection.forward(x)),
            None => x,
        };
        let layers = self.head.iter().flatten().enumerate();
        layers.fold(x, |x, (number, layer)| match number {
            0 => twice(layer.forward(x)),
            _ => relu(layer.forward(x)),
        })
    }
}
