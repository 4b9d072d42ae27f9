//! TCD: strategic stochastic sampling of trajectory consistency models (Zheng et al. 2024). Mirrors
//! `diffusers.TCDScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, NoiseSchedule, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    distilled::{self, Distilled},
    noise_schedule::table_methods,
    position,
    prediction::{predicted_clean, predicted_noise, ratio},
    same_shape,
};
use crate::{Error, Result};

/// γ of a step that is given no η, as in diffusers.
const DEFAULT_GAMMA: f64 = 0.3;

scheduler_class! {
    /// The configuration of a [`TCDScheduler`], with diffusers' names and defaults.
    pub struct TCDConfig for TCDScheduler {
        ..distilled,
    }

    facts {
        usual_steps: 4,
        takes_eta: true,
    }

    samplers {
        "tcd", "noise", true, "for models distilled to trajectory consistency: 1 to 8 steps";
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
        let noise = NoiseSchedule::new(config.noise_options().rescaled(config.rescale_betas_zero_snr))?;
        distilled::check_original_steps(config.original_inference_steps, config.num_train_timesteps)?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            timesteps,
        })
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
        let alpha_prod = self.noise.alpha_cumprod(t)?;
        let next = self.timesteps.get(position::index_of(&self.timesteps, t)? + 1);
        let next = next.map(|&t| t as usize);

        // s = ⌊(1 - γ) t_next⌋, in float32 as PyTorch multiplies.
        let s = ((1.0 - gamma) as f32 * next.unwrap_or(0) as f32).floor() as usize;
        let alpha_prod_s = alphas_cumprod[s];

        // x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s) ε̂ (Zheng et al. 2024, eq. 13)
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let noise = predicted_noise(self.config.prediction_type, prediction, &x, &clean, alpha_prod);
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

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let (kind, alpha_prod) = (self.config.prediction_type, self.noise.alpha_cumprod(t)?);
        Ok(predicted_clean(kind, prediction, x, alpha_prod, false))
    }

    table_methods!();
}
