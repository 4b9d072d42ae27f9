//! DEIS: the diffusion exponential integrator, as a multistep solver with polynomials in log ρ (Zhang and Chen 2023). Mirrors
//! `diffusers.DEISMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    dpm_loop::{DpmBase, SolverOptions, loop_of_base, order_of_step},
    dpm_solver::{History, Level, SolverPrediction, weighted_sum},
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

scheduler_class! {
    /// The configuration of a [`DEISMultistepScheduler`], with diffusers' names and defaults.
    pub struct DEISMultistepConfig for DEISMultistepScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// How many outputs of the model a step uses: 1 to 3.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        ..thresholding,
        /// `deis`.
        algorithm_type: DeisAlgorithm = DeisAlgorithm::Deis,
        /// `logrho`.
        solver_type: DeisSolver = DeisSolver::LogRho,
        /// Whether a loop of fewer than 15 steps ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
        ..sigma_flags,
        ..flow,
        ..steps(Linspace),
        ..dynamic_shifting,
    }

    facts {
        also_flows: true,
    }

    samplers {
        "deis", "2", false, "exponential integrator with polynomials in log sigma";
    }
}

/// The exponential integrator whose steps take the noise for a polynomial in log ρ through those of the steps behind.
#[derive(Clone, Debug)]
pub struct DEISMultistepScheduler {
    config: DEISMultistepConfig,
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
        let base = DpmBase::new(SolverOptions {
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            ..config.solver()
        })?;
        Ok(Self {
            config,
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
            false,
        )
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
        self.base
            .set_loop(options, &["mu"], self.config.use_dynamic_shifting)?;
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

        let (noise, clean) = self.base.predicted.noise(prediction, &x, here);
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
