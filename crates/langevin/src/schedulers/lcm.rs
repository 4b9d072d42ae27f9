//! LCM: consistency sampling in a few steps (Luo et al. 2023). Mirrors `diffusers.LCMScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, ConfigMap, LoopOptions, NoiseSchedule, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    TimestepSpacing,
    config::{self, scheduler_config},
    distilled::{self, Distilled},
    noise_schedule::{self, noise_schedule_of},
    position,
    prediction::{Bounds, predicted_clean},
    same_shape,
};
use crate::{Error, Result, objectives::PredictionType};

/// The standard deviation that the boundary condition takes the data to have.
const SIGMA_DATA: f32 = 0.5;

scheduler_config! {
    /// The configuration of an [`LCMScheduler`], with diffusers' names and defaults.
    pub struct LCMConfig: "LCMScheduler" {
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
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = false,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        /// Kept for other classes: no step of this one leads beyond timestep 0.
        set_alpha_to_one: bool = true,
        /// Kept for other classes: the timesteps are those that the model was distilled on.
        steps_offset: usize = 0,
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::Epsilon,
        /// Whether to threshold the predicted clean sample dynamically, in place of clipping it.
        thresholding: bool = false,
        /// The quantile that dynamic thresholding looks at.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// The largest threshold of dynamic thresholding.
        sample_max_value: f64 = 1.0,
        /// Kept for other classes: the timesteps are those that the model was distilled on.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Leading,
        /// What the timestep is multiplied with in the boundary condition; more makes the consistency function rely on
        /// the model earlier.
        timestep_scaling: f64 = 10.0,
        /// Whether the schedule is moved to end without any signal.
        rescale_betas_zero_snr: bool = false,
    }
}

/// Multistep consistency sampling: the model's consistency function jumps to a clean sample, which is noised again to the
/// level of the next timestep.
#[derive(Clone, Debug)]
pub struct LCMScheduler {
    config: LCMConfig,
    noise: NoiseSchedule,
    bounds: Bounds,
    timesteps: Vec<f64>,
}

impl LCMScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: LCMConfig) -> Result<Self> {
        let bounds = Bounds {
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            thresholding: config.thresholding,
            dynamic_thresholding_ratio: config.dynamic_thresholding_ratio,
            sample_max_value: config.sample_max_value,
        };
        bounds.check()?;
        if !config.timestep_scaling.is_finite() {
            return Err(Error::Config(format!(
                "timestep_scaling is {}, but it must be a number",
                config.timestep_scaling
            )));
        }
        let noise = noise_schedule_of!(config)?;
        distilled::check_original_steps(config.original_inference_steps, config.num_train_timesteps)?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
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
    pub fn config(&self) -> &LCMConfig {
        &self.config
    }

    /// c_skip(t) and c_out(t), which make the consistency function the identity at t = 0 (Luo et al. 2023, eq. 9).
    fn boundary(&self, t: f64) -> (f32, f32) {
        let scaled = t as f32 * self.config.timestep_scaling as f32;
        let square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        (SIGMA_DATA * SIGMA_DATA / square, scaled / square.sqrt())
    }
}

impl Scheduler for LCMScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.timesteps = Distilled {
            class_name: LCMConfig::CLASS_NAME,
            train: self.num_train_timesteps(),
            original_steps: self.config.original_inference_steps,
            walks_over_all: false,
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
        let alphas_cumprod = self.noise.alphas_cumprod();
        let alpha_prod = alphas_cumprod[self.noise.index(t)?];
        let next = self.timesteps.get(position::index_of(&self.timesteps, t)? + 1);

        let kind = self.config.prediction_type;
        let clean = predicted_clean(kind, &prediction, &x, alpha_prod, self.bounds.are_set());
        let clean = self.bounds.apply(clean);

        // f(x_t, t) = c_skip(t) x_t + c_out(t) x̂_0 (Luo et al. 2023, eq. 9)
        let (c_skip, c_out) = self.boundary(t);
        let denoised = clean * c_out + x * c_skip;

        // x_s = √ᾱ_s f(x_t, t) + √(1 - ᾱ_s) ε (algorithm 3)
        let previous = match next {
            Some(&s) => {
                let alpha_prod_next = alphas_cumprod[self.noise.index(s)?];
                let noise = options.draw_noise(LCMConfig::CLASS_NAME, &denoised)?;
                denoised.clone() * alpha_prod_next.sqrt() + noise * (1.0 - alpha_prod_next).sqrt()
            }
            None => denoised.clone(),
        };
        Ok(StepOutput {
            previous,
            predicted_clean: denoised,
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
