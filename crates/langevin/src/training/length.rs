//! How long a run is, and how its learning rate changes meanwhile.

use super::{
    TrainingConfig,
    lr_schedule::{LrSchedule, LrScheduleOptions},
    optimizer::{AdafactorConfig, AdamWConfig, OptimizerConfig, OptimizerKind, ProdigyConfig},
    slots::Plan,
};
use crate::Result;

impl TrainingConfig {
    /// What moves the parameters, but for the learning rate.
    pub(super) fn optimizer(&self) -> OptimizerConfig {
        let (beta1, beta2) = (self.adam_beta1, self.adam_beta2);
        let (eps, weight_decay) = (self.adam_epsilon, self.adam_weight_decay);
        match self.optimizer {
            OptimizerKind::AdamW => OptimizerConfig::AdamW(AdamWConfig {
                beta1,
                beta2,
                eps,
                weight_decay,
            }),
            OptimizerKind::Prodigy => OptimizerConfig::Prodigy(ProdigyConfig {
                beta1,
                beta2,
                beta3: self.prodigy_beta3,
                eps,
                weight_decay,
                decouple: self.prodigy_decouple,
                use_bias_correction: self.prodigy_use_bias_correction,
                safeguard_warmup: self.prodigy_safeguard_warmup,
                d_coef: self.prodigy_d_coef,
            }),
            OptimizerKind::Adafactor => OptimizerConfig::Adafactor(AdafactorConfig {
                weight_decay,
                ..AdafactorConfig::default()
            }),
        }
    }

    /// The learning-rate schedule of a run of so many optimiser steps, with so many to an epoch.
    ///
    /// # Errors
    /// If its rules are malformed.
    pub fn lr_schedule(&self, steps: usize, steps_per_epoch: usize) -> Result<LrSchedule> {
        let options = LrScheduleOptions {
            num_warmup_steps: self.lr_warmup_steps,
            num_training_steps: steps,
            num_cycles: self.lr_num_cycles,
            power: self.lr_power,
            step_rules: self.lr_step_rules.clone(),
            gamma: self.lr_gamma,
            steps_per_epoch,
            learning_rate: self.learning_rate,
        };
        LrSchedule::new(self.lr_scheduler, &options)
    }

    /// Optimiser steps in one pass over `pictures` pictures; a last, smaller batch counts.
    pub fn steps_per_epoch(&self, pictures: usize) -> usize {
        self.steps_of(pictures.div_ceil(self.train_batch_size))
    }

    /// Optimiser steps in so many batches of an epoch, the last ones of which may be incomplete.
    pub(super) fn steps_of(&self, batches: usize) -> usize {
        batches
            .div_ceil(self.num_slots)
            .div_ceil(self.gradient_accumulation_steps)
    }

    /// Pictures of an optimiser step that is not the last of an epoch.
    pub fn pictures_per_step(&self) -> usize {
        self.train_batch_size * self.num_slots * self.gradient_accumulation_steps
    }

    /// Which batches are whose, where they have so many pictures.
    pub(super) fn plan(&self, pictures: &[usize]) -> Plan {
        Plan::new(pictures, self.num_slots, self.gradient_accumulation_steps)
    }

    /// Optimiser steps in the whole run over a data set of `pictures` pictures.
    pub fn total_steps(&self, pictures: usize) -> usize {
        self.total_steps_of(pictures.div_ceil(self.train_batch_size))
    }

    /// Optimiser steps in the whole run, with so many batches to an epoch.
    pub(super) fn total_steps_of(&self, batches: usize) -> usize {
        self.max_train_steps
            .unwrap_or(self.num_epochs * self.steps_of(batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_smaller_batch_counts_as_a_step() {
        let config = TrainingConfig {
            train_batch_size: 64,
            num_epochs: 3,
            ..TrainingConfig::script()
        };
        assert_eq!(config.steps_per_epoch(1000), 16);
        assert_eq!(config.total_steps(1000), 48);
        let accumulating = TrainingConfig {
            gradient_accumulation_steps: 3,
            ..config
        };
        assert_eq!(accumulating.steps_per_epoch(1000), 6);
        assert_eq!(
            TrainingConfig {
                max_train_steps: Some(5),
                ..accumulating
            }
            .total_steps(1000),
            5
        );
    }
}
