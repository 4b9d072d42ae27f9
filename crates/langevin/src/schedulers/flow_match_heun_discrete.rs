//! Heun's second-order method for flow-matching models (Esser et al. 2024; Karras et al. 2022, algorithm 2). Mirrors
//! `diffusers.FlowMatchHeunDiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    ModelKind, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    flow::{self, flow_methods},
    options::check_steps,
    same_shape,
    sigma_loop::{SigmaLoop, churn, twice},
    sigmas::shifted,
};
use crate::Result;

scheduler_class! {
    /// The configuration of a [`FlowMatchHeunDiscreteScheduler`], with diffusers' names and defaults.
    pub struct FlowMatchHeunDiscreteConfig for FlowMatchHeunDiscreteScheduler {
        /// How many timesteps the model was trained with: T, where the timestep of level σ is T σ.
        num_train_timesteps: usize = 1000,
        /// How far the noise levels are moved towards the noise.
        shift: f64 = 1.0,
    }

    facts {
        model: ModelKind::Flow,
    }

    samplers {
        "flow-heun", "2", false, "for flows: Heun's method, two calls a step";
    }
}

/// Heun's method along the paths of a flow: each step but the last calls the model twice.
#[derive(Clone, Debug)]
pub struct FlowMatchHeunDiscreteScheduler {
    config: FlowMatchHeunDiscreteConfig,
    /// Every noise level of training.
    levels: Vec<f32>,
    steps: SigmaLoop,
    trial: Option<Trial>,
}

/// What a step's first half leaves for the second.
#[derive(Clone, Debug)]
struct Trial {
    sample: Tensor<4>,
    derivative: Tensor<4>,
    /// How far the step goes in σ.
    width: f32,
}

impl FlowMatchHeunDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: FlowMatchHeunDiscreteConfig) -> Result<Self> {
        flow::check(
            FlowMatchHeunDiscreteConfig::CLASS_NAME,
            config.num_train_timesteps,
            config.shift,
        )?;
        let levels = flow::training_levels(config.num_train_timesteps, Some(config.shift));
        let mut scheduler = Self {
            config,
            levels: levels.clone(),
            steps: SigmaLoop::default(),
            trial: None,
        };
        scheduler.begin(&levels);
        Ok(scheduler)
    }

    fn begin(&mut self, levels: &[f32]) {
        let train = self.config.num_train_timesteps as f32;
        let timesteps = twice(levels).map(|&sigma| f64::from(sigma * train)).collect();
        let sigmas = twice(levels).copied().chain([0.0]).collect();
        self.steps = SigmaLoop::new(timesteps, sigmas);
        self.trial = None;
    }
}

impl Scheduler for FlowMatchHeunDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        check_steps(num_inference_steps)?;
        let train = self.config.num_train_timesteps as f64;
        let even = flow::even_timesteps(&self.levels, num_inference_steps).into_iter();
        // Moved once more, as in diffusers.
        let levels: Vec<f32> = even
            .map(|t| shifted(t / train, self.config.shift) as f32)
            .collect();
        self.begin(&levels);
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
        let (sigma, sigma_next) = self.steps.halves(t, self.trial.is_some())?;
        let levels = self.steps.sigmas().len() - 1;
        // In the second half this noise goes into the sample and out of it again, but it is drawn, as in diffusers.
        let (x, sigma_hat) = churn(FlowMatchHeunDiscreteConfig::CLASS_NAME, x, sigma, levels, options)?;
        let (clean, previous) = match self.trial.take() {
            None => {
                let clean = flow::clean(&prediction, &x, sigma);
                let derivative = (x.clone() - clean.clone()) / sigma_hat;
                let width = sigma_next - sigma_hat;
                self.trial = Some(Trial {
                    sample: x.clone(),
                    derivative: derivative.clone(),
                    width,
                });
                (clean, x + derivative * width)
            }
            Some(first) => {
                let clean = flow::clean(&prediction, &x, sigma_next);
                let derivative = (x - clean.clone()) / sigma_next;
                let mean = (first.derivative + derivative) * 0.5;
                (clean, first.sample + mean * first.width)
            }
        };
        self.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn order(&self) -> usize {
        2
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        // In both halves the level where the model is asked, from which noise added before the step does not count.
        Ok(flow::clean(prediction, x, self.steps.sigma_at(t)?))
    }

    flow_methods!();
}
