//! DPM-Solver and DPM-Solver++ as multistep solvers (Lu et al. 2022a, 2022b). Mirrors
//! `diffusers.DPMSolverMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, FinalSigmas, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    dpm_loop::{DpmBase, SolverOptions, SpreadFlags, loop_of_base, order_of_step},
    dpm_solver::{History, SolverPrediction},
    dpm_update::{AlgorithmType, DpmUpdate, SolverType},
};
use crate::Result;

scheduler_class! {
    /// The configuration of a [`DPMSolverMultistepScheduler`], with diffusers' names and defaults.
    pub struct DPMSolverMultistepConfig for DPMSolverMultistepScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// How many outputs of the model a step uses: 1 to 3.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        ..thresholding,
        /// Which equation is integrated.
        algorithm_type: AlgorithmType = AlgorithmType::DpmPlusPlus,
        /// How a second-order step weighs the slope of the model's output.
        solver_type: SolverType = SolverType::Midpoint,
        /// Whether a loop of fewer than 15 steps ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
        /// Whether the last step is of the first order whatever the number of steps.
        euler_at_final: bool = false,
        ..sigma_flags,
        /// Whether the noise levels of a loop are spread evenly in λ (Lu et al. 2022a).
        use_lu_lambdas: bool = false,
        ..flow,
        /// The noise level that a loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::Zero,
        ..least_lambda,
        ..steps(Linspace),
        /// Whether the schedule is moved to end with next to no signal.
        rescale_betas_zero_snr: bool = false,
        ..dynamic_shifting,
    }

    facts {
        also_flows: true,
    }

    samplers {
        "dpm++2m", "2", false, "DPM-Solver++, multistep: good in 15 to 25 steps";
        "dpm++2m-karras" { "use_karras_sigmas": "true" }, "2", false, "the same with Karras's noise levels";
        "dpm++2m-sde" { "algorithm_type": "\"sde-dpmsolver++\"" }, "noise", true, "the same for the reverse diffusion";
        "dpm++2m-sde-karras" { "algorithm_type": "\"sde-dpmsolver++\"", "use_karras_sigmas": "true" }, "noise", true,
            "both";
        "dpm++3m" { "solver_order": "3" }, "2", false, "DPM-Solver++ with three outputs a step";
    }
}

/// The multistep solver of the diffusion equations in λ: each step calls the model once, and takes its output for a polynomial
/// through those of the steps behind.
#[derive(Clone, Debug)]
pub struct DPMSolverMultistepScheduler {
    config: DPMSolverMultistepConfig,
    update: DpmUpdate,
    base: DpmBase,
    history: History,
}

impl DPMSolverMultistepScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DPMSolverMultistepConfig) -> Result<Self> {
        let class_name = DPMSolverMultistepConfig::CLASS_NAME;
        let update = DpmUpdate {
            algorithm: config.algorithm_type,
            solver: config.solver_type,
        };
        update.check(class_name, config.solver_order, config.final_sigmas_type)?;
        let solver = config.solver();
        let base = DpmBase::new(SolverOptions {
            noise: solver.noise.rescaled(config.rescale_betas_zero_snr),
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            spread: SpreadFlags {
                lu: config.use_lu_lambdas,
                ..solver.spread
            },
            lambda_min_clipped: config.lambda_min_clipped,
            rounds: config.beta_schedule != BetaSchedule::SquaredcosCapV2,
            last: config.final_sigmas_type.into(),
            variance_type: config.variance_type,
            needs_noise: config.algorithm_type.needs_noise(),
            ..solver
        })?;
        Ok(Self {
            config,
            update,
            base,
            history: History::default(),
        })
    }

    /// The order of step `i`.
    fn order_of_step(&self, i: usize) -> usize {
        let config = &self.config;
        let is_euler = config.euler_at_final || config.final_sigmas_type == FinalSigmas::Zero;
        order_of_step(
            config.solver_order,
            i,
            self.base.len(),
            config.lower_order_final,
            is_euler,
        )
    }
}

impl Scheduler for DPMSolverMultistepScheduler {
    fn takes_variance(&self) -> bool {
        self.config
            .variance_type
            .is_some_and(crate::schedulers::VarianceType::is_learned)
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.base
            .set_loop(options, &["timesteps", "mu"], self.config.use_dynamic_shifting)?;
        self.history.clear();
        Ok(())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let prediction = self.base.predicted.without_variance(prediction, &x)?;
        let i = self.base.steps.step(t)?;
        let (here, next) = (self.base.level(i), self.base.level(i + 1));
        let noise = self.update.draw_noise(self.base.plan.class_name, &x, options)?;

        let (output, clean) = self.update.output(&self.base.predicted, prediction, &x, here);
        self.history.push(here, output, self.config.solver_order);
        let previous = self
            .update
            .multistep(self.order_of_step(i), x, &self.history, next, noise);
        self.base.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    loop_of_base!();
}
