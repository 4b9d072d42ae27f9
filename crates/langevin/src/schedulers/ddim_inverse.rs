//! DDIM run backwards, from a picture to the noise that it comes from. Mirrors `diffusers.DDIMInverseScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    TimestepSpacing,
    class::scheduler_class,
    noise_schedule::table_methods,
    prediction::{Bounds, predicted_clean, predicted_noise},
    same_shape,
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of a [`DDIMInverseScheduler`], with diffusers' names and defaults.
    pub struct DDIMInverseConfig for DDIMInverseScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = true,
        /// Whether the first step begins at ᾱ = 1, or at ᾱ of timestep 0.
        set_alpha_to_one: bool = true,
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::Epsilon,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        /// How the steps of a loop are spread: `leading` or `trailing`.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Leading,
        /// Whether the schedule is moved to end without any signal.
        rescale_betas_zero_snr: bool = false,
    }

    facts {
        no_sampler: Some("goes from a picture to its noise, and so draws none"),
    }

    samplers {
        "ddim-inverse", "1", false, "from a picture to its noise (inversion)";
    }
}

/// The inversion of [`DDIMScheduler`](super::DDIMScheduler) (Song et al. 2021, section 4.3): each step moves to the noise
/// level of the next timestep *up* along the predicted noise. Its timesteps therefore rise, and the loop begins with a
/// picture and ends with noise.
#[derive(Clone, Debug)]
pub struct DDIMInverseScheduler {
    config: DDIMInverseConfig,
    noise: NoiseSchedule,
    bounds: Bounds,
    /// ᾱ before the first step.
    initial_alpha_cumprod: f32,
    /// How far a step goes.
    stride: usize,
    timesteps: Vec<f64>,
}

impl DDIMInverseScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DDIMInverseConfig) -> Result<Self> {
        let bounds = Bounds::clipping(config.clip_sample, config.clip_sample_range);
        bounds.check()?;
        if config.timestep_spacing == TimestepSpacing::Linspace {
            return Err(Error::Config(
                "timestep_spacing is linspace, but DDIMInverseScheduler has leading and trailing".to_owned(),
            ));
        }
        let noise = NoiseSchedule::new(config.noise_options().rescaled(config.rescale_betas_zero_snr))?;
        let initial_alpha_cumprod = if config.set_alpha_to_one {
            1.0
        } else {
            noise.alphas_cumprod()[0]
        };
        let timesteps = (0..config.num_train_timesteps).map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
            initial_alpha_cumprod,
            stride: 1,
            timesteps,
        })
    }

    /// ᾱ of the sample that a step to timestep `t` begins with, and ᾱ at `t`.
    fn levels(&self, t: f64) -> Result<(f32, f32)> {
        let alphas_cumprod = self.noise.alphas_cumprod();
        let index = self.noise.index(t)?;
        let before = index
            .checked_sub(self.stride)
            .map_or(self.initial_alpha_cumprod, |i| alphas_cumprod[i]);
        Ok((before, alphas_cumprod[index]))
    }
}

impl Scheduler for DDIMInverseScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(DDIMInverseConfig::CLASS_NAME, &[])?;
        let num_inference_steps = options.number(DDIMInverseConfig::CLASS_NAME)?;
        let config = &self.config;
        let falling = config.timestep_spacing.timesteps(
            config.num_train_timesteps,
            num_inference_steps,
            config.steps_offset,
        )?;
        self.timesteps = falling.into_iter().rev().map(|t| t as f64).collect();
        self.stride = config.num_train_timesteps / num_inference_steps;
        Ok(())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let (alpha_prod, alpha_prod_next) = self.levels(t)?;

        // x̂_0 and ε̂ (Song et al. 2021, eq. 9)
        let kind = self.config.prediction_type;
        let unbounded = predicted_clean(kind, &prediction, &x, alpha_prod, self.bounds.are_set());
        let clean = self.bounds.apply(unbounded.clone());
        let noise = if alpha_prod == 1.0 && kind == PredictionType::Sample {
            // The picture itself, without noise, tells none of it apart; diffusers divides by zero.
            x.zeros_like()
        } else {
            predicted_noise(kind, prediction, &x, &unbounded, alpha_prod)
        };

        // x_{t+1} = √ᾱ_{t+1} x̂_0 + √(1 - ᾱ_{t+1}) ε̂ (eq. 12 with σ = 0, the other way)
        let previous = clean.clone() * alpha_prod_next.sqrt() + noise * (1.0 - alpha_prod_next).sqrt();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        // A step to `t` begins at the level before it.
        let (alpha_prod, _) = self.levels(t)?;
        Ok(self
            .bounds
            .predicted_clean(self.config.prediction_type, prediction, x, alpha_prod))
    }

    table_methods!();
}
