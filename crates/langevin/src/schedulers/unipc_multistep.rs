//! UniPC: a predictor and a corrector of any order (Zhao et al. 2023). Mirrors `diffusers.UniPCMultistepScheduler`.

use burn::tensor::Tensor;

use super::{
    AnyScheduler, ConfigMap, FinalSigmas, GivenLoop, LoopOptions, Scheduler, StepOptions, StepOutput,
    TimeShiftType,
    class::scheduler_class,
    dpm_loop::{self, DpmBase, Last, SolverOptions, Spread, SpreadFlags, loop_of_base},
    dpm_solver::{History, Level, SolverPrediction, phi, weighted_sum},
    prediction::Bounds,
    sigma_loop::SigmaLoop,
    sigmas::{SigmaSpacing, check_sigmas, linspace, shifted},
};
use crate::{Error, Result, named::named_enum};

/// How far below 1, where no signal is left, a flow's first level stays.
const LEAST_SIGNAL: f64 = 1e-6;

/// Orders above this solve equations that have no digits left.
const MOST_ORDER: usize = 9;

named_enum! {
    /// The function B(h) that UniPC's steps are scaled by.
    #[derive(Default)]
    pub enum BhSolver: "a solver of UniPC" {
        /// B(h) = h.
        Bh1 = "bh1",
        /// B(h) = exp h - 1. The names of other classes' solvers are read as this.
        #[default]
        #[serde(alias = "midpoint", alias = "heun", alias = "logrho")]
        Bh2 = "bh2",
    }
}

scheduler_class! {
    /// The configuration of a [`UniPCMultistepScheduler`], with diffusers' names and defaults.
    pub struct UniPCMultistepConfig for UniPCMultistepScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// How many outputs of the model a step uses: 1 or more; the corrector is of one order more.
        solver_order: usize = 2,
        /// What the model predicts.
        prediction_type: SolverPrediction = SolverPrediction::Epsilon,
        ..thresholding,
        /// Whether the solver integrates the clean sample, not the noise.
        predict_x0: bool = true,
        /// The function B(h) that a step is scaled by.
        solver_type: BhSolver = BhSolver::Bh2,
        /// Whether a loop ends with steps of lower orders, which is steadier. One that ends without noise always ends with a
        /// step of the first.
        lower_order_final: bool = true,
        /// The steps, counted from 0, that the next one does not correct.
        disable_corrector: Vec<usize> = Vec::new(),
        /// The config of the scheduler, with its `_class_name`, that predicts in place of this one, which then only corrects.
        solver_p: Option<ConfigMap> = None,
        ..sigma_flags,
        ..flow,
        ..steps(Linspace),
        /// The noise level that a loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::Zero,
        /// Whether the schedule is moved to end with next to no signal.
        rescale_betas_zero_snr: bool = false,
        ..dynamic_shifting,
        /// The least level of spread noise levels, in place of the schedule's.
        sigma_min: Option<f64> = None,
        /// The highest level of spread noise levels, in place of the schedule's.
        sigma_max: Option<f64> = None,
        /// The level that a flow's last step begins at; the others are stretched to it.
        shift_terminal: Option<f64> = None,
    }

    facts {
        also_flows: true,
    }

    samplers {
        "unipc", "3", false, "predictor and corrector: good in 10 steps";
    }
}

/// The unified predictor and corrector: a step predicts the next sample from the outputs behind, and corrects it once the model
/// has been asked there, without asking it again.
#[derive(Clone, Debug)]
pub struct UniPCMultistepScheduler {
    config: UniPCMultistepConfig,
    base: DpmBase,
    /// What predicts in place of this solver.
    predictor: Option<Box<AnyScheduler>>,
    history: History,
    /// The sample that the last step began with, as corrected, and the order of its prediction.
    last: Option<(Tensor<4>, usize)>,
}

