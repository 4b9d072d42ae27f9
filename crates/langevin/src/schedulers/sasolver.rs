//! SA-Solver: a stochastic Adams method, predictor and corrector (Xue et al. 2023). Mirrors `diffusers.SASolverScheduler`.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{
    ConfigMap, LoopOptions, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    dpm_loop::{DpmBase, SolverOptions, loop_of_base},
    dpm_solver::{History, Level, SolverPrediction, weighted_sum},
};
use crate::{Error, Result, named::named_enum};

/// The most outputs of the model that a step uses.
const MOST_ORDER: usize = 4;

named_enum! {
    /// What SA-Solver integrates.
    #[derive(Default)]
    pub enum SaAlgorithm: "an algorithm of SA-Solver" {
        /// The clean sample. The names of DPM-Solver++ and DEIS, which configs for those classes hold, are read as this.
        #[default]
        #[serde(alias = "dpmsolver++", alias = "sde-dpmsolver++", alias = "deis")]
        DataPrediction = "data_prediction",
        /// The noise. The names of DPM-Solver are read as this.
        #[serde(alias = "dpmsolver", alias = "sde-dpmsolver")]
        NoisePrediction = "noise_prediction",
    }
}

scheduler_class! {
    /// The configuration of an [`SASolverScheduler`], with diffusers' names and defaults.
    pub struct SASolverConfig for SASolverScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// How many outputs of the model the predictor uses: 1 to 4.
        predictor_order: usize = 2,
        /// How many outputs of the model the corrector uses, with that of the step it corrects: 1 to 4.
        corrector_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        /// A function in Python, which no file can hold: `None`. Here it is [`SASolverScheduler::with_tau`].
        tau_func: Option<ConfigMap> = None,
        ..thresholding,
        /// Whether the clean sample or the noise is integrated.
        algorithm_type: SaAlgorithm = SaAlgorithm::DataPrediction,
        /// Whether a loop ends with steps of lower orders, which is steadier.
        lower_order_final: bool = true,
        ..sigma_flags,
        ..flow,
        ..least_lambda,
        ..steps(Linspace),
    }

    facts {
        also_flows: true,
    }

    samplers {
        "sa-solver", "noise", true, "stochastic Adams: noise in the middle of the schedule alone";
    }
}

/// τ as a function of the timestep.
#[derive(Clone)]
struct Tau(Arc<dyn Fn(f64) -> f64 + Send + Sync>);

impl std::fmt::Debug for Tau {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tau(..)")
    }
}

impl Default for Tau {
    /// Stochastic in the middle of a schedule of 1000 timesteps, and deterministic at its ends.
    fn default() -> Self {
        Self(Arc::new(|t| f64::from((200.0..=800.0).contains(&t))))
    }
}

/// The stochastic Adams solver: how much noise its steps take away and add again is a function τ of the timestep, 0 for the
/// probability-flow equation and 1 for the reverse diffusion. A step predicts by the outputs behind (Adams and Bashforth), and
/// corrects the sample with the same noise once the model has been asked there (Adams and Moulton).
#[derive(Clone, Debug)]
pub struct SASolverScheduler {
    config: SASolverConfig,
    base: DpmBase,
    tau: Tau,
    history: History,
    last: Option<LastStep>,
}

/// What the corrector needs to know of the step before.
#[derive(Clone, Debug)]
struct LastStep {
    /// The sample that it began with, as corrected.
    sample: Tensor<4>,
    noise: Tensor<4>,
    tau: f64,
    /// The order that its correction has.
    order: usize,
}

