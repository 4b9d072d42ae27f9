//! What a configuration says of noise: the scheduler that its pipeline samples with, and what its model learns.

use serde_json::Value;

use super::{TraineeKind, TrainingConfig, pretrained};
use crate::{
    Error, Result,
    named::Named,
    objectives::{
        DdpmObjective, EdmObjective, FlowObjective, LossWeighting, NoiseOptions, Objective, ObjectiveKind,
        PredictionType, TimestepBias, Weighting,
    },
    schedulers::{
        AnyScheduler, DDPMConfig, DDPMScheduler, EDMEulerConfig, EDMEulerScheduler,
        FlowMatchEulerDiscreteConfig, FlowMatchEulerDiscreteScheduler, TimestepSpacing,
    },
};

/// The options of timesteps that are drawn more often, which its sentences name.
const BIAS: &[&str] = &[
    "timestep_bias_strategy",
    "timestep_bias_multiplier",
    "timestep_bias_begin",
    "timestep_bias_end",
    "timestep_bias_portion",
];
/// The same of DREAM.
const DREAM: &[&str] = &["dream_training", "dream_detail_preservation"];

impl TrainingConfig {
    /// The scheduler of the run's pipeline: that of the pretrained one, or a new one for what the model learns.
    ///
    /// # Errors
    /// If a value makes no sense, or the pretrained pipeline's cannot be read.
    pub fn scheduler(&self) -> Result<AnyScheduler> {
        let own = self
            .pretrained
            .as_ref()
            .filter(|_| self.trainee != TraineeKind::Codec);
        if let Some(folder) = own {
            let own = pretrained::scheduler(folder)?;
            if self.latent_base()?.is_none() {
                return Ok(own);
            }
            // What a model predicts may be another thing from now on.
            let predicts = Value::from(self.prediction_type.name());
            return own.insisting(&[("prediction_type", predicts)]);
        }
        Ok(match self.objective {
            ObjectiveKind::Ddpm => DDPMScheduler::new(self.noise_schedule())?.into(),
            ObjectiveKind::Edm => EDMEulerScheduler::new(EDMEulerConfig {
                sigma_data: self.edm_sigma_data,
                num_train_timesteps: self.ddpm_num_steps,
                ..EDMEulerConfig::default()
            })?
            .into(),
            ObjectiveKind::Flow => FlowMatchEulerDiscreteScheduler::new(FlowMatchEulerDiscreteConfig {
                num_train_timesteps: self.ddpm_num_steps,
                ..FlowMatchEulerDiscreteConfig::default()
            })?
            .into(),
        })
    }

    /// The table of noise levels of a run on timesteps.
    pub fn noise_schedule(&self) -> DDPMConfig {
        DDPMConfig {
            num_train_timesteps: self.ddpm_num_steps,
            beta_schedule: self.ddpm_beta_schedule,
            prediction_type: self.prediction_type,
            rescale_betas_zero_snr: self.rescale_betas_zero_snr,
            // Latents have no bounds.
            clip_sample: !self.draws_latents(),
            // A schedule that ends without signal is sampled from its very end (Lin et al. 2023, section 3.3).
            timestep_spacing: if self.rescale_betas_zero_snr {
                TimestepSpacing::Trailing
            } else {
                TimestepSpacing::default()
            },
            ..DDPMConfig::default()
        }
    }

    /// What the model learns, on the noise of `scheduler`.
    ///
    /// # Errors
    /// If they do not go together.
    pub fn objective(&self, scheduler: &AnyScheduler) -> Result<Box<dyn Objective>> {
        Ok(match self.objective {
            ObjectiveKind::Ddpm => {
                let plain = DdpmObjective::new(scheduler, self.prediction_type, self.weighting())?;
                let biased = plain.with_bias(&self.timestep_bias())?;
                Box::new(match self.dream_training {
                    true => biased.with_dream(self.dream_detail_preservation)?,
                    false => biased,
                })
            }
            ObjectiveKind::Edm => Box::new(EdmObjective {
                p_mean: self.edm_p_mean,
                p_std: self.edm_p_std,
                sigma_data: self.edm_sigma_data,
            }),
            ObjectiveKind::Flow => Box::new(FlowObjective {
                logit_mean: self.logit_mean,
                logit_std: self.logit_std,
                num_train_timesteps: self.ddpm_num_steps,
            }),
        })
    }

    /// How the loss is weighted over the timesteps.
    pub fn weighting(&self) -> Weighting {
        Weighting {
            rule: self.loss_weighting,
            gamma: self.snr_gamma,
        }
    }