impl UniPCMultistepScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: UniPCMultistepConfig) -> Result<Self> {
        config.check()?;
        let solver = config.solver();
        let base = DpmBase::new(SolverOptions {
            noise: solver.noise.rescaled(config.rescale_betas_zero_snr),
            timestep_spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            spread: SpreadFlags {
                // A flow's levels can be spread as Karras's; these are made from the schedule's below.
                karras: config.use_karras_sigmas && !config.use_flow_sigmas,
                ..solver.spread
            },
            sigma_min: config.sigma_min,
            sigma_max: config.sigma_max,
            last: match config.final_sigmas_type {
                FinalSigmas::Zero => Last::Zero,
                FinalSigmas::SigmaMin => Last::OfLastStep,
            },
            // Diffusers thresholds the clean sample alone.
            bounds: Bounds {
                thresholding: config.thresholding && config.predict_x0,
                ..solver.bounds
            },
            needs_noise: !config.predict_x0,
            ..solver
        })?;
        let predictor = config.solver_p.clone().map(AnyScheduler::from_json).transpose()?;
        Ok(Self {
            config,
            base,
            predictor: predictor.map(Box::new),
            history: History::default(),
            last: None,
        })
    }

    /// The order of step `i`'s prediction.
    fn order_of_step(&self, i: usize) -> usize {
        let left = self.base.len() - i;
        let ends_clean = self.config.final_sigmas_type == FinalSigmas::Zero;
        let most = if self.config.lower_order_final || (ends_clean && left == 1) {
            self.config.solver_order.min(left)
        } else {
            self.config.solver_order
        };
        most.min(self.history.len())
    }

    /// The loop over a flow's levels.
    fn flow_loop(&self, options: &LoopOptions) -> Result<SigmaLoop> {
        let config = &self.config;
        let (table, train) = (&self.base.plan.table, self.num_train_timesteps());
        let given = match options.given(self.base.plan.class_name)? {
            GivenLoop::Timesteps(_) => {
                return Err(Error::Config(format!(
                    "{} takes a number of steps or sigmas for its loop, not timesteps",
                    self.base.plan.class_name
                )));
            }
            GivenLoop::Sigmas(_) if config.use_karras_sigmas => {
                return Err(Error::Config(
                    "sigmas cannot be given where use_karras_sigmas spreads them".to_owned(),
                ));
            }
            GivenLoop::Sigmas(sigmas) => {
                check_sigmas(sigmas, false)?;
                if sigmas[0] > 1.0 {
                    return Err(Error::Config(format!(
                        "a custom sigma is {}, but a flow's noise levels are at most 1",
                        sigmas[0]
                    )));
                }
                sigmas.to_vec()
            }
            GivenLoop::Steps(steps) if steps == 0 || steps > train => {
                return Err(Error::Config(format!(
                    "{steps} inference steps were asked for, but this schedule has 1 to {train} of them"
                )));
            }
            GivenLoop::Steps(steps) => {
                let mut even = linspace(1.0, 1.0 / train as f64, steps + 1);
                even.truncate(steps);
                even
            }
        };
        let sigmas: Vec<f64> = if config.use_karras_sigmas {
            let max = config.sigma_max.unwrap_or(table.sigmas()[train - 1].into());
            let min = config.sigma_min.unwrap_or(table.sigmas()[0].into());
            // Some signal is left at a flow's first level, however noisy the schedule's is.
            let max = f64::min(max, 1.0 / LEAST_SIGNAL - 1.0);
            let spread = SigmaSpacing::Karras.spread(max, min, given.len());
            spread.into_iter().map(|sigma| sigma / (sigma + 1.0)).collect()
        } else {
            self.shifted_flow(given, options.mu)?
        };
        let timesteps = dpm_loop::whole(sigmas.iter().map(|sigma| sigma * train as f64), false);
        let end = match config.final_sigmas_type {
            FinalSigmas::Zero => None,
            FinalSigmas::SigmaMin => sigmas.last().copied(),
        };
        let sigmas = sigmas.into_iter().chain([end.unwrap_or(0.0)]);
        Ok(SigmaLoop::new(
            timesteps,
            sigmas.map(|sigma| sigma as f32).collect(),
        ))
    }

    /// A flow's levels, shifted towards the noise and stretched to the terminal one.
    fn shifted_flow(&self, sigmas: Vec<f64>, mu: Option<f64>) -> Result<Vec<f64>> {
        let config = &self.config;
        let shift: Box<dyn Fn(f64) -> f64> = match (config.use_dynamic_shifting, mu) {
            (false, _) => Box::new(|sigma| shifted(sigma, config.flow_shift)),
            (true, None) => {
                return Err(Error::Config(
                    "use_dynamic_shifting is true, so a loop needs a `mu`".to_owned(),
                ));
            }
            (true, Some(mu)) => {
                let scale = match config.time_shift_type {
                    TimeShiftType::Exponential => mu.exp(),
                    TimeShiftType::Linear => mu,
                };
                if !(scale > 0.0 && scale.is_finite()) {
                    return Err(Error::Config(format!(
                        "mu is {mu}, which shifts by {scale}; it must be above 0"
                    )));
                }
                Box::new(move |sigma| scale / (scale + 1.0 / sigma - 1.0))
            }
        };
        let mut sigmas: Vec<f64> = sigmas.into_iter().map(shift).collect();
        let signal_of_last = 1.0 - sigmas.last().copied().unwrap_or_default();
        if let Some(terminal) = config.shift_terminal.filter(|_| signal_of_last > 0.0) {
            let scale = signal_of_last / (1.0 - terminal);
            for sigma in &mut sigmas {
                *sigma = 1.0 - (1.0 - *sigma) / scale;
            }
        }
        if (sigmas[0] - 1.0).abs() < LEAST_SIGNAL {
            sigmas[0] -= LEAST_SIGNAL;
        }
        Ok(sigmas)
    }

    /// The sample at level `t`, from `x` at the newest of the history, with the slopes to other outputs weighed by `rho`: the form
    /// that predictor and corrector share (Zhao et al. 2023, eq. 3 and 9). Each of `slopes` is (r_m, ρ_m, output).
    fn update(&self, x: Tensor<4>, t: Level, slopes: &[(f64, f64, &Tensor<4>)]) -> Tensor<4> {
        let Some((s, m0)) = self.history.get(0) else {
            return x;
        };
        let h = t.lambda - s.lambda;
        // x_t = σ_t/σ_s x - α_t (e^{-h} - 1) m_0 - α_t B(h) Σ ρ_m (m_m - m_0) / r_m, or in the noise with α and σ exchanged.
        let (sample, value, scale) = if self.config.predict_x0 {
            (t.sigma / s.sigma, -t.alpha * (-h).exp_m1(), -t.alpha)
        } else {
            // σ_t (e^h - 1), in a form that holds where σ_t is 0.
            (t.alpha / s.alpha, t.sigma - t.alpha * s.sigma / s.alpha, -t.sigma)
        };
        let scale = if slopes.is_empty() {
            0.0
        } else {
            scale * self.b_of(self.signed(h))
        };
        let of_newest = slopes
            .iter()
            .fold(value, |sum, (r, rho, _)| sum - scale * rho / r);
        let others = slopes.iter().map(|(r, rho, output)| (scale * rho / r, *output));
        weighted_sum(x * sample, [(of_newest, m0)].into_iter().chain(others))
    }

    /// h with the sign of the equation's exponent.
    fn signed(&self, h: f64) -> f64 {
        if self.config.predict_x0 { -h } else { h }
    }

    /// B(h).
    fn b_of(&self, h: f64) -> f64 {
        match self.config.solver_type {
            BhSolver::Bh1 => h,
            BhSolver::Bh2 => h.exp_m1(),
        }
    }

    /// The weights ρ that make Σ_m ρ_m r_m^{k-1} = k! h φ_{k+1}(h) / B(h) for k from 1 on: the step is then exact for as many
    /// powers of λ (Zhao et al. 2023, eq. 5).
    fn weights(&self, r: &[f64], h: f64) -> Vec<f64> {
        let h = self.signed(h);
        let mut factorial = 1.0;
        let mut rows = Vec::with_capacity(r.len());
        for k in 1..=r.len() {
            factorial *= k as f64;
            let mut row: Vec<f64> = r.iter().map(|r| r.powi(k as i32 - 1)).collect();
            row.push(h * phi(k + 1, h) * factorial / self.b_of(h));
            rows.push(row);
        }
        solve(rows)
    }

    /// r_m = (λ_m - λ_s) / h of the `count` outputs before the newest.
    fn places(&self, h: f64, count: usize) -> (Vec<f64>, Vec<&Tensor<4>>) {
        let mut entries = self.history.newest_first();
        let Some((s, _)) = entries.next() else {
            return (Vec::new(), Vec::new());
        };
        entries
            .take(count)
            .map(|(level, output)| ((level.lambda - s.lambda) / h, output))
            .unzip()
    }

    /// UniP-p: the next sample, from `x` at the newest of the history.
    fn predict(&self, order: usize, x: Tensor<4>, t: Level) -> Tensor<4> {
        let Some((s, _)) = self.history.get(0) else {
            return x;
        };
        let h = t.lambda - s.lambda;
        if h == 0.0 {
            return x;
        }
        let (r, outputs) = self.places(h, order - 1);
        // For the second order ρ = 1/2 does as well, and for either B.
        let rho = if r.len() == 1 {
            vec![0.5]
        } else {
            self.weights(&r, h)
        };
        let slopes: Vec<_> = r
            .iter()
            .zip(&rho)
            .zip(&outputs)
            .map(|((r, rho), m)| (*r, *rho, *m))
            .collect();
        self.update(x, t, &slopes)
    }

    /// UniC-p: the sample at level `t` once more, from where the last step began, with the model's output there.
    fn correct(
        &self,
        order: usize,
        last: Tensor<4>,
        this: Tensor<4>,
        output: &Tensor<4>,
        t: Level,
    ) -> Tensor<4> {
        let Some((s, _)) = self.history.get(0) else {
            return this;
        };
        let h = t.lambda - s.lambda;
        if h == 0.0 {
            return this;
        }
        let (mut r, mut outputs) = self.places(h, order - 1);
        r.push(1.0);
        outputs.push(output);
        let rho = if r.len() == 1 {
            vec![0.5]
        } else {
            self.weights(&r, h)
        };
        let slopes: Vec<_> = r
            .iter()
            .zip(&rho)
            .zip(&outputs)
            .map(|((r, rho), m)| (*r, *rho, *m))
            .collect();
        self.update(last, t, &slopes)
    }
}

