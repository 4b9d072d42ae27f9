//! The gradients of a whole model: gathered from a backward, added up, measured, scaled.

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ParamId},
    tensor::{self, Device, Tensor},
};

use crate::{
    models::weights::{self, NamedTensor},
    nn::checkpoint::{Collected, parameter_gradients},
    ops,
};

/// One flat gradient for each parameter that has one, in the module's order.
#[derive(Clone, Debug, Default)]
pub struct Gradients(Vec<(ParamId, Tensor<1>)>);

impl Gradients {
    /// Takes the gradients of `module`'s parameters out of a backward's result.
    pub fn gather<M: Module>(module: &M, backward: &mut tensor::Gradients) -> Self {
        Self(parameter_gradients(module, backward))
    }

    /// Takes them out of a backward's result and of what checkpointed blocks left beside it.
    pub(super) fn gather_checkpointed<M: Module>(
        module: &M,
        backward: &mut tensor::Gradients,
        mut collected: Collected,
    ) -> Self {
        collected.extend(parameter_gradients(module, backward));
        let parameters = weights::parameters(module).into_iter();
        Self(
            parameters
                .filter_map(|(_, id)| Some((id, collected.remove(&id)?)))
                .collect(),
        )
    }

    /// Adds another batch's gradients of the same module.
    pub fn plus(self, other: Self) -> Self {
        if self.0.is_empty() {
            return other;
        }
        let sums = self.0.into_iter().zip(other.0);
        Self(sums.map(|((id, a), (_, b))| (id, a + b)).collect())
    }

    /// All of them times `factor`.
    pub fn scale(self, factor: f64) -> Self {
        Self(
            self.0
                .into_iter()
                .map(|(id, gradient)| (id, gradient * factor))
                .collect(),
        )
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        let sums = self.0.iter().map(|(_, g)| ops::sum_of_squares(g.clone()));
        sums.map(|sum| f64::from(sum.into_scalar::<f32>()))
            .sum::<f64>()
            .sqrt()
    }

    /// What scales them down to `max_norm` where they are longer, as `torch.nn.utils.clip_grad_norm_` does it, and their norm.
    pub fn clipping(&self, max_norm: f64) -> (f64, f64) {
        let norm = self.norm();
        ((max_norm / (norm + 1e-6)).min(1.0), norm)
    }

    /// Each with the key of its parameter in `module`, flat, for a checkpoint.
    pub fn named<M: Module>(&self, module: &M) -> Vec<NamedTensor> {
        let names = by_id(module);
        let named = self.0.iter().filter_map(|(id, gradient)| {
            let name = names.get(id)?.clone();
            Some(NamedTensor::flat(name, gradient.clone()))
        });
        named.collect()
    }

    /// Those that [`Self::named`] gave, for the same parameters in this process.
    pub fn restored<M: Module>(
        module: &M,
        mut stored: BTreeMap<String, NamedTensor>,
        device: &Device,
    ) -> Self {
        let gradients = weights::parameters(module).into_iter().filter_map(|(name, id)| {
            let stored = stored.remove(&name)?;
            Some((id, stored.into_flat(device)))
        });
        Self(gradients.collect())
    }

    /// One after another, in the module's order.
    pub fn into_iter_by_id(self) -> impl Iterator<Item = (ParamId, Tensor<1>)> {
        self.0.into_iter()
    }
}

/// All elements in a row.
pub(super) fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}

/// The keys of a module's parameters by their identity in this process.
pub(super) fn by_id<M: Module>(module: &M) -> HashMap<ParamId, String> {
    let parameters = weights::parameters(module).into_iter();
    parameters.map(|(name, id)| (id, name)).collect()
}
