//! DPM-Solver and DPM-Solver++ as multistep solvers (Lu et al. 2022a, 2022b). Mirrors
//! `diffusers.DPMSolverMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, ConfigMap, FinalSigmas, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    TimeShiftType, TimestepSpacing, VarianceType,
    config::{self, scheduler_config},
    dpm_loop::{self, DpmBase, DpmLoop, SpreadFlags, loop_of_base},
    dpm_solver::{History, Predicted, SolverPrediction},
    dpm_update::{AlgorithmType, DpmUpdate, SolverType},
    noise_schedule::noise_schedule_of,
    prediction::Bounds,
    sigmas::SigmaTable,
};
use crate::Result;

/// Loops of fewer steps end with steps of lower orders, where the config asks for it.
pub(super) const FEW_STEPS: usize = 15;

scheduler_config! {
    /// The configuration of a [`DPMSolverMultistepScheduler`], with diffusers' names and defaults.
    pub struct DPMSolverMultistepConfig: "DPMSolverMultistepScheduler" {
        /// How many timesteps the model was trained with.
        num_train_timesteps: usize = 1000,
        /// The first β.
        beta_start: f64 = 0.0001,
        /// The last β.
        beta_end: f64 = 0.02,
        /// How β goes from the first to the last.
        beta_schedule: BetaSchedule = BetaSchedule::Linear,
        /// Every β, in place of the three above.
        trained_betas: Option<Vec<f64>> = None,
        /// How many outputs of the model a step uses: 1 to 3.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        /// Whether to threshold the predicted clean sample dynamically.
        thresholding: bool = false,
        /// The quantile that dynamic thresholding looks at.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// The largest threshold of dynamic thresholding.
        sample_max_value: f64 = 1.0,
        /// Which equation is integrated.
        algorithm_type: AlgorithmType = AlgorithmType::DpmPlusPlus,
        /// How a second-order step weighs the slope of the model's output.
        solver_type: SolverType = SolverType::Midpoint,
        /// Whether a loop of fewer than 15 steps ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
        /// Whether the last step is of the first order whatever the number of steps.
        euler_at_final: bool = false,
        /// Whether the noise levels of a loop are spread as in Karras et al. 2022.
        use_karras_sigmas: bool = false,
        /// Whether the noise levels of a loop are spread evenly in log σ.
        use_exponential_sigmas: bool = false,
        /// Whether the noise levels of a loop are spread by the quantiles of a beta distribution (Lee et al. 2024).
        use_beta_sigmas: bool = false,
        /// Whether the noise levels of a loop are spread evenly in λ (Lu et al. 2022a).
        use_lu_lambdas: bool = false,
        /// Whether the model is a flow, whose samples are (1 - σ) x_0 + σ ε.
        use_flow_sigmas: bool = false,
        /// How far a flow's noise levels are moved towards the noise; 1 leaves them.
        flow_shift: f64 = 1.0,
        /// The noise level that a loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::Zero,
        /// The least λ that a loop visits; the schedule's timesteps with more noise are left out.
        #[serde(with = "config::python_float")]
        lambda_min_clipped: f64 = f64::NEG_INFINITY,
        /// Whether the model predicts a variance in a second half of its channels, which these solvers leave aside:
        /// `learned` or `learned_range`. Other values, which DDPM has, mean that it does not.
        variance_type: Option<VarianceType> = None,
        /// How the steps of a loop are spread.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Linspace,
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
        /// Whether the schedule is moved to end with next to no signal.
        rescale_betas_zero_snr: bool = false,
        /// Whether a loop's `mu` may take the place of `flow_shift`, as its exponential.
        use_dynamic_shifting: bool = false,
        /// How `mu` shifts.
        time_shift_type: TimeShiftType = TimeShiftType::Exponential,
    }
}

/// The multistep solver of the diffusion equations in λ: each step calls the model once, and takes its output for a polynomial
/// through those of the steps behind.
#[derive(Clone, Debug)]
pub struct DPMSolverMultistepScheduler {
    config: DPMSolverMultistepConfig,
    predicted: Predicted,
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
        let spread = SpreadFlags {
            karras: config.use_karras_sigmas,
            exponential: config.use_exponential_sigmas,
            beta: config.use_beta_sigmas,
            lu: config.use_lu_lambdas,
            flow: config.use_flow_sigmas,
            flow_shift: config.flow_shift,
        }
        .chosen(class_name)?;
        let noise = noise_schedule_of!(config)?;
        let noise = if config.rescale_betas_zero_snr {
            noise.with_least_signal()
        } else {
            noise
        };
        let table = SigmaTable::new(class_name, noise.alphas_cumprod())?;
        let plan = DpmLoop {
            class_name,
            last_timestep: dpm_loop::unclipped_timesteps(class_name, &table, config.lambda_min_clipped)?,
            table,
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            spread,
            rounds: config.beta_schedule != BetaSchedule::SquaredcosCapV2,
            sigma_min: dpm_loop::foreign_sigma(&config.extra, "sigma_min"),
            sigma_max: dpm_loop::foreign_sigma(&config.extra, "sigma_max"),
            last: config.final_sigmas_type.into(),
        };
        let base = DpmBase::new(noise, plan);
        let predicted = Predicted {
            kind: config.prediction_type,
            bounds: Bounds::thresholding(
                config.thresholding,
                config.dynamic_thresholding_ratio,
                config.sample_max_value,
            ),
            variance_type: config.variance_type,
        };
        predicted.check(class_name, base.mixture, config.algorithm_type.needs_noise())?;
        Ok(Self {
            config,
            predicted,
            update,
            base,
            history: History::default(),
        })
    }

    /// A scheduler that shares what it can with another class's config.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_config(other: &ConfigMap) -> Result<Self> {
        Self::new(config::convert(other)?)
    }

    /// The configuration that this was built from.
    pub fn config(&self) -> &DPMSolverMultistepConfig {
        &self.config
    }

    /// The order of step `i`: fewer at a loop's end, where the config asks for it.
    fn order_of_step(&self, i: usize) -> usize {
        let config = &self.config;
        let steps = self.base.len();
        let lowers = config.lower_order_final && steps < FEW_STEPS;
        let ends_clean = config.final_sigmas_type == FinalSigmas::Zero;
        match steps - i {
            1 if config.euler_at_final || lowers || ends_clean => 1,
            2 if lowers => config.solver_order.min(2),
            _ => config.solver_order,
        }
    }
}

impl Scheduler for DPMSolverMultistepScheduler {
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(self.base.plan.class_name, &["timesteps", "mu"])?;
        dpm_loop::check_mu(
            self.base.plan.class_name,
            options.mu,
            self.config.use_dynamic_shifting,
        )?;
        self.base.steps = self.base.plan.set(options)?;
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
        let prediction = self.predicted.without_variance(prediction, &x)?;
        let i = self.base.steps.step(t)?;
        let (here, next) = (self.base.level(i), self.base.level(i + 1));
        let noise = self.update.draw_noise(self.base.plan.class_name, &x, options)?;

        let (output, clean) = self.update.output(&self.predicted, prediction, &x, here);
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
