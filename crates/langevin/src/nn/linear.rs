//! The linear layer.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{Adapters, Init};
use crate::ops;

/// `x · weight + bias` over the last dimension. Mirrors `torch.nn.Linear`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`; `[out, in]` in a checkpoint.
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// What is put on it.
    pub adapters: Adapters,
}

impl Linear {
    /// A new layer with bias.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init<'_>) -> Self {
        let weight = init.uniform([outputs, inputs], inputs).transpose();
        let bias = init.uniform([outputs], inputs);
        Self {
            weight: init.parameter(weight),
            bias: Some(Param::from_tensor(bias)),
            adapters: Adapters::default(),
        }
    }

    /// A new layer without bias.
    pub fn without_bias(inputs: usize, outputs: usize, init: &mut Init<'_>) -> Self {
        let weight = init.uniform([outputs, inputs], inputs).transpose();
        Self {
            weight: init.parameter(weight),
            bias: None,
            adapters: Adapters::default(),
        }
    }

    /// # Shapes
    /// `[..., in]` → `[..., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.run(x, None)
    }

    /// [`Self::forward`] plus `residual`, in one pass.
    pub fn forward_add<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        self.run(x, Some(residual))
    }

    fn run<const D: usize>(&self, x: Tensor<D>, residual: Option<Tensor<D>>) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        if self.adapters.are_idle(self.weight.id) {
            return ops::linear(x, weight, bias, residual);
        }
        self.adapters.add_linear(&self.weight, x, bias, residual)
    }
}
