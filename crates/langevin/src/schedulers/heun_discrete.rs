//! Heun's second-order method on the probability flow in σ (Karras et al. 2022, algorithm 1). Mirrors
//! `diffusers.HeunDiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, ConfigMap, GivenLoop, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    TimestepSpacing,
    config::{self, scheduler_config},
    discrete::{Discrete, Spreading, discrete_methods},
    noise_schedule::noise_options_of,
    prediction::Bounds,
    same_shape,
    sigma_loop::{SigmaLoop, clean_at, twice},
    sigmas::SigmaSpacing,
};
use crate::{Result, objectives::PredictionType};

scheduler_config! {
    /// The configuration of a [`HeunDiscreteScheduler`], with diffusers' names and defaults.
    pub struct HeunDiscreteConfig: "HeunDiscreteScheduler" {
        /// How many timesteps the model was trained with.
        num_train_timesteps: usize = 1000,
        /// The first β.
        beta_start: f64 = 0.00085,
        /// The last β.
        beta_end: f64 = 0.012,
        /// How β goes from the first to the last.
        beta_schedule: BetaSchedule = BetaSchedule::default(),
        /// Every β, in place of the three above.
        trained_betas: Option<Vec<f64>> = None,
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::default(),
        /// Whether σ is spread as by Karras et al. (2022).
        use_karras_sigmas: bool = false,
        /// Whether σ is spread evenly in its logarithm.
        use_exponential_sigmas: bool = false,
        /// Whether σ is spread by the quantiles of a beta distribution.
        use_beta_sigmas: bool = false,
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = false,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        /// How the steps of a loop are spread.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Linspace,
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
    }
}

/// Heun's method in σ: Euler's step is a trial, and the step goes along the mean of the derivatives at both of its ends.
/// Each step but the last calls the model twice.
#[derive(Clone, Debug)]
pub struct HeunDiscreteScheduler {
    config: HeunDiscreteConfig,
    discrete: Discrete,
    bounds: Bounds,
    trial: Option<Trial>,
}

/// What a step's first half leaves for the second: where it began, and the derivative there.
#[derive(Clone, Debug)]
struct Trial {
    sample: Tensor<4>,
    derivative: Tensor<4>,
}

impl HeunDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: HeunDiscreteConfig) -> Result<Self> {
        let class_name = HeunDiscreteConfig::CLASS_NAME;
        let bounds = Bounds {
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            thresholding: false,
            dynamic_thresholding_ratio: 1.0,
            sample_max_value: 1.0,
        };
        bounds.check()?;
        let discrete = Discrete::new(
            class_name,
            noise_options_of!(config, false),
            Spreading {
                timestep_spacing: config.timestep_spacing,
                steps_offset: config.steps_offset,
                sigma_spacing: SigmaSpacing::chosen(
                    class_name,
                    config.use_karras_sigmas,
                    config.use_exponential_sigmas,
                    config.use_beta_sigmas,
                )?,
                sigma_min: None,
                sigma_max: None,
            },
        )?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self {
            config,
            discrete,
            bounds,
            trial: None,
        };
        scheduler.begin(&timesteps, &sigmas);
        Ok(scheduler)
    }

    /// A scheduler that shares what it can with another class's config.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_config(other: &ConfigMap) -> Result<Self> {
        Self::new(config::convert(other)?)
    }

    /// The configuration that this was built from.
    pub fn config(&self) -> &HeunDiscreteConfig {
        &self.config
    }

    fn begin(&mut self, timesteps: &[f64], sigmas: &[f64]) {
        let timesteps = twice(timesteps).map(|&t| f64::from(t as f32)).collect();
        let sigmas = twice(sigmas).map(|&sigma| sigma as f32).chain([0.0]).collect();
        self.discrete.steps = SigmaLoop::new(timesteps, sigmas);
        self.trial = None;
    }
}

impl Scheduler for HeunDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = HeunDiscreteConfig::CLASS_NAME;
        options.only(class_name, &["timesteps"])?;
        let given: GivenLoop<'_> = options.given(class_name)?;
        let (timesteps, sigmas) = self.discrete.spread(class_name, given)?;
        self.begin(&timesteps, &sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.discrete.steps.scale_model_input(sample, t)
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let (sigma, sigma_next) = self.discrete.steps.halves(t, self.trial.is_some())?;
        let here = if self.trial.is_some() { sigma_next } else { sigma };
        let clean = clean_at(self.config.prediction_type, &prediction, &x, here);
        let clean = self.bounds.apply(clean);
        let derivative = (x.clone() - clean.clone()) / here;

        let previous = match self.trial.take() {
            // x + (σ_{i+1} - σ_i) d_i: Euler's step, which is the whole step where the next level is 0 (Karras et al. 2022,
            // algorithm 1, lines 4 and 5)
            None => {
                self.trial = Some(Trial {
                    sample: x.clone(),
                    derivative: derivative.clone(),
                });
                x + derivative * (sigma_next - sigma)
            }
            // x + (σ_{i+1} - σ_i) (d_i + d'_i) / 2 (lines 7 and 8)
            Some(first) => first.sample + (first.derivative + derivative) / 2.0 * (sigma_next - sigma),
        };
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn order(&self) -> usize {
        2
    }

    discrete_methods!();
}
