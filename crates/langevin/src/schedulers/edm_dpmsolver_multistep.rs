//! DPM-Solver++ in the framework of Karras et al. 2022. Mirrors `diffusers.EDMDPMSolverMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    ConfigMap, FinalSigmas, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    config::{self, scheduler_config},
    dpm_solver::{History, Mixture},
    dpm_update::{AlgorithmType, DpmUpdate, SolverType},
    dpmsolver_multistep::FEW_STEPS,
    edm::{self, EdmLevels, Preconditioning, SigmaSchedule},
    noise_schedule,
    prediction::Bounds,
    same_shape,
    sigma_loop::SigmaLoop,
};
use crate::{Error, Result, objectives::PredictionType};

scheduler_config! {
    /// The configuration of an [`EDMDPMSolverMultistepScheduler`], with diffusers' names and defaults.
    pub struct EDMDPMSolverMultistepConfig: "EDMDPMSolverMultistepScheduler" {
        /// The lowest noise level of a loop.
        sigma_min: f64 = 0.002,
        /// The highest noise level of a loop.
        sigma_max: f64 = 80.0,
        /// The standard deviation of the data.
        sigma_data: f64 = 0.5,
        /// How the noise levels are spread between the two.
        sigma_schedule: SigmaSchedule = SigmaSchedule::Karras,
        /// How many levels the loop has that visits all.
        num_train_timesteps: usize = 1000,
        /// What the preconditioned model predicts: `epsilon`, or `v_prediction` for its negative.
        prediction_type: PredictionType = PredictionType::Epsilon,
        /// Karras's ρ: higher spends more steps on low noise.
        rho: f64 = 7.0,
        /// How many outputs of the model a step uses: 1 to 3.
        solver_order: usize = 2,
        /// Whether to threshold the predicted clean sample dynamically.
        thresholding: bool = false,
        /// The quantile that dynamic thresholding looks at.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// The largest threshold of dynamic thresholding.
        sample_max_value: f64 = 1.0,
        /// Which equation is integrated: `dpmsolver++` or `sde-dpmsolver++`.
        algorithm_type: AlgorithmType = AlgorithmType::DpmPlusPlus,
        /// How a second-order step weighs the slope of the model's output.
        solver_type: SolverType = SolverType::Midpoint,
        /// Whether a loop of fewer than 15 steps ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
        /// Whether the last step is of the first order whatever the number of steps.
        euler_at_final: bool = false,
        /// The noise level that a loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::Zero,
    }
}

/// The multistep solver of DPM-Solver++ for models that are preconditioned as Karras et al. 2022 do.
#[derive(Clone, Debug)]
pub struct EDMDPMSolverMultistepScheduler {
    config: EDMDPMSolverMultistepConfig,
    levels: EdmLevels,
    preconditioning: Preconditioning,
    bounds: Bounds,
    update: DpmUpdate,
    steps: SigmaLoop,
    history: History,
}

impl EDMDPMSolverMultistepScheduler {
    /// A scheduler whose loop visits `num_train_timesteps` levels, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: EDMDPMSolverMultistepConfig) -> Result<Self> {
        let class_name = EDMDPMSolverMultistepConfig::CLASS_NAME;
        let update = DpmUpdate {
            algorithm: config.algorithm_type,
            solver: config.solver_type,
        };
        update.check(class_name, config.solver_order, config.final_sigmas_type)?;
        if config.algorithm_type.needs_noise() {
            return Err(Error::Config(format!(
                "algorithm_type is {}, but {class_name} has dpmsolver++ and sde-dpmsolver++",
                config.algorithm_type
            )));
        }
        if config.algorithm_type.is_stochastic() && config.solver_order > 2 {
            return Err(Error::Config(format!(
                "solver_order is {}, but {class_name} has 1 and 2 for sde-dpmsolver++",
                config.solver_order
            )));
        }
        let levels = EdmLevels {
            schedule: config.sigma_schedule,
            sigma_min: config.sigma_min,
            sigma_max: config.sigma_max,
            rho: config.rho,
        };
        levels.check()?;
        let bounds = Bounds::thresholding(
            config.thresholding,
            config.dynamic_thresholding_ratio,
            config.sample_max_value,
        );
        bounds.check()?;
        let preconditioning = Preconditioning::new(class_name, config.sigma_data, config.prediction_type)?;
        let train = config.num_train_timesteps;
        let mut scheduler = Self {
            config,
            levels,
            preconditioning,
            bounds,
            update,
            steps: SigmaLoop::default(),
            history: History::default(),
        };
        scheduler.set_timesteps(train)?;
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
    pub fn config(&self) -> &EDMDPMSolverMultistepConfig {
        &self.config
    }

    /// The order of step `i`: fewer at a loop's end, where the config asks for it.
    fn order_of_step(&self, i: usize) -> usize {
        let config = &self.config;
        let steps = self.steps.timesteps().len();
        let lowers = config.lower_order_final && steps < FEW_STEPS;
        let ends_clean = config.final_sigmas_type == FinalSigmas::Zero;
        match steps - i {
            1 if config.euler_at_final || lowers || ends_clean => 1,
            2 if lowers => config.solver_order.min(2),
            _ => config.solver_order,
        }
    }
}

impl Scheduler for EDMDPMSolverMultistepScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = EDMDPMSolverMultistepConfig::CLASS_NAME;
        options.only(class_name, &[])?;
        let steps = options.number(class_name)?;
        noise_schedule::check_length("a loop's number of steps", steps)?;
        let mut sigmas = self.levels.falling(steps);
        let timesteps = sigmas.iter().map(|&sigma| edm::timestep(sigma)).collect();
        sigmas.push(match self.config.final_sigmas_type {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => self.config.sigma_min as f32,
        });
        self.steps = SigmaLoop::new(timesteps, sigmas);
        self.history.clear();
        Ok(())
    }

    fn set_begin_index(&mut self, index: usize) {
        self.steps.begin_at(index);
    }

    fn timesteps(&self) -> &[f64] {
        self.steps.timesteps()
    }

    fn sigmas(&self) -> &[f32] {
        self.steps.sigmas()
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let (sigma, _) = self.steps.levels(t)?;
        Ok(self.preconditioning.input(sample, sigma))
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let i = self.steps.step(t)?;
        let (here, next) = self.steps.levels(t)?;
        let noise = self
            .update
            .draw_noise(EDMDPMSolverMultistepConfig::CLASS_NAME, &x, options)?;

        let clean = self
            .bounds
            .apply(self.preconditioning.clean(&prediction, &x, here));
        let exploding = |sigma| Mixture::VarianceExploding.level(sigma);
        self.history
            .push(exploding(here), clean.clone(), self.config.solver_order);
        let order = self.order_of_step(i);
        let previous = self
            .update
            .multistep(order, x, &self.history, exploding(next), noise);
        self.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        // There is no table by whole timesteps, as the error says.
        noise_schedule::add_noise(self.alphas_cumprod(), x0, noise, timesteps)
    }

    fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        same_shape("the noise", &noise, "the pictures", &x0)?;
        Ok(x0 + noise * self.steps.level_of_noise(t, |_| None)?)
    }

    fn init_noise_sigma(&self) -> f64 {
        (self.config.sigma_max * self.config.sigma_max + 1.0).sqrt()
    }

    fn num_train_timesteps(&self) -> usize {
        self.config.num_train_timesteps
    }
}
