//! The convolution layer.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{Activation, Adapters, GroupNorm, Init, adapter::Adapted};
use crate::ops::{self, Geometry};

/// A convolution over channels-last pictures. Mirrors `torch.nn.Conv2d`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[kernel height, kernel width, in, out]`; `[out, in, kernel height, kernel width]` in a checkpoint.
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// What is put on it.
    pub adapters: Adapters,
    #[module(skip)]
    geometry: Geometry,
}

impl Conv2d {
    /// A new layer with a square kernel and bias.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        geometry: Geometry,
        init: &mut Init<'_>,
    ) -> Self {
        let fan_in = inputs * kernel * kernel;
        let weight = init
            .uniform([outputs, inputs, kernel, kernel], fan_in)
            .permute([2, 3, 1, 0]);
        let bias = init.uniform([outputs], fan_in);
        Self {
            weight: init.parameter(weight),
            bias: Some(Param::from_tensor(bias)),
            adapters: Adapters::default(),
            geometry,
        }
    }

    /// A new layer with a square kernel and no bias.
    pub fn without_bias(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        geometry: Geometry,
        init: &mut Init<'_>,
    ) -> Self {
        let weight = init
            .uniform([outputs, inputs, kernel, kernel], inputs * kernel * kernel)
            .permute([2, 3, 1, 0]);
        Self {
            weight: init.parameter(weight),
            bias: None,
            adapters: Adapters::default(),
            geometry,
        }
    }

    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, out height, out width, out]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.run(x, None)
    }

    /// [`Self::forward`] plus `residual`, in one pass.
    pub fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        self.run(x, Some(residual))
    }

    fn run(&self, x: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        if self.adapters.are_idle(self.weight.id) {
            return ops::conv2d(x, weight, bias, residual, self.geometry);
        }
        let layer = Adapted {
            id: self.weight.id,
            weight,
            geometry: self.geometry,
        };
        if let Some(y) = self.adapters.whole(&layer, &x, bias.clone(), residual.clone()) {
            return y;
        }
        let y = ops::conv2d(x.clone(), layer.weight.clone(), bias, residual, self.geometry);
        self.adapters.add(&layer, &x, y)
    }

    /// [`Self::forward`] of `norm` and SiLU of `x`, plus `residual`, in one operation.
    pub(super) fn forward_normed(
        &self,
        norm: &GroupNorm,
        x: Tensor<4>,
        modulation: Option<(Tensor<2>, Tensor<2>)>,
        residual: Option<Tensor<4>>,
    ) -> Tensor<4> {
        if !self.adapters.are_idle(self.weight.id) {
            // They take what the convolution takes.
            return self.run(norm.modulated(x, modulation, Activation::Silu), residual);
        }
        ops::norm_conv2d(
            x,
            [norm.weight.val(), norm.bias.val()],
            modulation,
            norm.options(true),
            (self.weight.val(), self.bias.as_ref().map(Param::val)),
            residual,
            self.geometry,
        )
    }
}
