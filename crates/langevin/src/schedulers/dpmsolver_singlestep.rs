//! DPM-Solver and DPM-Solver++ as singlestep solvers (Lu et al. 2022a, 2022b). Mirrors
//! `diffusers.DPMSolverSinglestepScheduler`.

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
use crate::{Error, Result};

scheduler_config! {
    /// The configuration of a [`DPMSolverSinglestepScheduler`], with diffusers' names and defaults.
    pub struct DPMSolverSinglestepConfig: "DPMSolverSinglestepScheduler" {
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
        /// How many calls of the model make up a whole step: 1 to 3.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        /// Whether to threshold the predicted clean sample dynamically.
        thresholding: bool = false,
        /// The quantile that dynamic thresholding looks at.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// The largest threshold of dynamic thresholding.
        sample_max_value: f64 = 1.0,
        /// Which equation is integrated: `dpmsolver`, `dpmsolver++` or `sde-dpmsolver++`.
        algorithm_type: AlgorithmType = AlgorithmType::DpmPlusPlus,
        /// How a step weighs the slope of the model's output.
        solver_type: SolverType = SolverType::Midpoint,
        /// Whether a loop ends with steps of lower orders. A loop that ends without noise always does, and so does one whose
        /// number of calls is no multiple of the order.
        lower_order_final: bool = false,
        /// Whether the noise levels of a loop are spread as in Karras et al. 2022.
        use_karras_sigmas: bool = false,
        /// Whether the noise levels of a loop are spread evenly in log σ.
        use_exponential_sigmas: bool = false,
        /// Whether the noise levels of a loop are spread by the quantiles of a beta distribution (Lee et al. 2024).
        use_beta_sigmas: bool = false,
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
        /// Whether a loop's `mu` may take the place of `flow_shift`, as its exponential.
        use_dynamic_shifting: bool = false,
        /// How `mu` shifts.
        time_shift_type: TimeShiftType = TimeShiftType::Exponential,
    }
}

/// The singlestep solver of the diffusion equations in λ: a step of order k calls the model k times on its way, and forgets what
/// was before it. A loop counts calls, so each whole step takes up several of its timesteps.
#[derive(Clone, Debug)]
pub struct DPMSolverSinglestepScheduler {
    config: DPMSolverSinglestepConfig,
    predicted: Predicted,
    update: DpmUpdate,
    base: DpmBase,
    /// The place of each call within its whole step, from 1.
    orders: Vec<usize>,
    /// The outputs of the whole step that is under way, and the sample that it began with.
    block: History,
    start: Option<Tensor<4>>,
}

impl DPMSolverSinglestepScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DPMSolverSinglestepConfig) -> Result<Self> {
        let class_name = DPMSolverSinglestepConfig::CLASS_NAME;
        let update = DpmUpdate {
            algorithm: config.algorithm_type,
            solver: config.solver_type,
        };
        update.check(class_name, config.solver_order, config.final_sigmas_type)?;
        if config.algorithm_type == AlgorithmType::SdeDpm {
            return Err(Error::Config(format!(
                "algorithm_type is sde-dpmsolver, but {class_name} has dpmsolver, dpmsolver++ and sde-dpmsolver++"
            )));
        }
        let spread = SpreadFlags {
            karras: config.use_karras_sigmas,
            exponential: config.use_exponential_sigmas,
            beta: config.use_beta_sigmas,
            lu: false,
            flow: config.use_flow_sigmas,
            flow_shift: config.flow_shift,
        }
        .chosen(class_name)?;
        let noise = noise_schedule_of!(config, false)?;
        let table = SigmaTable::new(class_name, noise.alphas_cumprod())?;
        let plan = DpmLoop {
            class_name,
            last_timestep: dpm_loop::unclipped_timesteps(class_name, &table, config.lambda_min_clipped)?,
            table,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            spread,
            rounds: true,
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
        let orders = orders(&config, base.len());
        Ok(Self {
            config,
            predicted,
            update,
            base,
            orders,
            block: History::default(),
            start: None,
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
    pub fn config(&self) -> &DPMSolverSinglestepConfig {
        &self.config
    }
}

/// The place of each of `calls` calls within its whole step.
fn orders(config: &DPMSolverSinglestepConfig, calls: usize) -> Vec<usize> {
    let order = config.solver_order;
    let ends_clean = config.final_sigmas_type == FinalSigmas::Zero;
    let mut orders: Vec<usize> = (1..=order).cycle().take(calls).collect();
    // The last call is a step of its own where it must be of the first order; a loop that does not end with a whole step
    // ends with calls of lower orders anyway.
    if ends_clean || (config.lower_order_final && calls.is_multiple_of(order)) {
        orders[calls - 1] = 1;
    }
    orders
}

impl Scheduler for DPMSolverSinglestepScheduler {
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(self.base.plan.class_name, &["timesteps", "mu"])?;
        dpm_loop::check_mu(
            self.base.plan.class_name,
            options.mu,
            self.config.use_dynamic_shifting,
        )?;
        self.base.steps = self.base.plan.set(options)?;
        self.orders = orders(&self.config, self.base.len());
        self.block.clear();
        self.start = None;
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
        let start = match self.start.take() {
            Some(start) if self.orders[i] > 1 => start,
            // A whole step begins here; or the loop does, within one.
            _ => {
                self.block.clear();
                x
            }
        };
        self.block.push(here, output, self.config.solver_order);
        let previous = self.update.singlestep(start.clone(), &self.block, next, noise);
        self.start = Some(start);
        self.base.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    loop_of_base!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_steps_are_those_of_diffusers() {
        // DPMSolverSinglestepScheduler.get_order_list
        let list = |solver_order, lower_order_final, final_sigmas_type, calls| {
            let config = DPMSolverSinglestepConfig {
                solver_order,
                lower_order_final,
                final_sigmas_type,
                ..DPMSolverSinglestepConfig::default()
            };
            orders(&config, calls)
        };
        let (zero, least) = (FinalSigmas::Zero, FinalSigmas::SigmaMin);
        assert_eq!(list(3, true, least, 6), [1, 2, 3, 1, 2, 1]);
        assert_eq!(list(3, true, least, 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(list(3, true, least, 8), [1, 2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(list(3, true, zero, 8), [1, 2, 3, 1, 2, 3, 1, 1]);
        assert_eq!(list(3, false, least, 6), [1, 2, 3, 1, 2, 3]);
        assert_eq!(list(2, true, least, 4), [1, 2, 1, 1]);
        assert_eq!(list(2, false, least, 5), [1, 2, 1, 2, 1]);
        assert_eq!(list(2, false, least, 4), [1, 2, 1, 2]);
        assert_eq!(list(1, false, zero, 3), [1, 1, 1]);
        assert_eq!(list(3, false, zero, 1), [1]);
    }
}
