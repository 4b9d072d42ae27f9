//! A model with all that moves it: optimiser, learning rate, clipping, average.

pub(super) mod shared;

use std::collections::{BTreeMap, HashSet};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Device, Tensor},
};

use self::shared::Shared;
use super::{
    average::Ema,
    ema::EmaSchedule,
    gradients::{Gradients, clip_factor},
    lr_schedule::LrSchedule,
    optimizer::{Optimizer, OptimizerConfig},
};
use crate::{
    Error, Result,
    models::weights::{self, NamedTensor},
};

/// A model on its way, and what every optimiser step does to it.
#[derive(Debug)]
pub struct Learner<M> {
    model: M,
    optimizer: Optimizer,
    learning_rate: f64,
    schedule: LrSchedule,
    max_grad_norm: f64,
    ema: Option<Ema<M>>,
    steps: usize,
    /// Where several processes keep moments and average together: the part that is kept here.
    shared: Option<Shared>,
}

/// What one optimiser step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The learning rate it was taken with.
    pub learning_rate: f64,
    /// The gradients' norm before clipping.
    pub grad_norm: f64,
    /// The decay of the moving average, where there is one.
    pub ema_decay: Option<f64>,
}

impl<M: Module> Learner<M> {
    /// A learner that has not done a step. `learning_rate` is the peak that `schedule` scales.
    pub fn new(
        model: M,
        optimizer: impl Into<OptimizerConfig>,
        learning_rate: f64,
        schedule: LrSchedule,
        max_grad_norm: f64,
        ema: Option<EmaSchedule>,
    ) -> Self {
        let model = model.train();
        let ema = ema.map(|schedule| Ema::new(&model, schedule));
        let optimizer = Optimizer::new(optimizer.into());
        Self {
            model,
            optimizer,
            learning_rate,
            schedule,
            max_grad_norm,
            ema,
            steps: 0,
            shared: None,
        }
    }

    /// Trains only parameters whose name `wanted` says yes to: the others have no gradients and so no moments, and stay as they
    /// are to the last bit.
    ///
    /// # Errors
    /// If it says no to all of them.
    pub fn train_only(mut self, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        struct Freeze(HashSet<ParamId>);
        impl ModuleMapper for Freeze {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                if self.0.contains(&param.id) {
                    param
                } else {
                    param.set_require_grad(false)
                }
            }
        }
        let parameters = weights::parameters(&self.model).into_iter();
        let trained: HashSet<ParamId> = parameters
            .filter(|(name, _)| wanted(name))
            .map(|(_, id)| id)
            .collect();
        if trained.is_empty() {
            let names = weights::parameter_names(&self.model);
            return Err(Error::Config(format!(
                "none of the model's parameters is to be trained; they are called {} and the like",
                names
                    .iter()
                    .step_by(names.len().div_ceil(4).max(1))
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        self.model = self.model.map(&mut Freeze(trained));
        Ok(self)
    }

    /// Moves each parameter by its own rate: so many times the learning rate, by its name.
    pub fn with_rates(mut self, factor: impl Fn(&str) -> f64) -> Self {
        let parameters = weights::parameters(&self.model).into_iter();
        let factors = parameters.map(|(name, id)| (id, factor(&name)));
        self.optimizer = self
            .optimizer
            .with_rates(factors.filter(|(_, factor)| *factor != 1.0).collect());
        self
    }

    /// How many numbers are trained.
    pub fn num_trained(&self) -> usize {
        struct Count(usize);
        impl ModuleVisitor for Count {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if param.is_require_grad() {
                    self.0 += param.val().shape().num_elements();
                }
            }
        }
        let mut count = Count(0);
        self.model.visit(&mut count);
        count.0
    }

    /// The model as it is being trained.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model as it stands, outside autodiff.
    pub fn plain(&self) -> M {
        self.model.valid()
    }

    /// The model to draw with, outside autodiff: the average where there is one.
    pub fn best(&self) -> M {
        match &self.ema {
            Some(ema) => ema.average().clone(),
            None => self.plain(),
        }
    }

    /// The optimiser and what it keeps.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The average, where there is one.
    pub fn ema(&self) -> Option<&Ema<M>> {
        self.ema.as_ref()
    }

    /// Goes on after `steps` steps, with the moments and the average as they were then. The parameters are those that
    /// this learner was made with.
    pub fn resume(
        &mut self,
        steps: usize,
        moments: BTreeMap<String, NamedTensor>,
        average: Option<M>,
        device: &Device,
    ) {
        self.steps = steps;
        self.optimizer.resume(&self.model, steps as u64, moments, device);
        if let (Some(ema), Some(average)) = (&mut self.ema, average) {
            ema.resume(average, steps as u64);
        }
    }

    /// Optimiser steps done.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// One optimiser step: clip, move the parameters, let the average follow. Where the gradients' norm is not finite, nothing
    /// moves, and the update says so by its norm. Consumes the learner to change the parameters in place.
    pub fn update(self, gradients: Gradients) -> (Self, Update) {
        let norm = gradients.norm();
        self.update_of_norm(gradients, norm)
    }

    /// The same with gradients whose norm was measured otherwise.
    pub(super) fn update_of_norm(mut self, gradients: Gradients, grad_norm: f64) -> (Self, Update) {
        let learning_rate = self.learning_rate * self.schedule.factor(self.steps);
        let factor = clip_factor(grad_norm, self.max_grad_norm);
        if !grad_norm.is_finite() {
            return (
                self,
                Update {
                    learning_rate,
                    grad_norm,
                    ema_decay: None,
                },
            );
        }
        self.model = self.optimizer.step(self.model, gradients, factor, learning_rate);
        let learning_rate = learning_rate * self.optimizer.own_rate();
        self.steps += 1;
        let mut ema_decay = None;
        self.ema = self.ema.map(|ema| {
            let (ema, decay) = ema.update(&self.model);
            ema_decay = Some(decay);
            ema
        });
        (
            self,
            Update {
                learning_rate,
                grad_norm,
                ema_decay,
            },
        )
    }
}
