//! DPM-Solver and DPM-Solver++ run backwards, from a picture to the noise that it comes from. Mirrors
//! `diffusers.DPMSolverMultistepInverseScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput, TimestepSpacing,
    class::scheduler_class,
    dpm_loop::{self, DpmBase, SolverOptions, Spread, loop_of_base, order_of_step},
    dpm_solver::{History, SolverPrediction},
    dpm_update::{AlgorithmType, DpmUpdate, SolverType},
    sigma_loop::SigmaLoop,
    sigmas::{FinalSigmas, SigmaSpacing, linspace},
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of a [`DPMSolverMultistepInverseScheduler`], with diffusers' names and defaults.
    pub struct DPMSolverMultistepInverseConfig for DPMSolverMultistepInverseScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// How many outputs of the model a step uses: 1 to 3.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        ..thresholding,
        /// Which equation is integrated: `dpmsolver` or `dpmsolver++`. There is no stochastic way up.
        algorithm_type: AlgorithmType = AlgorithmType::DpmPlusPlus,
        /// How a second-order step weighs the slope of the model's output.
        solver_type: SolverType = SolverType::Midpoint,
        /// Whether a loop of fewer than 15 steps ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
        /// Whether the last step is of the first order whatever the number of steps.
        euler_at_final: bool = false,
        ..sigma_flags,
        ..flow,
        ..least_lambda,
        ..steps(Linspace),
    }

    facts {
        no_sampler: Some("goes from a picture to its noise, and so draws none"),
    }

    samplers {
        "dpm++2m-inverse", "2", false, "from a picture to its noise; in the library";
    }
}

/// The inversion of [`DPMSolverMultistepScheduler`](super::DPMSolverMultistepScheduler): the same equation, integrated from the
/// picture up to the noise. Its timesteps therefore rise.
///
/// Where spread noise levels fall on the same whole timestep, the loop asks the model there as often; diffusers drops the
/// timestep but not its level, so that the steps after it no longer fit their timesteps.
#[derive(Clone, Debug)]
pub struct DPMSolverMultistepInverseScheduler {
    config: DPMSolverMultistepInverseConfig,
    update: DpmUpdate,
    base: DpmBase,
    history: History,
}

impl DPMSolverMultistepInverseScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DPMSolverMultistepInverseConfig) -> Result<Self> {
        let class_name = DPMSolverMultistepInverseConfig::CLASS_NAME;
        let update = DpmUpdate {
            algorithm: config.algorithm_type,
            solver: config.solver_type,
        };
        update.check(class_name, config.solver_order, FinalSigmas::SigmaMin)?;
        if config.algorithm_type.is_stochastic() {
            return Err(Error::Config(format!(
                "algorithm_type is {}, but {class_name} goes up to the noise, where there is none to add: it has dpmsolver \
                 and dpmsolver++",
                config.algorithm_type
            )));
        }
        if config.use_flow_sigmas {
            return Err(Error::Config(format!(
                "{class_name} does not invert flows: use_flow_sigmas must be false"
            )));
        }
        let mut base = DpmBase::new(SolverOptions {
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            lambda_min_clipped: config.lambda_min_clipped,
            sigma_min: None,
            sigma_max: None,
            variance_type: config.variance_type,
            needs_noise: config.algorithm_type.needs_noise(),
            ..config.solver()
        })?;
        base.steps = rising(
            (0..base.len()).map(|t| t as f64).collect(),
            base.steps
                .sigmas()
                .iter()
                .skip(1)
                .rev()
                .map(|&sigma| sigma.into())
                .collect(),
            None,
        );
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
        order_of_step(
            config.solver_order,
            i,
            self.base.len(),
            config.lower_order_final,
            config.euler_at_final,
        )
    }

    /// The timesteps of a loop, rising, without the noisiest, where the last step ends.
    fn timesteps_of(&self, steps: usize) -> Result<Vec<f64>> {
        let plan = &self.base.plan;
        let (train, last) = (self.num_train_timesteps(), plan.last_timestep);
        let falling =
            dpm_loop::whole_timesteps(plan.timestep_spacing, train, last, steps, plan.steps_offset)?;
        Ok(match plan.timestep_spacing {
            TimestepSpacing::Linspace => linspace(0.0, (last - 1) as f64, steps + 1)[..steps]
                .iter()
                .map(|t| t.round_ties_even())
                .collect(),
            TimestepSpacing::Leading => {
                let stride = (last / (steps + 1)).max(1);
                (0..steps)
                    .map(|i| (i * stride + plan.steps_offset).min(train - 1) as f64)
                    .collect()
            }
            TimestepSpacing::Trailing => falling.into_iter().rev().collect(),
        })
    }
}

/// A loop that rises to the level `end`, or to that of its last step. Steps that come twice are left out once.
fn rising(timesteps: Vec<f64>, sigmas: Vec<f64>, end: Option<f64>) -> SigmaLoop {
    let mut steps: Vec<(f64, f32)> = timesteps
        .into_iter()
        .zip(sigmas)
        .map(|(t, sigma)| (t, sigma as f32))
        .collect();
    steps.dedup();
    let last = steps.last().map_or(0.0, |(_, sigma)| *sigma);
    let end = end.map_or(last, |end| (end as f32).max(last));
    let (timesteps, mut sigmas): (Vec<f64>, Vec<f32>) = steps.into_iter().unzip();
    sigmas.push(end);
    SigmaLoop::new(timesteps, sigmas)
}

impl Scheduler for DPMSolverMultistepInverseScheduler {
    fn takes_variance(&self) -> bool {
        self.config
            .variance_type
            .is_some_and(crate::schedulers::VarianceType::is_learned)
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = self.base.plan.class_name;
        options.only(class_name, &[])?;
        let steps = options.number(class_name)?;
        let timesteps = self.timesteps_of(steps)?;
        let table = &self.base.plan.table;
        let (low, high) = (table.sigmas()[0], table.sigmas()[table.sigmas().len() - 1]);
        self.base.steps = match self.base.plan.spread {
            Some(Spread::Between(spacing)) => {
                let sigmas = spacing.spread(low.into(), high.into(), steps);
                let of_sigmas = sigmas.iter().map(|&sigma| table.timestep(sigma));
                let timesteps = dpm_loop::whole(of_sigmas, spacing == SigmaSpacing::Karras);
                rising(timesteps, sigmas, None)
            }
            _ => {
                let sigmas = timesteps.iter().map(|&t| table.at(t)).collect();
                rising(
                    timesteps,
                    sigmas,
                    Some(table.at((self.base.plan.last_timestep - 1) as f64)),
                )
            }
        };
        self.history.clear();
        Ok(())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let prediction = self.base.predicted.without_variance(prediction, &x)?;
        let i = self.base.steps.step(t)?;
        let (here, next) = (self.base.level(i), self.base.level(i + 1));

        let (output, clean) = self.update.output(&self.base.predicted, prediction, &x, here);
        self.history.push(here, output, self.config.solver_order);
        let previous = self
            .update
            .multistep(self.order_of_step(i), x, &self.history, next, None);
        self.base.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    loop_of_base!();
}
