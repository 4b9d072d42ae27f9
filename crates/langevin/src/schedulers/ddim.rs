//! DDIM: sampling without, or with as much noise as one likes (Song et al. 2021). Mirrors `diffusers.DDIMScheduler`.

use burn::tensor::Tensor;

use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput, TimestepSpacing,
    class::scheduler_class,
    noise_schedule::table_methods,
    prediction::{Bounds, noise_between, predicted_clean, predicted_noise, ratio},
    same_shape,
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of a [`DDIMScheduler`], with diffusers' names and defaults.
    pub struct DDIMConfig for DDIMScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = true,
        /// Whether the last step leads to ᾱ = 1, or to ᾱ of timestep 0.
        set_alpha_to_one: bool = true,
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::default(),
        /// Whether to threshold the predicted clean sample dynamically, in place of clipping it.
        thresholding: bool = false,
        /// The quantile that dynamic thresholding looks at.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        /// The largest threshold of dynamic thresholding.
        sample_max_value: f64 = 1.0,
        /// How the steps of a loop are spread.
        timestep_spacing: TimestepSpacing = TimestepSpacing::default(),
        /// Whether the schedule is moved to end without any signal.
        rescale_betas_zero_snr: bool = false,
    }

    facts {
        takes_eta: true,
    }

    samplers {
        "ddim", "1", false, "deterministic; eta adds noise";
    }
}

/// Denoising diffusion implicit models: each step moves to the noise level of the next along the predicted noise, and
/// replaces a share of that noise by fresh noise, as [`StepOptions::eta`] says.
#[derive(Clone, Debug)]
pub struct DDIMScheduler {
    config: DDIMConfig,
    noise: NoiseSchedule,
    bounds: Bounds,
    /// ᾱ after the last step.
    final_alpha_cumprod: f32,
    /// How far a step goes.
    stride: usize,
    timesteps: Vec<f64>,
}

impl DDIMScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DDIMConfig) -> Result<Self> {
        let bounds = Bounds {
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            thresholding: config.thresholding,
            dynamic_thresholding_ratio: config.dynamic_thresholding_ratio,
            sample_max_value: config.sample_max_value,
        };
        bounds.check()?;
        let noise = NoiseSchedule::new(config.noise_options().rescaled(config.rescale_betas_zero_snr))?;
        let final_alpha_cumprod = if config.set_alpha_to_one {
            1.0
        } else {
            noise.alphas_cumprod()[0]
        };
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
            final_alpha_cumprod,
            stride: 1,
            timesteps,
        })
    }

    /// ᾱ at timestep `t` and at the one that a step from there leads to.
    fn levels(&self, t: f64) -> Result<(f32, f32)> {
        let alphas_cumprod = self.noise.alphas_cumprod();
        let index = self.noise.index(t)?;
        let previous = index
            .checked_sub(self.stride)
            .map_or(self.final_alpha_cumprod, |i| alphas_cumprod[i]);
        Ok((alphas_cumprod[index], previous))
    }
}

/// The variance of a step with η = 1 (Song et al. 2021, eq. 16), never below zero.
fn variance(alpha_prod: f32, alpha_prod_prev: f32) -> f32 {
    let noise_left = ratio(1.0 - alpha_prod_prev, 1.0 - alpha_prod);
    (noise_left * (1.0 - ratio(alpha_prod, alpha_prod_prev))).max(0.0)
}

impl Scheduler for DDIMScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let config = &self.config;
        let timesteps = config.timestep_spacing.timesteps(
            config.num_train_timesteps,
            num_inference_steps,
            config.steps_offset,
        )?;
        self.timesteps = timesteps.into_iter().map(|t| t as f64).collect();
        self.stride = config.num_train_timesteps / num_inference_steps;
        Ok(())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let eta = options.eta.unwrap_or(0.0);
        if !(eta >= 0.0 && eta.is_finite()) {
            return Err(Error::Config(format!("eta is {eta}, but it must be 0 or more")));
        }
        let (alpha_prod, alpha_prod_prev) = self.levels(t)?;

        // x̂_0 and ε̂ (Song et al. 2021, eq. 9)
        let kind = self.config.prediction_type;
        let unbounded = predicted_clean(kind, &prediction, &x, alpha_prod, self.bounds.are_set());
        let clean = self.bounds.apply(unbounded.clone());
        let noise = if options.use_clipped_model_output {
            noise_between(&clean, &x, alpha_prod)
        } else {
            predicted_noise(kind, prediction, &x, &unbounded, alpha_prod)
        };

        // x_{t-1} = √ᾱ_{t-1} x̂_0 + √(1 - ᾱ_{t-1} - σ_t²) ε̂ + σ_t ε (eq. 12)
        let sigma = eta as f32 * variance(alpha_prod, alpha_prod_prev).sqrt();
        // Rounding, or an η above 1, can ask for more fresh noise than there is; then diffusers' root is not a number.
        let direction = (1.0 - alpha_prod_prev - sigma * sigma).max(0.0).sqrt();
        let mut previous = clean.clone() * alpha_prod_prev.sqrt() + noise * direction;
        if eta > 0.0 {
            let fresh = match options.variance_noise.take() {
                Some(given) => {
                    same_shape("the variance noise", &given, "the sample", &x)?;
                    given
                }
                None => options.draw_noise(DDIMConfig::CLASS_NAME, &x)?,
            };
            previous = previous + fresh * sigma;
        }
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let alpha_prod = self.noise.alpha_cumprod(t)?;
        Ok(self
            .bounds
            .predicted_clean(self.config.prediction_type, prediction, x, alpha_prod))
    }

    table_methods!();
}
