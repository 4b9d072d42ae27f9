//! Euler's method with fresh noise in every step: ancestral sampling in σ, as k-diffusion's `sample_euler_ancestral`.
//! Mirrors `diffusers.EulerAncestralDiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    GivenLoop, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    discrete::{Discrete, Spreading, discrete_methods},
    same_shape,
    sigma_loop::{SigmaLoop, ancestral, clean_at},
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of an [`EulerAncestralDiscreteScheduler`], with diffusers' names and defaults.
    pub struct EulerAncestralDiscreteConfig for EulerAncestralDiscreteScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// What the model predicts. Diffusers' class does not know `sample`.
        prediction_type: PredictionType = PredictionType::default(),
        ..steps(Linspace),
        /// Whether the schedule is moved to end with hardly any signal.
        rescale_betas_zero_snr: bool = false,
    }

    facts {}

    samplers {
        "euler-a", "noise", true, "Euler's method with fresh noise in each step";
    }
}

/// Euler's method in σ that steps further down than to the next noise level, and adds fresh noise up to it.
#[derive(Clone, Debug)]
pub struct EulerAncestralDiscreteScheduler {
    config: EulerAncestralDiscreteConfig,
    discrete: Discrete,
}

impl EulerAncestralDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: EulerAncestralDiscreteConfig) -> Result<Self> {
        let discrete = Discrete::new(
            EulerAncestralDiscreteConfig::CLASS_NAME,
            config.noise_options().rescaled(config.rescale_betas_zero_snr),
            Spreading::new(config.timestep_spacing, config.steps_offset, None),
        )?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self { config, discrete };
        scheduler.begin(timesteps, &sigmas);
        Ok(scheduler)
    }

    fn begin(&mut self, timesteps: Vec<f64>, sigmas: &[f64]) {
        let sigmas = sigmas.iter().map(|&sigma| sigma as f32).chain([0.0]).collect();
        self.discrete.steps = SigmaLoop::new(timesteps, sigmas);
    }
}

impl Scheduler for EulerAncestralDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let class_name = EulerAncestralDiscreteConfig::CLASS_NAME;
        let (timesteps, sigmas) = self
            .discrete
            .spread(class_name, GivenLoop::Steps(num_inference_steps))?;
        if let Some(pair) = sigmas.windows(2).find(|pair| pair[1] > pair[0]) {
            return Err(Error::Config(format!(
                "{class_name}: the noise level rises from {} to {} in a loop of {num_inference_steps} steps, and only falls can be \
                 divided into noise taken and noise added: betas this large do not go with rescale_betas_zero_snr",
                pair[0], pair[1]
            )));
        }
        self.begin(timesteps, &sigmas);
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
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let (sigma, sigma_next) = self.discrete.steps.levels(t)?;

        // x + (σ_down - σ) (x - x̂_0) / σ + σ_up ε
        let (sigma_down, sigma_up) = ancestral(sigma, sigma_next);
        let derivative = (x.clone() - clean.clone()) / sigma;
        let noise = options.draw_noise(EulerAncestralDiscreteConfig::CLASS_NAME, &x)?;
        let previous = x + derivative * (sigma_down - sigma) + noise * sigma_up;
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.discrete.steps.sigma_at(t)?;
        Ok(clean_at(self.config.prediction_type, prediction, x, sigma))
    }

    discrete_methods!();
}
