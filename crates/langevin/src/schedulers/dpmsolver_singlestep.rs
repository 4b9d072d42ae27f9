//! DPM-Solver and DPM-Solver++ as singlestep solvers (Lu et al. 2022a, 2022b). Mirrors
//! `diffusers.DPMSolverSinglestepScheduler`.

use burn::tensor::Tensor;

use super::{
    FinalSigmas, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    dpm_loop::{DpmBase, SolverOptions, loop_of_base},
    dpm_solver::{History, SolverPrediction},
    dpm_update::{AlgorithmType, DpmUpdate, SolverType},
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of a [`DPMSolverSinglestepScheduler`], with diffusers' names and defaults.
    pub struct DPMSolverSinglestepConfig for DPMSolverSinglestepScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// How many calls of the model make up a whole step: 1 to 3.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        ..thresholding,
        /// Which equation is integrated: `dpmsolver`, `dpmsolver++` or `sde-dpmsolver++`.
        algorithm_type: AlgorithmType = AlgorithmType::DpmPlusPlus,
        /// How a step weighs the slope of the model's output.
        solver_type: SolverType = SolverType::Midpoint,
        /// Whether a loop ends with steps of lower orders. A loop that ends without noise always does, and so does one whose
        /// number of calls is no multiple of the order.
        lower_order_final: bool = false,
        ..sigma_flags,
        ..flow,
        /// The noise level that a loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::Zero,
        ..least_lambda,
        ..dynamic_shifting,
    }

    facts {
        also_flows: true,
    }

    samplers {
        "dpm++2s", "2", false, "DPM-Solver++, singlestep: a step takes up two calls";
    }
}

/// The singlestep solver of the diffusion equations in λ: a step of order k calls the model k times on its way, and forgets what
/// was before it. A loop counts calls, so each whole step takes up several of its timesteps.
#[derive(Clone, Debug)]
pub struct DPMSolverSinglestepScheduler {
    config: DPMSolverSinglestepConfig,
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
        let base = DpmBase::new(SolverOptions {
            lambda_min_clipped: config.lambda_min_clipped,
            last: config.final_sigmas_type.into(),
            variance_type: config.variance_type,
            needs_noise: config.algorithm_type.needs_noise(),
            ..config.solver()
        })?;
        let orders = orders(&config, base.len());
        Ok(Self {
            config,
            update,
            base,
            orders,
            block: History::default(),
            start: None,
        })
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
    fn takes_variance(&self) -> bool {
        self.config
            .variance_type
            .is_some_and(crate::schedulers::VarianceType::is_learned)
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.base
            .set_loop(options, &["timesteps", "mu"], self.config.use_dynamic_shifting)?;
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
        let prediction = self.base.predicted.without_variance(prediction, &x)?;
        let i = self.base.steps.step(t)?;
        let (here, next) = (self.base.level(i), self.base.level(i + 1));
        let noise = self.update.draw_noise(self.base.plan.class_name, &x, options)?;

        let (output, clean) = self.update.output(&self.base.predicted, prediction, &x, here);
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