    /// How often timesteps are drawn.
    pub fn timestep_bias(&self) -> TimestepBias {
        TimestepBias {
            strategy: self.timestep_bias_strategy,
            multiplier: self.timestep_bias_multiplier,
            begin: self.timestep_bias_begin,
            end: self.timestep_bias_end,
            portion: self.timestep_bias_portion,
        }
    }

    /// What is done to plain noise.
    pub fn noise_options(&self) -> NoiseOptions {
        NoiseOptions {
            offset: self.noise_offset,
            input_perturbation: self.input_perturbation,
        }
    }

    /// Checks what is said of noise, value by value and against each other.
    pub(super) fn check_noise(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Config(message));
        if self.objective != ObjectiveKind::Edm && self.ddpm_num_inference_steps > self.ddpm_num_steps {
            return refuse(format!(
                "`ddpm_num_inference_steps` is {} and `ddpm_num_steps` is {}; a sample cannot have more steps than the \
                 noise schedule",
                self.ddpm_num_inference_steps, self.ddpm_num_steps
            ));
        }
        for (name, value) in [
            ("noise_offset", self.noise_offset),
            ("input_perturbation", self.input_perturbation),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(format!("`{name}` is {value}; it must be 0 or more"));
            }
        }
        for (name, value) in [
            ("edm_p_std", self.edm_p_std),
            ("edm_sigma_data", self.edm_sigma_data),
            ("logit_std", self.logit_std),
            ("snr_gamma", self.snr_gamma.unwrap_or(1.0)),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(format!("`{name}` is {value}; it must be a positive number"));
            }
        }
        for (name, value) in [("edm_p_mean", self.edm_p_mean), ("logit_mean", self.logit_mean)] {
            if !value.is_finite() {
                return refuse(format!("`{name}` is {value}; it must be a number"));
            }
        }
        let plain = TimestepBias::default();
        let bias = self.timestep_bias();
        if bias.strategy == plain.strategy && bias != plain {
            return Err(Error::option(
                BIAS,
                "`timestep_bias_multiplier`, `timestep_bias_begin`, `timestep_bias_end` and `timestep_bias_portion` belong to a \
                 `timestep_bias_strategy`, and it is none",
            ));
        }
        if !self.dream_training && self.dream_detail_preservation != Self::script().dream_detail_preservation
        {
            return Err(Error::option(
                DREAM,
                "`dream_detail_preservation` belongs to `dream_training`",
            ));
        }
        let has_gamma = matches!(
            self.loss_weighting,
            LossWeighting::MinSnr | LossWeighting::SoftMinSnr
        );
        if self.snr_gamma.is_some() && !has_gamma {
            return refuse(format!(
                "`snr_gamma` belongs to the weightings min-snr and soft-min-snr, and `loss_weighting` is `{}`",
                self.loss_weighting
            ));
        }
        if self.rescale_betas_zero_snr && self.prediction_type == PredictionType::Epsilon {
            return refuse(
                "`rescale_betas_zero_snr` leaves no signal at the last timestep, where predicting noise teaches nothing: \
                 `prediction_type` must be v_prediction or sample"
                    .into(),
            );
        }
        self.check_objective()
    }

    /// Refuses what belongs to another objective.
    fn check_objective(&self) -> Result<()> {
        let default = Self::script();
        let of_tables = self.loss_weighting != default.loss_weighting
            || self.rescale_betas_zero_snr
            || self.prediction_type != default.prediction_type
            || self.timestep_bias() != default.timestep_bias()
            || self.dream_training;
        let of_edm = [self.edm_p_mean, self.edm_p_std, self.edm_sigma_data]
            != [default.edm_p_mean, default.edm_p_std, default.edm_sigma_data];
        let of_flow = [self.logit_mean, self.logit_std] != [default.logit_mean, default.logit_std];
        let wrong = [
            (
                of_tables && self.objective != ObjectiveKind::Ddpm,
                "`prediction_type`, `loss_weighting`, `rescale_betas_zero_snr`, `timestep_bias_strategy` and `dream_training` belong",
                ObjectiveKind::Ddpm,
            ),
            (
                of_edm && self.objective != ObjectiveKind::Edm,
                "`edm_p_mean`, `edm_p_std` and `edm_sigma_data` belong",
                ObjectiveKind::Edm,
            ),
            (
                of_flow && self.objective != ObjectiveKind::Flow,
                "`logit_mean` and `logit_std` belong",
                ObjectiveKind::Flow,
            ),
        ];
        match wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
            None => Ok(()),
            Some((_, what, whose)) => Err(Error::Config(format!(
                "{what} to the objective {whose}, and `objective` is `{}`",
                self.objective
            ))),
        }
    }
}
