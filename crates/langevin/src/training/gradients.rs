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

/// What names of gradients beside parameters begin with, in a checkpoint.
const BESIDE: &str = "beside.";

/// One flat gradient for each parameter that has one, in the module's order.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    of: Vec<(ParamId, Tensor<1>)>,
    /// Those of tensors that are not trained and count for the norm all the same, by a number of their own.
    beside: BTreeMap<u64, Tensor<1>>,
}

/// Rows that are no parameters, whose gradients count for the norm: those of the vocabulary where new words are learned, as the script has it,
/// which asks for the gradient of the whole table and puts the other rows back.
#[derive(Clone, Debug)]
pub struct Beside {
    /// A number for each row.
    pub numbers: Vec<u64>,
    /// `[rows, dimension]`, a leaf of the graph.
    pub rows: Tensor<2>,
}

impl Gradients {
    /// Takes the gradients of `module`'s parameters out of a backward's result.
    pub fn gather<M: Module>(module: &M, backward: &mut tensor::Gradients) -> Self {
        Self {
            of: parameter_gradients(module, backward),
            beside: BTreeMap::new(),
        }
    }

    /// Takes them out of a backward's result and of what checkpointed blocks left beside it.
    pub(super) fn gather_checkpointed<M: Module>(
        module: &M,
        backward: &mut tensor::Gradients,
        mut collected: Collected,
    ) -> Self {
        collected.extend(parameter_gradients(module, backward));
        let parameters = weights::parameters(module).into_iter();
        Self {
            of: parameters
                .filter_map(|(_, id)| Some((id, collected.remove(&id)?)))
                .collect(),
            beside: BTreeMap::new(),
        }
    }

    /// Takes the gradients of rows that are no parameters out of a backward's result too.
    pub(super) fn and_beside(mut self, beside: &[Beside], backward: &mut tensor::Gradients) -> Self {
        for Beside { numbers, rows } in beside {
            let Some(gradient) = rows.grad_remove(backward) else {
                continue;
            };
            for (row, &number) in numbers.iter().enumerate() {
                let gradient = flatten(gradient.clone().narrow(0, row, 1));
                self.beside.insert(number, gradient);
            }
        }
        self
    }

    /// Adds another batch's gradients of the same module.
    pub fn plus(self, other: Self) -> Self {
        if self.of.is_empty() {
            return other;
        }
        let mut beside = self.beside;
        for (number, gradient) in other.beside {
            let sum = match beside.remove(&number) {
                Some(there) => there + gradient,
                None => gradient,
            };
            beside.insert(number, sum);
        }
        let sums = self.of.into_iter().zip(other.of);
        Self {
            of: sums.map(|((id, a), (_, b))| (id, a + b)).collect(),
            beside,
        }
    }

    /// All of them times `factor`.
    pub fn scale(self, factor: f64) -> Self {
        let scaled = |gradient: Tensor<1>| gradient * factor;
        Self {
            of: self
                .of
                .into_iter()
                .map(|(id, gradient)| (id, scaled(gradient)))
                .collect(),
            beside: self
                .beside
                .into_iter()
                .map(|(number, gradient)| (number, scaled(gradient)))
                .collect(),
        }
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        let gradients = self.of.iter().map(|(_, gradient)| gradient);
        let sums = gradients
            .chain(self.beside.values())
            .map(|g| ops::sum_of_squares(g.clone()));
        sums.map(|sum| f64::from(sum.into_scalar::<f32>()))
            .sum::<f64>()
            .sqrt()
    }

    /// Each with the identity of its parameter, in the module's order.
    pub(super) fn parts(&self) -> &[(ParamId, Tensor<1>)] {
        &self.of
    }

    /// Those of rows that are no parameters, by their numbers.
    pub(super) fn beside(&self) -> &BTreeMap<u64, Tensor<1>> {
        &self.beside
    }

    /// Each with the key of its parameter in `module`, flat, for a checkpoint.
    pub fn named<M: Module>(&self, module: &M) -> Vec<NamedTensor> {
        let names = by_id(module);
        let named = self.of.iter().filter_map(|(id, gradient)| {
            let name = names.get(id)?.clone();
            Some(NamedTensor::flat(name, gradient.clone()))
        });
        let beside = self
            .beside
            .iter()
            .map(|(number, gradient)| NamedTensor::flat(format!("{BESIDE}{number}"), gradient.clone()));
        named.chain(beside).collect()
    }

    /// Those that [`Self::named`] gave, for the same parameters in this process.
    pub fn restored<M: Module>(
        module: &M,
        mut stored: BTreeMap<String, NamedTensor>,
        device: &Device,
    ) -> Self {
        let parameters = weights::parameters(module).into_iter();
        let of = parameters.filter_map(|(name, id)| {
            let stored = stored.remove(&name)?;
            Some((id, stored.into_flat(device)))
        });
        let of = of.collect();
        let beside = stored.into_iter().filter_map(|(name, stored)| {
            let number = name.strip_prefix(BESIDE)?.parse().ok()?;
            Some((number, stored.into_flat(device)))
        });
        Self {
            of,
            beside: beside.collect(),
        }
    }

    /// One after another, in the module's order.
    pub fn into_iter_by_id(self) -> impl Iterator<Item = (ParamId, Tensor<1>)> {
        self.of.into_iter()
    }
}

/// What scales gradients of a norm down to `max_norm` where they are longer.
pub(super) fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
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
