//! DEIS: the diffusion exponential integrator, as a multistep solver with polynomials in log ρ (Zhang and Chen 2023). Mirrors
//! `diffusers.DEISMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, ConfigMap, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput, TimeShiftType,
    TimestepSpacing,
    config::{self, scheduler_config},
    dpm_loop::{self, DpmBase, DpmLoop, Last, SpreadFlags, loop_of_base},
    dpm_solver::{History, Level, Predicted, SolverPrediction, weighted_sum},
    dpmsolver_multistep::FEW_STEPS,
    noise_schedule::noise_schedule_of,
    prediction::Bounds,
    sigmas::SigmaTable,
};
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// The one algorithm that [`DEISMultistepScheduler`] has.
    #[derive(Default)]
    pub enum DeisAlgorithm: "an algorithm of DEIS" {
        /// DEIS. The names of DPM-Solver's, which configs for that class hold, are read as this.
        #[default]
        #[serde(alias = "dpmsolver", alias = "dpmsolver++")]
        Deis = "deis",
    }
}

named_enum! {
    /// The variable in which [`DEISMultistepScheduler`] takes the noise for a polynomial.
    #[derive(Default)]
    pub enum DeisSolver: "a solver of DEIS" {
        /// log ρ, where ρ = σ / α. The names of other classes' solvers are read as this.
        #[default]
        #[serde(alias = "midpoint", alias = "heun", alias = "bh1", alias = "bh2")]
        LogRho = "logrho",
    }
}

scheduler_config! {
    /// The configuration of a [`DEISMultistepScheduler`], with diffusers' names and defaults.
    pub struct DEISMultistepConfig: "DEISMultistepScheduler" {
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
        /// `deis`.
        algorithm_type: DeisAlgorithm = DeisAlgorithm::Deis,
        /// `logrho`.
        solver_type: DeisSolver = DeisSolver::LogRho,
        /// Whether a loop of fewer than 15 steps ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
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
        /// How the steps of a loop are spread.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Linspace,
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
        /// Whether a loop's `mu` may take the place of `flow_shift`, as its exponential.
        use_dynamic_shifting: bool = false,
        /// How `mu` shifts.
        time_shift_type: TimeShiftType = TimeShiftType::Exponential,
    }
}

/// The exponential integrator whose steps take the noise for a polynomial in log ρ through those of the steps behind.
#[derive(Clone, Debug)]
pub struct DEISMultistepScheduler {
    config: DEISMultistepConfig,
    predicted: Predicted,
    base: DpmBase,
    history: History,
}

impl DEISMultistepScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DEISMultistepConfig) -> Result<Self> {
        let class_name = DEISMultistepConfig::CLASS_NAME;
        if !(1..=3).contains(&config.solver_order) {
            return Err(Error::Config(format!(
                "solver_order is {}, but {class_name} has 1 to 3",
                config.solver_order
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
            last_timestep: config.num_train_timesteps,
            table,
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            spread,
            rounds: true,
            sigma_min: dpm_loop::foreign_sigma(&config.extra, "sigma_min"),
            sigma_max: dpm_loop::foreign_sigma(&config.extra, "sigma_max"),
            last: Last::OfLastStep,
        };
        let base = DpmBase::new(noise, plan);
        let predicted = Predicted {
            kind: config.prediction_type,
            bounds: Bounds::thresholding(
                config.thresholding,
                config.dynamic_thresholding_ratio,
                config.sample_max_value,
            ),
            variance_type: None,
        };
        predicted.check(class_name, base.mixture, false)?;
        Ok(Self {
            config,
            predicted,
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
    pub fn config(&self) -> &DEISMultistepConfig {
        &self.config
    }

    /// The order of step `i`: fewer at a loop's end, where the config asks for it.
    fn order_of_step(&self, i: usize) -> usize {
        let steps = self.base.len();
        let lowers = self.config.lower_order_final && steps < FEW_STEPS;
        match steps - i {
            1 if lowers => 1,
            2 if lowers => self.config.solver_order.min(2),
            _ => self.config.solver_order,
        }
    }
}

/// x_t = α_t (x / α_s + Σ_j C_j ε_j) with C_j = ∫ L_j d ρ from ρ_s to ρ_t, where L_j are Lagrange's polynomials in log ρ through the
/// levels of the newest `order` outputs (Zhang and Chen 2023, eq. 14 and 15).
fn update(order: usize, x: Tensor<4>, history: &History, t: Level) -> Tensor<4> {
    let Some(&(s, _)) = history.get(0) else {
        return x;
    };
    // u = log ρ - log ρ_s = λ_s - λ: 0 where the step begins, and its places of the older outputs.
    let end = s.lambda - t.lambda;
    if end == 0.0 {
        return x;
    }
    let behind = |back| {
        history
            .get(back)
            .map(|(level, _): &(Level, _)| s.lambda - level.lambda)
    };
    // ∫ u^k dρ over the step, with ρ = ρ_s e^u.
    let rho = s.sigma / s.alpha;
    let moments = [
        rho * end.exp_m1(),
        rho * (end.exp() * (end - 1.0) + 1.0),
        rho * (end.exp() * (end * end - 2.0 * end + 2.0) - 2.0),
    ];
    let [m0, m1, m2] = moments;
    let coefficients = match (order, behind(1), behind(2)) {
        (3.., Some(u1), Some(u2)) => [
            (m2 - (u1 + u2) * m1 + u1 * u2 * m0) / (u1 * u2),
            (m2 - u2 * m1) / (u1 * (u1 - u2)),
            (m2 - u1 * m1) / (u2 * (u2 - u1)),
        ],
        (2.., Some(u1), _) => [(u1 * m0 - m1) / u1, m1 / u1, 0.0],
        _ => [m0, 0.0, 0.0],
    };
    let outputs = history.newest_first().map(|(_, noise)| noise);
    let weights = coefficients.into_iter().map(|coefficient| t.alpha * coefficient);
    weighted_sum(x * (t.alpha / s.alpha), weights.zip(outputs))
}

impl Scheduler for DEISMultistepScheduler {
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(self.base.plan.class_name, &["mu"])?;
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
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let prediction = self.predicted.without_variance(prediction, &x)?;
        let i = self.base.steps.step(t)?;
        let (here, next) = (self.base.level(i), self.base.level(i + 1));

        let (noise, clean) = self.predicted.noise(prediction, &x, here);
        self.history.push(here, noise, self.config.solver_order);
        let previous = update(self.order_of_step(i), x, &self.history, next);
        self.base.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    loop_of_base!();
}
