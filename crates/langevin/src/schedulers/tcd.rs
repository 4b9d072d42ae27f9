//! TCD: strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024). Mirrors
//! `diffusers.TCDScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, ConfigMap, LoopOptions, NoiseSchedule, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    TimestepSpacing,
    config::{self, scheduler_config},
    distilled::{self, Distilled},
    noise_schedule::{self, noise_schedule_of},
    position,
    prediction::{predicted_clean, predicted_noise, ratio},
    same_shape,
};
use crate::{Error, Result, objectives::PredictionType};

/// γ of a step that is given no η, as in diffusers.
const DEFAULT_GAMMA: f64 = 0.3;

scheduler_config! {
    /// The configuration of a [`TCDScheduler`], with diffusers' names and defaults.
    pub struct TCDConfig: "TCDScheduler" {
        /// How many timesteps the model was trained with.
        num_train_timesteps: usize = 1000,
        /// The first β.
        beta_start: f64 = 0.00085,
        /// The last β.
        beta_end: f64 = 0.012,
        /// How β goes from the first to the last.
        beta_schedule: BetaSchedule = BetaSchedule::ScaledLinear,
        /// Every β, in place of the three above.
        trained_betas: Option<Vec<f64>> = None,
        /// How many timesteps the model was distilled on: a loop visits some of these.
        original_inference_steps: usize = 50,
        /// Kept for other classes: diffusers' TCD does not clip.
        clip_sample: bool = false,
        /// Kept for other classes, as `clip_sample` is.
        clip_sample_range: f64 = 1.0,
        /// Kept for other classes: no step of this one leads beyond timestep 0.
        set_alpha_to_one: bool = true,
        /// Kept for other classes: the timesteps are those that the model was distilled on.
        steps_offset: usize = 0,
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::Epsilon,
        /// Kept for other classes: diffusers' TCD does not threshold.
        thresholding: bool = false,
        /// Kept for other classes, as `thresholding` is.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// Kept for other classes, as `thresholding` is.
        sample_max_value: f64 = 1.0,
        /// Kept for other classes: the timesteps are those that the model was distilled on.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Leading,
        /// Kept for LCM's boundary condition, which TCD does without.
        timestep_scaling: f64 = 10.0,
        /// Whether the schedule is moved to end without any signal.
        rescale_betas_zero_snr: bool = false,
    }
}

/// Strategic stochastic sampling: each step denoises along the trajectory to a timestep s below the next one, and adds
/// fresh noise to come back up to it. [`StepOptions::eta`] is the paper's γ: 0 goes to the next timestep at once, without
/// noise, and 1 goes all the way to a clean sample first, as consistency sampling does.
#[derive(Clone, Debug)]
pub struct TCDScheduler {
    config: TCDConfig,
    noise: NoiseSchedule,
    timesteps: Vec<f64>,
}

impl TCDScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: TCDConfig) -> Result<Self> {
        let noise = noise_schedule_of!(config)?;
        distilled::check_original_steps(config.original_inference_steps, config.num_train_timesteps)?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            timesteps,
        })
    }

    /// A scheduler that shares what it can with another class's config.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_config(other: &ConfigMap) -> Result<Self> {
        Self::new(config::convert(other)?)
    }

    /// The configuration that this was built from.
    pub fn config(&self) -> &TCDConfig {
        &self.config
    }
}

impl Scheduler for TCDScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.timesteps = Distilled {
            class_name: TCDConfig::CLASS_NAME,
            train: self.num_train_timesteps(),
            original_steps: self.config.original_inference_steps,
            walks_over_all: true,
        }
        .timesteps(options)?;
        Ok(())
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let gamma = options.eta.unwrap_or(DEFAULT_GAMMA);
        if !(0.0..=1.0).contains(&gamma) {
            return Err(Error::Config(format!(
                "eta is {gamma}, but TCDScheduler's is between 0 and 1"
            )));
        }
        let alphas_cumprod = self.noise.alphas_cumprod();
        let alpha_prod = alphas_cumprod[self.noise.index(t)?];
        let next = self.timesteps.get(position::index_of(&self.timesteps, t)? + 1);
        let next = next.map(|&t| t as usize);

        // s = ⌊(1 - γ) t_next⌋, in float32 as PyTorch multiplies.
        let s = ((1.0 - gamma) as f32 * next.unwrap_or(0) as f32).floor() as usize;
        let alpha_prod_s = alphas_cumprod[s];

        // x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s) ε̂ (Zheng et al. 2024, eq. 13)
        let kind = self.config.prediction_type;
        let clean = predicted_clean(kind, &prediction, &x, alpha_prod, false);
        let noise = predicted_noise(kind, prediction, &x, &clean, alpha_prod);
        let denoised = clean.clone() * alpha_prod_s.sqrt() + noise * (1.0 - alpha_prod_s).sqrt();

        // x_next = √(ᾱ_next / ᾱ_s) x_s + √(1 - ᾱ_next / ᾱ_s) ε (algorithm 4)
        let previous = match next {
            Some(next) if gamma > 0.0 => {
                let kept = ratio(alphas_cumprod[next], alpha_prod_s);
                let fresh = options.draw_noise(TCDConfig::CLASS_NAME, &denoised)?;
                denoised * kept.sqrt() + fresh * (1.0 - kept).max(0.0).sqrt()
            }
            _ => denoised,
        };
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        noise_schedule::add_noise(self.alphas_cumprod(), x0, noise, timesteps)
    }

    fn num_train_timesteps(&self) -> usize {
        self.noise.num_train_timesteps()
    }

    fn alphas_cumprod(&self) -> &[f32] {
        self.noise.alphas_cumprod()
    }
}
