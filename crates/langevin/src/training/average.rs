//! The moving average of a model's weights.

use std::collections::VecDeque;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
};

use super::{ema::EmaSchedule, gradients::flatten};
use crate::ops;

/// A model whose weights follow another's slowly. Mirrors `diffusers.training_utils.EMAModel`.
#[derive(Debug)]
pub struct Ema<M> {
    schedule: EmaSchedule,
    step: u64,
    average: M,
}

impl<M: Module> Ema<M> {
    /// Starts from the model as it is.
    pub fn new(model: &M, schedule: EmaSchedule) -> Self {
        Self {
            schedule,
            step: 0,
            average: model.valid(),
        }
    }

    /// Takes one step towards `model`; also returns the decay it was taken with. Consumes the average to change it in place.
    pub fn update(mut self, model: &M) -> (Self, f64) {
        self.step += 1;
        let decay = self.schedule.decay(self.step);
        let mut collector = Values::default();
        model.visit(&mut collector);
        self.average = self.average.map(&mut Follow {
            values: collector.0,
            decay,
        });
        (self, decay)
    }

    /// Goes on from the average as it was after `step` updates.
    pub fn resume(&mut self, average: M, step: u64) {
        (self.average, self.step) = (average, step);
    }

    /// An average as it was after `step` updates.
    pub(super) fn restored(average: M, schedule: EmaSchedule, step: u64) -> Self {
        Self {
            schedule,
            step,
            average,
        }
    }

    /// How many updates it had.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// How the average follows.
    pub fn schedule(&self) -> EmaSchedule {
        self.schedule
    }

    /// The averaged model, outside autodiff.
    pub fn average(&self) -> &M {
        &self.average
    }
}

/// All parameters, flat, in the module's order; nothing for those that are not trained, whose average they are themselves.
#[derive(Default)]
struct Values(VecDeque<Option<Tensor<1>>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let trained = param.is_require_grad();
        self.0.push_back(trained.then(|| flatten(param.val().inner())));
    }
}

struct Follow {
    values: VecDeque<Option<Tensor<1>>>,
    decay: f64,
}

impl ModuleMapper for Follow {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(value) = self.values.pop_front().flatten() else {
            return param;
        };
        param.map(|average| {
            let shape = average.shape();
            ops::moving_average(flatten(average.inner()), value, self.decay).reshape(shape)
        })
    }
}
