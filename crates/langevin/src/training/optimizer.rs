//! AdamW over all parameters of a module.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::Tensor,
};
use serde::{Deserialize, Serialize};

use super::gradients::{Gradients, flatten};
use crate::ops::{self, AdamW, AdamWState};

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

/// AdamW (Loshchilov & Hutter 2019) with the state it keeps for every parameter.
#[derive(Debug)]
pub struct AdamWOptimizer {
    config: AdamWConfig,
    step: u64,
    moments: HashMap<ParamId, [Tensor<1>; 2]>,
}

impl AdamWOptimizer {
    /// With no steps done.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: HashMap::new(),
        }
    }

    /// Moves every parameter that has a gradient, which counts `factor` times.
    pub fn step<M: Module>(&mut self, module: M, gradients: Gradients, factor: f64, learning_rate: f64) -> M {
        self.step += 1;
        let hyper = AdamW {
            learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: self.config.weight_decay,
            step: self.step,
            gradient_factor: factor,
        };
        let gradients = gradients.into_iter_by_id().collect();
        module.map(&mut Update {
            hyper,
            gradients,
            moments: &mut self.moments,
        })
    }
}

struct Update<'a> {
    hyper: AdamW,
    gradients: HashMap<ParamId, Tensor<1>>,
    moments: &'a mut HashMap<ParamId, [Tensor<1>; 2]>,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove(&id) else {
            return param;
        };
        let [first_moment, second_moment] = self.moments.remove(&id).unwrap_or_else(|| {
            let zeros = || Tensor::zeros(gradient.shape(), &gradient.device());
            [zeros(), zeros()]
        });
        param.map(|tensor| {
            let shape = tensor.shape();
            let requires_grad = tensor.is_require_grad();
            let parameter = flatten(tensor.inner());
            let state = AdamWState {
                parameter,
                first_moment,
                second_moment,
            };
            let state = ops::adamw(state, gradient, self.hyper);
            self.moments.insert(id, [state.first_moment, state.second_moment]);
            Tensor::from_inner(state.parameter.reshape(shape)).set_require_grad(requires_grad)
        })
    }
}