impl SASolverScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: SASolverConfig) -> Result<Self> {
        let class_name = SASolverConfig::CLASS_NAME;
        for (name, order) in [
            ("predictor_order", config.predictor_order),
            ("corrector_order", config.corrector_order),
        ] {
            if order == 0 || order > MOST_ORDER {
                return Err(Error::Config(format!(
                    "{name} is {order}, but {class_name} has 1 to {MOST_ORDER}"
                )));
            }
        }
        if config.tau_func.is_some() {
            return Err(Error::Config(
                "tau_func is a function, which a config cannot hold; it is given with SASolverScheduler::with_tau".to_owned(),
            ));
        }
        let base = DpmBase::new(SolverOptions {
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            lambda_min_clipped: config.lambda_min_clipped,
            variance_type: config.variance_type,
            needs_noise: config.algorithm_type == SaAlgorithm::NoisePrediction,
            ..config.solver()
        })?;
        Ok(Self {
            config,
            base,
            tau: Tau::default(),
            history: History::default(),
            last: None,
        })
    }

    /// The same with another τ: how stochastic the step at a timestep is, at least 0. By default it is 1 from timestep 200 to
    /// 800, and 0 elsewhere.
    pub fn with_tau(mut self, tau: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        self.tau = Tau(Arc::new(tau));
        self
    }

    fn integrates_clean(&self) -> bool {
        self.config.algorithm_type == SaAlgorithm::DataPrediction
    }

    /// A step from `x` at level `s` to level `t`, with outputs at the places `nodes` = λ - λ_t (Xue et al. 2023, eq. 14 and 17):
    /// x_t = (σ_t/σ_s) e^{-τ²h} x + Σ_j b_j x̂_j + σ_t √(1 - e^{-2τ²h}) ε, where b_j is (1 + τ²) α_t ∫ L_j(u) e^{(1+τ²)u} du from -h
    /// to 0, and L_j are Lagrange's polynomials through the nodes. `tweaks` are added to the first integrals.
    fn update(
        &self,
        x: Tensor<4>,
        noise: &Tensor<4>,
        (s, t): (Level, Level),
        tau: f64,
        outputs: &[(f64, &Tensor<4>)],
        tweaks: &[f64],
    ) -> Tensor<4> {
        let h = t.lambda - s.lambda;
        let square = tau * tau;
        let (sample, scale, exponent, of_noise) = if self.integrates_clean() {
            (
                (-square * h).exp() * (t.sigma / s.sigma),
                (1.0 + square) * t.alpha,
                1.0 + square,
                t.sigma * (-(-2.0 * square * h).exp_m1()).max(0.0).sqrt(),
            )
        } else {
            (
                t.alpha / s.alpha,
                -(1.0 + square) * t.sigma,
                -1.0,
                tau * t.sigma * (2.0 * h).exp_m1().max(0.0).sqrt(),
            )
        };
        let nodes: Vec<f64> = outputs.iter().map(|(node, _)| *node).collect();
        let mut integrals = lagrange_integrals(&nodes, h, exponent);
        for (integral, tweak) in integrals.iter_mut().zip(tweaks) {
            *integral += tweak;
        }
        let terms = integrals
            .iter()
            .zip(outputs)
            .map(|(integral, (_, output))| (scale * integral, *output));
        weighted_sum(x * sample, terms.chain([(of_noise, noise)]))
    }

    /// (h²/2 - (c h - 1 + e^{-c h}) / c²) / `width` with c = 1 + τ²: what diffusers adds to the integrals of second-order steps, to
    /// make them those of UniPC and DPM-Solver++ for τ = 0.
    fn tweak(&self, h: f64, tau: f64, width: f64) -> Vec<f64> {
        if !self.integrates_clean() {
            return Vec::new();
        }
        let c = 1.0 + tau * tau;
        let tweak = (h * h / 2.0 - (c * h + (-c * h).exp_m1()) / (c * c)) / width;
        vec![tweak, -tweak]
    }

    /// The stochastic Adams-Bashforth step: from the sample at the newest output to level `t`.
    fn predict(&self, order: usize, x: Tensor<4>, noise: &Tensor<4>, t: Level, tau: f64) -> Tensor<4> {
        let Some(&(s, _)) = self.history.get(0) else {
            return x;
        };
        let h = t.lambda - s.lambda;
        if h == 0.0 {
            return x;
        }
        let entries = self.history.newest_first().take(order);
        let outputs: Vec<_> = entries
            .map(|(level, output)| (level.lambda - t.lambda, output))
            .collect();
        let tweaks = match outputs.as_slice() {
            [(newest, _), (older, _)] => self.tweak(h, tau, newest - older),
            _ => Vec::new(),
        };
        self.update(x, noise, (s, t), tau, &outputs, &tweaks)
    }

    /// The stochastic Adams-Moulton step: the last one once more, with the output at its end too.
    fn correct(&self, last: LastStep, this: Tensor<4>, output: &Tensor<4>, t: Level) -> Tensor<4> {
        let Some(&(s, _)) = self.history.get(0) else {
            return this;
        };
        let h = t.lambda - s.lambda;
        if h == 0.0 {
            return this;
        }
        let behind = self.history.newest_first().take(last.order - 1);
        let behind = behind.map(|(level, output)| (level.lambda - t.lambda, output));
        let outputs: Vec<_> = [(0.0, output)].into_iter().chain(behind).collect();
        let tweaks = if outputs.len() == 2 {
            self.tweak(h, last.tau, h)
        } else {
            Vec::new()
        };
        self.update(last.sample, &last.noise, (s, t), last.tau, &outputs, &tweaks)
    }
}

