//! What moves the parameters of a module: AdamW here, a file for each other, and [`Optimizer`], whichever there is.

mod adafactor;
mod any;
mod prodigy;

pub use adafactor::{AdafactorConfig, AdafactorOptimizer};
pub use any::{Optimizer, OptimizerConfig, OptimizerKind};
pub use prodigy::{ProdigyConfig, ProdigyOptimizer};

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

use super::gradients::{Gradients, flatten};
use crate::{
    models::weights::{self, NamedTensor},
    ops::{self, AdamW, AdamWState},
};

/// AdamW's hyper-parameters but for the learning rate, with the training script's defaults. Mirrors `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the running mean of its square.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// How much of a parameter is taken away in a step of learning rate 1.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.95,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-6,
        }
    }
}

/// PyTorch's names of the two moments.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// AdamW (Loshchilov & Hutter 2019) with the state it keeps for every parameter.
#[derive(Debug)]
pub struct AdamWOptimizer {
    config: AdamWConfig,
    step: u64,
    moments: HashMap<ParamId, [Tensor<1>; 2]>,
    /// By what the learning rate is multiplied for some parameters.
    rates: HashMap<ParamId, f64>,
}

impl AdamWOptimizer {
    /// With no steps done.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: HashMap::new(),
            rates: HashMap::new(),
        }
    }

    /// The same with the learning rate multiplied by these for these parameters.
    pub(super) fn with_rates(self, rates: HashMap<ParamId, f64>) -> Self {
        Self { rates, ..self }
    }

    /// Both moments of every parameter that has moved, flat, for a checkpoint: `exp_avg.KEY` and `exp_avg_sq.KEY`.
    pub fn moments<M: Module>(&self, module: &M) -> Vec<NamedTensor> {
        let mut named = Vec::with_capacity(2 * self.moments.len());
        for (key, id) in weights::parameters(module) {
            for (moment, name) in self.moments.get(&id).into_iter().flatten().zip(MOMENTS) {
                named.push(NamedTensor::flat(format!("{name}.{key}"), moment.clone()));
            }
        }
        named
    }

    /// Takes up what [`Self::moments`] gave after `step` steps, for the same parameters in this process.
    pub fn resume<M: Module>(
        &mut self,
        module: &M,
        step: u64,
        mut stored: BTreeMap<String, NamedTensor>,
        device: &Device,
    ) {
        self.step = step;
        for (key, id) in weights::parameters(module) {
            let [first, second] = MOMENTS.map(|name| stored.remove(&format!("{name}.{key}")));
            if let (Some(first), Some(second)) = (first, second) {
                self.moments
                    .insert(id, [first.into_flat(device), second.into_flat(device)]);
            }
        }
    }

    /// Moves every parameter that has a gradient, which counts `factor` times.
    pub fn step<M: Module>(&mut self, module: M, gradients: Gradients, factor: f64, learning_rate: f64) -> M {
        let hyper = self.next_step(factor, learning_rate);
        let gradients = gradients.into_iter_by_id().collect();
        module.map(&mut Update {
            hyper,
            gradients,
            moments: &mut self.moments,
            rates: &self.rates,
        })
    }
}

impl AdamWOptimizer {
    /// Begins a step, and gives its numbers.
    pub(super) fn next_step(&mut self, factor: f64, learning_rate: f64) -> AdamW {
        self.step += 1;
        AdamW {
            learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: self.config.weight_decay,
            step: self.step,
            gradient_factor: factor,
        }
    }

    /// Moves a parameter, or the piece of one whose moments are kept here, and gives it back.
    pub(super) fn move_one(
        &mut self,
        id: ParamId,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        hyper: AdamW,
    ) -> Tensor<1> {
        let mut update = Update {
            hyper,
            gradients: HashMap::new(),
            moments: &mut self.moments,
            rates: &self.rates,
        };
        update.one(id, parameter, gradient)
    }

    /// Both moments of a parameter, or of the piece of it that is kept here.
    pub(super) fn moments_of(&mut self, id: ParamId) -> Option<&mut [Tensor<1>; 2]> {
        self.moments.get_mut(&id)
    }

    /// Keeps other moments, in place of all.
    pub(super) fn set_moments(&mut self, moments: HashMap<ParamId, [Tensor<1>; 2]>) {
        self.moments = moments;
    }
}

struct Update<'a> {
    hyper: AdamW,
    gradients: HashMap<ParamId, Tensor<1>>,
    moments: &'a mut HashMap<ParamId, [Tensor<1>; 2]>,
    rates: &'a HashMap<ParamId, f64>,
}

impl Update<'_> {
    fn one(&mut self, id: ParamId, parameter: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
        let [first_moment, second_moment] = self.moments.remove(&id).unwrap_or_else(|| {
            let zeros = || Tensor::zeros(gradient.shape(), &gradient.device());
            [zeros(), zeros()]
        });
        let hyper = AdamW {
            learning_rate: self.hyper.learning_rate * self.rates.get(&id).copied().unwrap_or(1.0),
            ..self.hyper
        };
        let state = AdamWState {
            parameter,
            first_moment,
            second_moment,
        };
        let state = ops::adamw(state, gradient, hyper);
        self.moments.insert(id, [state.first_moment, state.second_moment]);
        state.parameter
    }
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove(&id) else {
            return param;
        };
        param.map(|tensor| {
            let shape = tensor.shape();
            let requires_grad = tensor.is_require_grad();
            let moved = self.one(id, flatten(tensor.inner()), gradient);
            Tensor::from_inner(moved.reshape(shape)).set_require_grad(requires_grad)
        })
    }
}

#[cfg(test)]
mod tests;
