//! DPM-Solver++ in the framework of Karras et al. 2022. Mirrors `diffusers.EDMDPMSolverMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    FinalSigmas, LoopOptions, ModelKind, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    dpm_loop::order_of_step,
    dpm_solver::{History, Mixture},
    dpm_update::{AlgorithmType, DpmUpdate, SolverType},
    edm::{self, EdmLevels, Preconditioning},
    noise_schedule,
    prediction::Bounds,
    same_shape,
    sigma_loop::SigmaLoop,
    sigma_loop::sigma_loop_methods,
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of an [`EDMDPMSolverMultistepScheduler`], with diffusers' names and defaults.
    pub struct EDMDPMSolverMultistepConfig for EDMDPMSolverMultistepScheduler {
        ..edm_levels,
        /// How many outputs of the model a step uses: 1 to 3.
        solver_order: usize = 2,
        ..thresholding,
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

    facts {
        model: ModelKind::Edm,
    }

    samplers {
        "edm-dpm++2m", "2", false, "for EDM's models: DPM-Solver++, multistep";
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
        let bounds = config.bounds();
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

    /// The order of step `i`.
    fn order_of_step(&self, i: usize) -> usize {
        let config = &self.config;
        let is_euler = config.euler_at_final || config.final_sigmas_type == FinalSigmas::Zero;
        order_of_step(
            config.solver_order,
            i,
            self.steps.timesteps().len(),
            config.lower_order_final,
            is_euler,
        )
    }
}

impl Scheduler for EDMDPMSolverMultistepScheduler {
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
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let i = self.steps.step(t)?;
        let (here, next) = self.steps.levels(t)?;
        let noise = self
            .update
            .draw_noise(EDMDPMSolverMultistepConfig::CLASS_NAME, &x, options)?;

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

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.steps.sigma_at(t)?;
        Ok(self
            .bounds
            .apply(self.preconditioning.clean(prediction, x, sigma)))
    }

    fn init_noise_sigma(&self) -> f64 {
        (self.config.sigma_max * self.config.sigma_max + 1.0).sqrt()
    }

    sigma_loop_methods!(EDMDPMSolverMultistepConfig);
}
