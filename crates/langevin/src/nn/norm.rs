//! Normalisation of pictures' groups of channels, and of tokens.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{Activation, Conv2d, Init};
use crate::{
    Error, Result,
    ops::{self, GroupNormOptions},
};

/// Group normalisation of channels-last pictures. Mirrors `torch.nn.GroupNorm`.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// A new layer.
    ///
    /// # Errors
    /// If the groups do not divide the channels.
    pub fn new(groups: usize, channels: usize, eps: f64, init: &Init<'_>) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::Config(format!(
                "a group normalisation cannot split {channels} channels into {groups} groups: choose norm_num_groups and \
                 block_out_channels so that the first divides every channel count"
            )));
        }
        Ok(Self {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            groups,
            eps,
        })
    }

    /// The normalisation alone.
    ///
    /// # Shapes
    /// `[batch, height, width, channels]`, in and out
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.run(x, None, false)
    }

    /// The normalisation, then `activation`.
    pub fn forward_activated(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        self.modulated(x, None, activation)
    }

    /// The normalisation, then `· (1 + scale) + shift` where given (each `[batch, channels]`), then `activation`.
    pub fn modulated(
        &self,
        x: Tensor<4>,
        modulation: Option<(Tensor<2>, Tensor<2>)>,
        activation: Activation,
    ) -> Tensor<4> {
        let y = self.run(x, modulation, activation.is_silu());
        if activation.is_silu() {
            y
        } else {
            activation.forward(y)
        }
    }

    fn run(&self, x: Tensor<4>, modulation: Option<(Tensor<2>, Tensor<2>)>, silu: bool) -> Tensor<4> {
        let options = self.options(silu);
        ops::group_norm(x, self.weight.val(), self.bias.val(), modulation, options)
    }

    pub(super) fn options(&self, silu: bool) -> GroupNormOptions {
        GroupNormOptions {
            groups: self.groups,
            eps: self.eps as f32,
            silu,
        }
    }

    /// [`Self::modulated`], then `conv`, plus `residual`: with SiLU, which most models have, in one operation.
    pub fn modulated_conv(
        &self,
        x: Tensor<4>,
        modulation: Option<(Tensor<2>, Tensor<2>)>,
        activation: Activation,
        conv: &Conv2d,
        residual: Option<Tensor<4>>,
    ) -> Tensor<4> {
        if activation.is_silu() {
            return conv.forward_normed(self, x, modulation, residual);
        }
        let x = self.modulated(x, modulation, activation);
        match residual {
            Some(residual) => conv.forward_add(x, residual),
            None => conv.forward(x),
        }
    }
}

/// Normalisation over the last dimension. Mirrors `torch.nn.LayerNorm`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// A new layer.
    pub fn new(channels: usize, eps: f64, init: &Init<'_>) -> Self {
        Self {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            eps,
        }
    }

    /// # Shapes
    /// `[..., channels]`, in and out
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps as f32)
    }
}

/// Division by the root of the mean square over the last dimension (Zhang and Sennrich 2019). Mirrors
/// `diffusers.models.normalization.RMSNorm`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    /// A new layer.
    pub fn new(channels: usize, eps: f64, init: &Init<'_>) -> Self {
        Self {
            weight: init.constant([channels], 1.0),
            eps,
        }
    }

    /// # Shapes
    /// `[..., channels]`, in and out
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let root = (x.clone().square().mean_dim(D - 1) + self.eps).sqrt();
        x / root * self.weight.val().unsqueeze()
    }
}
