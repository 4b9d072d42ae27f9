//! Heun's second-order method on the probability flow in σ (Karras et al. 2022, algorithm 1). Mirrors
//! `diffusers.HeunDiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    GivenLoop, LoopOptions, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    discrete::{Discrete, discrete_methods},
    prediction::Bounds,
    same_shape,
    sigma_loop::{SigmaLoop, clean_at, twice},
};
use crate::Result;

scheduler_class! {
    /// The configuration of a [`HeunDiscreteScheduler`], with diffusers' names and defaults.
    pub struct HeunDiscreteConfig for HeunDiscreteScheduler {
        ..noise(0.00085, 0.012, Linear),
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::default(),
        ..discrete_sigmas,
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = false,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        ..steps(Linspace),
    }

    facts {}

    samplers {
        "heun", "2", false, "Heun's method: two calls a step";
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
        let bounds = Bounds {
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            thresholding: false,
            dynamic_thresholding_ratio: 1.0,
            sample_max_value: 1.0,
        };
        bounds.check()?;
        let discrete = config.discrete()?;
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
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let (sigma, sigma_next) = self.discrete.steps.halves(t, self.trial.is_some())?;
        let here = if self.trial.is_some() { sigma_next } else { sigma };
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

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        // In both halves the level where the model is asked.
        let sigma = self.discrete.steps.sigma_at(t)?;
        let clean = clean_at(self.config.prediction_type, prediction, x, sigma);
        Ok(self.bounds.apply(clean))
    }

    fn order(&self) -> usize {
        2
    }

    discrete_methods!();
}