impl UniPCMultistepConfig {
    fn check(&self) -> Result<()> {
        if self.solver_order == 0 || self.solver_order > MOST_ORDER {
            return Err(Error::Config(format!(
                "solver_order is {}, but UniPCMultistepScheduler has 1 to {MOST_ORDER}",
                self.solver_order
            )));
        }
        for (name, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma.filter(|sigma| !(*sigma > 0.0 && sigma.is_finite())) {
                return Err(Error::Config(format!(
                    "{name} is {sigma}, but it must be above 0"
                )));
            }
        }
        if let (Some(min), Some(max)) = (self.sigma_min, self.sigma_max)
            && min >= max
        {
            return Err(Error::Config(format!(
                "sigma_min is {min} and sigma_max {max}, but it must be below it"
            )));
        }
        match self.shift_terminal {
            Some(_) if !self.use_flow_sigmas => Err(Error::Config(
                "shift_terminal stretches a flow's noise levels, which needs use_flow_sigmas to be true"
                    .to_owned(),
            )),
            Some(terminal) if !(0.0..1.0).contains(&terminal) => Err(Error::Config(format!(
                "shift_terminal is {terminal}, but it must be at least 0 and below 1"
            ))),
            _ => Ok(()),
        }
    }
}

/// The solution of a system of equations, each row with its right-hand side last, by elimination with pivots.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let (above, below) = rows.split_at_mut(column + 1);
        let pivot = &above[column];
        for row in below {
            let share = row[column] / pivot[column];
            for (value, of_pivot) in row.iter_mut().zip(pivot).skip(column) {
                *value -= share * of_pivot;
            }
        }
    }
    let mut solution = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (rows[i][n] - known) / rows[i][i];
    }
    solution
}

