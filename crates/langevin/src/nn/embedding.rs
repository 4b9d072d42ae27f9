//! Timesteps and classes as vectors.

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, TensorData},
};

use super::{Activation, Init, Linear, activation::gelu_approximate};
use crate::ops;

/// Sines and cosines of `timesteps` at geometrically falling frequencies (Vaswani et al. 2017, sec. 3.5).
/// Mirrors `diffusers.models.embeddings.get_timestep_embedding`.
///
/// # Shapes
/// `[batch]` → `[batch, dimension]`
pub fn sinusoidal_embedding(
    timesteps: Tensor<1>,
    dimension: usize,
    flip_sin_to_cos: bool,
    downscale_freq_shift: f64,
) -> Tensor<2> {
    let half = dimension / 2;
    let log_period = -(10_000f64.ln()) as f32;
    let steps = (half as f64 - downscale_freq_shift) as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (log_period * i as f32 / steps).exp()).collect();
    let device = timesteps.device();
    let frequencies = Tensor::<1>::from_data(TensorData::new(frequencies, [half]), &device);
    let angles = timesteps.unsqueeze_dim::<2>(1) * frequencies.unsqueeze_dim::<2>(0);
    let [batch, _] = angles.dims();
    let (sin, cos) = (angles.clone().sin(), angles.cos());
    let mut parts = if flip_sin_to_cos {
        vec![cos, sin]
    } else {
        vec![sin, cos]
    };
    if dimension % 2 == 1 {
        parts.push(Tensor::zeros([batch, 1], &device));
    }
    Tensor::cat(parts, 1)
}

/// Two linear layers with an activation between. Mirrors `diffusers.models.embeddings.TimestepEmbedding`.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    /// `in` → `out`
    pub linear_1: Linear,
    /// `out` → `out`
    pub linear_2: Linear,
    /// Of a second vector, added to the first: a distilled model's guidance scale.
    pub cond_proj: Option<Linear>,
}

impl TimestepEmbedding {
    /// A new layer.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init<'_>) -> Self {
        Self {
            linear_1: Linear::new(inputs, outputs, init),
            linear_2: Linear::new(outputs, outputs, init),
            cond_proj: None,
        }
    }

    /// A new layer that takes a second vector of `condition` numbers.
    pub fn with_condition(inputs: usize, condition: usize, outputs: usize, init: &mut Init<'_>) -> Self {
        let linear_1 = Linear::new(inputs, outputs, init);
        let cond_proj = Some(Linear::without_bias(condition, inputs, init));
        Self {
            linear_1,
            linear_2: Linear::new(outputs, outputs, init),
            cond_proj,
        }
    }

    /// [`Self::forward_by`] with the second vector, where the layer takes one.
    ///
    /// # Shapes
    /// `[batch, in]` and `[batch, condition]` → `[batch, out]`
    pub fn forward_with(&self, x: Tensor<2>, condition: Tensor<2>, activation: Activation) -> Tensor<2> {
        match &self.cond_proj {
            Some(projection) => self.forward_by(x + projection.forward(condition), activation),
            None => self.forward_by(x, activation),
        }
    }

    /// # Shapes
    /// `[batch, in]` → `[batch, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.forward_by(x, Activation::Silu)
    }

    /// [`Self::forward`] with another activation between the layers.
    pub fn forward_by(&self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        self.linear_2
            .forward(activation.forward(self.linear_1.forward(x)))
    }
}

/// Two linear layers with GELU by its approximation between. Mirrors `diffusers.models.embeddings.PixArtAlphaTextProjection`.
#[derive(Module, Debug)]
pub struct TextProjection {
    /// `in` → `out`
    pub linear_1: Linear,
    /// `out` → `out`
    pub linear_2: Linear,
}

impl TextProjection {
    /// A new layer.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init<'_>) -> Self {
        Self {
            linear_1: Linear::new(inputs, outputs, init),
            linear_2: Linear::new(outputs, outputs, init),
        }
    }

    /// # Shapes
    /// `[batch, length, in]` → `[batch, length, out]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.linear_2.forward(gelu_approximate(self.linear_1.forward(x)))
    }
}

/// A learned vector for each of a number of classes. Mirrors `torch.nn.Embedding`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[classes, dimension]`, in a checkpoint as well
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// A new layer.
    pub fn new(classes: usize, dimension: usize, init: &mut Init<'_>) -> Self {
        Self::scaled(classes, dimension, 1.0, init)
    }

    /// A new layer with values of the standard deviation `scale`.
    pub fn scaled(classes: usize, dimension: usize, scale: f32, init: &mut Init<'_>) -> Self {
        Self {
            weight: Param::from_tensor(init.normal([classes, dimension], scale)),
        }
    }

    /// # Shapes
    /// `[batch]` → `[batch, dimension]`
    pub fn forward(&self, classes: Tensor<1, Int>) -> Tensor<2> {
        ops::widened(self.weight.val().select(0, classes))
    }

    /// All vectors, in float32: `[classes, dimension]`
    pub fn table(&self) -> Tensor<2> {
        ops::widened(self.weight.val())
    }
}
