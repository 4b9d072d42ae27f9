//! Normalisation whose scale and shift follow from the timestep and the condition (Peebles and Xie 2023, "Scalable Diffusion Models with
//! Transformers", fig. 3).

use burn::{
    module::Module,
    tensor::{Int, Tensor},
};

use super::{Activation, Embedding, Init, Linear, TimestepEmbedding};
use crate::ops;

/// Added to the variance by adaptive normalisations; diffusers fixes the number.
pub(crate) const ADA_NORM_EPS: f64 = 1e-6;
/// How many sines and cosines a timestep has before a transformer embeds it; diffusers fixes the number.
pub(crate) const TIME_CHANNELS: usize = 256;

/// Normalisation over the last dimension without parameters. Mirrors `torch.nn.LayerNorm` with `elementwise_affine=False`.
///
/// # Shapes
/// `[batch, tokens, channels]`, in and out
pub(crate) fn plain_layer_norm(x: Tensor<3>, eps: f64) -> Tensor<3> {
    let ([.., channels], device) = (x.dims(), x.device());
    let (ones, zeros) = (
        Tensor::ones([channels], &device),
        Tensor::zeros([channels], &device),
    );
    ops::layer_norm(x, ones, zeros, eps as f32)
}

/// `x · (1 + scale) + shift`.
///
/// # Shapes
/// - `x` and the result: `[batch, tokens, channels]`
/// - `scale`, `shift`: `[batch, 1, channels]`
pub(crate) fn modulated(x: Tensor<3>, scale: Tensor<3>, shift: Tensor<3>) -> Tensor<3> {
    x * (scale + 1.0) + shift
}

/// Each row of a picture's numbers: `[batch, N, channels]` → `N` times `[batch, 1, channels]`
pub(crate) fn rows<const N: usize>(numbers: &Tensor<3>) -> [Tensor<3>; N] {
    std::array::from_fn(|row| numbers.clone().narrow(1, row, 1))
}

/// How a residual branch is modulated, each `[batch, 1, channels]`.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    shift: Tensor<3>,
    scale: Tensor<3>,
    gate: Tensor<3>,
}

impl Branch {
    /// Of `[batch, 3 · N, channels]`: shift, scale and gate of one branch after another.
    pub(super) fn each<const N: usize>(numbers: &Tensor<3>) -> [Self; N] {
        std::array::from_fn(|branch| {
            let [shift, scale, gate] = rows(&numbers.clone().narrow(1, 3 * branch, 3));
            Self { shift, scale, gate }
        })
    }

    /// What the branch sees of the normalised tokens, `[batch, tokens, channels]`.
    pub(super) fn enter(&self, normed: Tensor<3>) -> Tensor<3> {
        modulated(normed, self.scale.clone(), self.shift.clone())
    }

    /// Adds what the branch found to `residual`, both `[batch, tokens, channels]`.
    pub(super) fn leave(&self, found: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        found * self.gate.clone() + residual
    }
}

/// A vector for each class. Mirrors `diffusers.models.embeddings.LabelEmbedding`, whose dropout is that of the run here.
#[derive(Module, Debug)]
pub struct LabelEmbedding {
    /// One a class; the last is of the null class.
    pub embedding_table: Embedding,
}

/// A timestep's embedding plus a class's. Mirrors `diffusers.models.embeddings.CombinedTimestepLabelEmbeddings`.
#[derive(Module, Debug)]
pub struct TimestepLabelEmbedding {
    /// Of the timestep's sines and cosines.
    pub timestep_embedder: TimestepEmbedding,
    /// Of the class.
    pub class_embedder: LabelEmbedding,
}

impl TimestepLabelEmbedding {
    /// A new layer for `classes`, the null class included.
    pub fn new(classes: usize, channels: usize, init: &mut Init<'_>) -> Self {
        let timestep_embedder = TimestepEmbedding::new(TIME_CHANNELS, channels, init);
        let embedding_table = Embedding::new(classes, channels, init);
        Self {
            timestep_embedder,
            class_embedder: LabelEmbedding { embedding_table },
        }
    }

    /// # Shapes
    /// - `time`: `[batch, 256]`, sines and cosines
    /// - `classes`: `[batch]`
    /// - the result: `[batch, channels]`
    pub fn forward(&self, time: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<2> {
        self.timestep_embedder.forward(time) + self.class_embedder.embedding_table.forward(classes)
    }
}

/// So many numbers for each channel as `linear` makes of what a block is told, through SiLU.
///
/// # Shapes
/// `[batch, channels]` → `[batch, numbers, channels]`
pub(crate) fn ada_numbers(linear: &Linear, told: Tensor<2>) -> Tensor<3> {
    let [batch, channels] = told.dims();
    let numbers = linear.forward(Activation::Silu.forward(told));
    let all = numbers.dims()[1];
    numbers.reshape([batch, all / channels, channels])
}

/// Shift, scale and gate of two branches from timestep and class, which every block embeds itself.
/// Mirrors `diffusers.models.normalization.AdaLayerNormZero` with embeddings.
#[derive(Module, Debug)]
pub struct ClassAdaLayerNorm {
    /// Of timestep and class.
    pub emb: TimestepLabelEmbedding,
    /// To the numbers, see `ada_numbers`.
    pub linear: Linear,
}

impl ClassAdaLayerNorm {
    /// A new layer that makes `numbers` for each of `channels`; the null class is among `classes`.
    pub fn new(channels: usize, numbers: usize, classes: usize, init: &mut Init<'_>) -> Self {
        let emb = TimestepLabelEmbedding::new(classes, channels, init);
        Self {
            emb,
            linear: Linear::new(channels, numbers * channels, init),
        }
    }
}

/// Numbers for each channel from what all blocks are told. Mirrors `diffusers.models.normalization.AdaLayerNormZero` (shift, scale and gate of
/// two branches), `SD35AdaLayerNormZeroX` (of three) and `AdaLayerNormContinuous` (scale and shift).
#[derive(Module, Debug)]
pub struct AdaLayerNorm {
    /// To the numbers, see `ada_numbers`.
    pub linear: Linear,
}

impl AdaLayerNorm {
    /// A new layer that makes `numbers` for each of `channels`.
    pub fn new(channels: usize, numbers: usize, init: &mut Init<'_>) -> Self {
        Self {
            linear: Linear::new(channels, numbers * channels, init),
        }
    }

    /// The normalised tokens with the scale and the shift that follow from `told`, of a layer of two numbers.
    ///
    /// # Shapes
    /// - `x` and the result: `[batch, tokens, channels]`
    /// - `told`: `[batch, channels]`
    pub fn normed(&self, x: Tensor<3>, told: Tensor<2>) -> Tensor<3> {
        let [scale, shift] = rows(&ada_numbers(&self.linear, told));
        modulated(plain_layer_norm(x, ADA_NORM_EPS), scale, shift)
    }
}