/// ∫ L_j(u) e^{c u} du from -h to 0 of Lagrange's polynomials through `nodes`.
fn lagrange_integrals(nodes: &[f64], h: f64, c: f64) -> Vec<f64> {
    // ∫ u^k e^{c u} du, each from the one before by parts.
    let at_start = (-c * h).exp();
    let mut moments = vec![-(-c * h).exp_m1() / c];
    for k in 1..nodes.len() {
        let boundary = -(-h).powi(k as i32) * at_start / c;
        moments.push(boundary - k as f64 / c * moments[k - 1]);
    }
    let integral = |j: usize| {
        // The polynomial's coefficients, from the constant up.
        let mut polynomial = vec![1.0];
        for (_, &node) in nodes.iter().enumerate().filter(|(k, _)| *k != j) {
            let width = nodes[j] - node;
            let mut product = vec![0.0; polynomial.len() + 1];
            for (k, coefficient) in polynomial.iter().enumerate() {
                product[k] -= coefficient * node / width;
                product[k + 1] += coefficient / width;
            }
            polynomial = product;
        }
        polynomial
            .iter()
            .zip(&moments)
            .map(|(a, moment)| a * moment)
            .sum()
    };
    (0..nodes.len()).map(integral).collect()
}

impl Scheduler for SASolverScheduler {
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.base.set_loop(options, &[], false)?;
        self.history.clear();
        self.last = None;
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
        let tau = (self.tau.0)(t);
        if !(tau >= 0.0 && tau.is_finite()) {
            return Err(Error::Config(format!(
                "tau at timestep {t} is {tau}, but it must be 0 or more"
            )));
        }
        let (output, clean) = if self.integrates_clean() {
            let clean = self.base.predicted.clean(&prediction, &x, here);
            (clean.clone(), clean)
        } else {
            self.base.predicted.noise(prediction, &x, here)
        };
        // Drawn also where τ is 0, as in diffusers.
        let noise = options.draw_noise(self.base.plan.class_name, &x)?;

        let x = match self.last.take() {
            Some(last) if i > 0 => self.correct(last, x, &output, here),
            _ => x,
        };

        let config = &self.config;
        let most = config.predictor_order.max(config.corrector_order - 1);
        self.history.push(here, output, most);
        let (mut predictor_order, mut corrector_order) = (config.predictor_order, config.corrector_order);
        if config.lower_order_final {
            let left = self.base.len() - i;
            predictor_order = predictor_order.min(left);
            corrector_order = corrector_order.min(left + 1);
        }
        let order = predictor_order.min(self.history.len());
        let previous = self.predict(order, x.clone(), &noise, next, tau);
        self.last = Some(LastStep {
            sample: x,
            noise,
            tau,
            order: corrector_order.min(self.history.len() + 1),
        });
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
    fn integrals_are_those_of_fine_sums() {
        let (h, c) = (0.7, 1.5);
        let nodes = [0.0, -0.7, -1.1];
        let found = lagrange_integrals(&nodes, h, c);
        let steps = 20_000;
        for (j, found) in found.into_iter().enumerate() {
            let lagrange = |u: f64| -> f64 {
                let others = (0..3).filter(|k| *k != j);
                others.map(|k| (u - nodes[k]) / (nodes[j] - nodes[k])).product()
            };
            let middle = |i: usize| -h * (i as f64 + 0.5) / f64::from(steps);
            let sum: f64 = (0..steps as usize)
                .map(|i| lagrange(middle(i)) * (c * middle(i)).exp())
                .sum();
            assert!((found - sum * h / f64::from(steps)).abs() < 1e-8, "{j}: {found}");
        }
    }
}