impl Scheduler for UniPCMultistepScheduler {
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = self.base.plan.class_name;
        if matches!(self.base.plan.spread, Some(Spread::Flow(_))) {
            options.only(class_name, &["sigmas", "mu"])?;
            dpm_loop::check_mu(class_name, options.mu, self.config.use_dynamic_shifting)?;
            self.base.steps = self.flow_loop(options)?;
        } else {
            self.base.set_loop(options, &[], false)?;
        }
        if let Some(predictor) = &mut self.predictor {
            predictor.set_timesteps(self.base.steps.timesteps().len())?;
        }
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
        let raw = self.base.predicted.without_variance(prediction, &x)?;
        let i = self.base.steps.step(t)?;
        let (here, next) = (self.base.level(i), self.base.level(i + 1));
        let (output, clean) = if self.config.predict_x0 {
            let clean = self.base.predicted.clean(&raw, &x, here);
            (clean.clone(), clean)
        } else {
            self.base.predicted.noise(raw.clone(), &x, here)
        };

        // The corrector: x_t again, now that the model has been asked at it.
        let corrects = i > 0 && !self.config.disable_corrector.contains(&(i - 1));
        let x = match self.last.take() {
            Some((last, order)) if corrects => self.correct(order, last, x, &output, here),
            _ => x,
        };

        // The predictor.
        self.history.push(here, output, self.config.solver_order);
        let order = self.order_of_step(i);
        let previous = match &mut self.predictor {
            Some(predictor) => predictor.step(raw, t, x.clone(), options)?.previous,
            None => self.predict(order, x.clone(), next),
        };
        self.last = Some((x, order));
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
    fn equations_are_solved_with_pivots() {
        let solution = solve(vec![vec![0.0, 2.0, 4.0], vec![3.0, 1.0, 5.0]]);
        assert!((solution[0] - 1.0).abs() < 1e-12 && (solution[1] - 2.0).abs() < 1e-12);
    }
}
