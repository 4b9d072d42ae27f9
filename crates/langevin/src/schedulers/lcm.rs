//! LCM: consistency sampling in a few steps (Luo et al. 2023). Mirrors `diffusers.LCMScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, NoiseSchedule, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    distilled::{self, Distilled},
    noise_schedule::table_methods,
    position,
    prediction::Bounds,
    same_shape,
};
use crate::{Error, Result};

/// The standard deviation that the boundary condition takes the data to have.
const SIGMA_DATA: f32 = 0.5;

scheduler_class! {
    /// The configuration of an [`LCMScheduler`], with diffusers' names and defaults.
    pub struct LCMConfig for LCMScheduler {
        ..distilled,
    }

    facts {
        usual_steps: 4,
    }

    samplers {
        "lcm", "noise", true, "for models distilled to latent consistency: 1 to 8 steps";
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
        let noise = NoiseSchedule::new(config.noise_options().rescaled(config.rescale_betas_zero_snr))?;
        distilled::check_original_steps(config.original_inference_steps, config.num_train_timesteps)?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
            timesteps,
        })
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

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let denoised = self.predicted_clean(&prediction, t, &x)?;
        let next = self.timesteps.get(position::index_of(&self.timesteps, t)? + 1);

        // x_s = √ᾱ_s f(x_t, t) + √(1 - ᾱ_s) ε (algorithm 3)
        let previous = match next {
            Some(&s) => {
                let alpha_prod_next = self.noise.alpha_cumprod(s)?;
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

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let alpha_prod = self.noise.alpha_cumprod(t)?;
        let kind = self.config.prediction_type;
        let clean = self.bounds.predicted_clean(kind, prediction, x, alpha_prod);
        // f(x_t, t) = c_skip(t) x_t + c_out(t) x̂_0 (Luo et al. 2023, eq. 9)
        let (c_skip, c_out) = self.boundary(t);
        Ok(clean * c_out + x.clone() * c_skip)
    }

    table_methods!();
}
