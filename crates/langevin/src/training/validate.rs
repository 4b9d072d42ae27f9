//! Which training configurations make sense.

use super::{ConditioningKind, LrSchedulerType, MixedPrecision, ModelSource, TrainingConfig};
use crate::{Error, Result, conditioning, error::require, models::ModelPreset};

impl TrainingConfig {
    /// Checks every value, alone and against the others, without looking at the data or the model's file.
    ///
    /// # Errors
    /// If a value makes no sense, with the field's name and what would be right.
    pub fn validate(&self) -> Result<()> {
        self.dataset()?;
        self.check_sizes()?;
        self.check_precision()?;
        self.check_optimiser()?;
        self.check_noise()?;
        self.check_model()
    }

    fn check_sizes(&self) -> Result<()> {
        for (name, value) in [
            ("resolution", self.resolution),
            ("train_batch_size", self.train_batch_size),
            ("eval_batch_size", self.eval_batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("ddpm_num_steps", self.ddpm_num_steps),
            ("ddpm_num_inference_steps", self.ddpm_num_inference_steps),
        ] {
            require(value > 0, || format!("`{name}` is 0; it must be at least 1"))?;
        }
        require(self.checkpoints_total_limit != Some(0), || {
            "`checkpoints_total_limit` is 0; it must be at least 1, and `checkpointing_steps` 0 writes none"
                .into()
        })?;
        require(self.num_epochs > 0 || self.max_train_steps.is_some(), || {
            "`num_epochs` is 0; it must be at least 1 where `max_train_steps` does not say how long to train"
                .into()
        })?;
        require(self.max_train_steps != Some(0), || {
            "`max_train_steps` is 0; it must be at least 1".into()
        })
    }

    fn check_precision(&self) -> Result<()> {
        require(self.mixed_precision != MixedPrecision::Fp16, || {
            "`mixed_precision` is `fp16`, whose gradients vanish without a scaled loss and which no CPU computes faster; `bf16` \
             has float32's range and halves what is kept for the backward, and `no` is float32"
                .into()
        })
    }

    fn check_optimiser(&self) -> Result<()> {
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("adam_epsilon", self.adam_epsilon),
            ("max_grad_norm", self.max_grad_norm),
            ("lr_power", self.lr_power),
            ("lr_gamma", self.lr_gamma),
        ] {
            require(value.is_finite() && value > 0.0, || {
                format!("`{name}` is {value}; it must be a positive number")
            })?;
        }
        for (name, value) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
            require((0.0..1.0).contains(&value), || {
                format!("`{name}` is {value}; it must be at least 0 and less than 1")
            })?;
        }
        require(
            self.adam_weight_decay.is_finite() && self.adam_weight_decay >= 0.0,
            || {
                format!(
                    "`adam_weight_decay` is {}; it must be 0 or more",
                    self.adam_weight_decay
                )
            },
        )?;
        match (self.lr_scheduler, &self.lr_step_rules) {
            (LrSchedulerType::PiecewiseConstant, None) => Err(Error::Config(
                "`lr_scheduler` is `piecewise_constant`, which needs `lr_step_rules`, such as `1:10,0.1:20,0.01`".into(),
            )),
            (LrSchedulerType::PiecewiseConstant, Some(_)) | (_, None) => Ok(()),
            (other, Some(_)) => Err(Error::Config(format!(
                "`lr_step_rules` belongs to the `piecewise_constant` schedule, and `lr_scheduler` is `{other}`"
            ))),
        }?;
        let waves = matches!(
            self.lr_scheduler,
            LrSchedulerType::Cosine | LrSchedulerType::CosineWithRestarts
        );
        require(waves || self.lr_num_cycles.is_none(), || {
            format!(
                "`lr_num_cycles` belongs to the cosine schedules, and `lr_scheduler` is `{}`",
                self.lr_scheduler
            )
        })?;
        require(
            self.lr_num_cycles
                .is_none_or(|cycles| cycles.is_finite() && cycles > 0.0),
            || "`lr_num_cycles` must be a positive number".into(),
        )?;
        if !self.use_ema {
            return Ok(());
        }
        require((0.0..=1.0).contains(&self.ema_max_decay), || {
            format!(
                "`ema_max_decay` is {}; it must be between 0 and 1",
                self.ema_max_decay
            )
        })?;
        for (name, value) in [
            ("ema_inv_gamma", self.ema_inv_gamma),
            ("ema_power", self.ema_power),
        ] {
            require(value.is_finite() && value > 0.0, || {
                format!("`{name}` is {value}; it must be a positive number")
            })?;
        }
        Ok(())
    }

    fn check_model(&self) -> Result<()> {
        conditioning::check_run(self)?;
        let ModelSource::Preset(preset) = self.model else {
            return Ok(());
        };
        require(
            preset != ModelPreset::BasicUnet || self.conditioning == ConditioningKind::None,
            || format!("the model `{preset}` has no input for a class; `conditioning` must be `none`"),
        )?;
        require(
            preset != ModelPreset::BasicUnet || !self.gradient_checkpointing,
            || {
                format!(
                    "the model `{preset}` has no blocks that keep only their inputs; leave `gradient_checkpointing` out"
                )
            },
        )?;
        require(
            preset != ModelPreset::BasicUnet || self.conditioning_image.is_none(),
            || {
                format!(
                    "the model `{preset}` is shown nothing beside its picture; leave `conditioning_image` out"
                )
            },
        )?;
        require(
            preset != ModelPreset::BasicUnet || self.resolution.is_multiple_of(4),
            || {
                format!(
                    "the model `basic-unet` halves pictures twice; `resolution` {} is not a multiple of 4",
                    self.resolution
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::{LossWeighting, ObjectiveKind, PredictionType};

    #[test]
    fn the_defaults_make_sense() {
        TrainingConfig::digits().validate().unwrap();
        TrainingConfig {
            dataset_name: Some("digits".into()),
            ..TrainingConfig::script()
        }
        .validate()
        .unwrap();
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        type Change = fn(&mut TrainingConfig);
        let refused = |change: Change| {
            let mut config = TrainingConfig::digits();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        let cases: [(Change, &str); 26] = [
            (|c| c.mixed_precision = MixedPrecision::Fp16, "bf16"),
            (|c| c.noise_offset = -0.1, "noise_offset"),
            (|c| c.snr_gamma = Some(5.0), "min-snr"),
            (
                |c| (c.loss_weighting, c.snr_gamma) = (LossWeighting::MinSnr, Some(0.0)),
                "snr_gamma",
            ),
            (
                |c| (c.prediction_type, c.rescale_betas_zero_snr) = (PredictionType::Epsilon, true),
                "v_prediction or sample",
            ),
            (|c| c.objective = ObjectiveKind::Flow, "objective ddpm"),
            (|c| c.edm_p_mean = -1.0, "objective edm"),
            (|c| c.logit_std = 2.0, "objective flow"),
            (|c| c.lr_gamma = 0.0, "lr_gamma"),
            (|c| c.checkpoints_total_limit = Some(0), "checkpoints_total_limit"),
            (|c| c.resolution = 0, "resolution"),
            (|c| c.train_batch_size = 0, "train_batch_size"),
            (|c| c.num_epochs = 0, "num_epochs"),
            (|c| c.max_train_steps = Some(0), "max_train_steps"),
            (|c| c.learning_rate = f64::NAN, "learning_rate"),
            (|c| c.learning_rate = -1e-4, "learning_rate"),
            (|c| c.adam_beta1 = 1.0, "adam_beta1"),
            (|c| c.adam_weight_decay = -1.0, "adam_weight_decay"),
            (|c| c.ema_max_decay = 1.5, "ema_max_decay"),
            (|c| c.ddpm_num_inference_steps = 1001, "ddpm_num_inference_steps"),
            (|c| c.class_dropout = Some(1.1), "class_dropout"),
            (
                |c| (c.conditioning, c.class_dropout) = (ConditioningKind::None, Some(0.1)),
                "class_dropout",
            ),
            (|c| c.model = ModelPreset::BasicUnet.into(), "basic-unet"),
            (
                |c| c.lr_scheduler = LrSchedulerType::PiecewiseConstant,
                "lr_step_rules",
            ),
            (|c| c.lr_step_rules = Some("1:10,0.1".into()), "lr_step_rules"),
            (
                |c| (c.lr_scheduler, c.lr_num_cycles) = (LrSchedulerType::Linear, Some(2.0)),
                "lr_num_cycles",
            ),
        ];
        for (change, field) in cases {
            let message = refused(change);
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn settings_of_an_average_that_is_not_kept_do_not_matter() {
        TrainingConfig {
            use_ema: false,
            ema_max_decay: 7.0,
            ..TrainingConfig::digits()
        }
        .validate()
        .unwrap();
    }
}
