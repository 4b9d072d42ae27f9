//! The loop of the solvers in λ: which timesteps and which noise levels it visits, as diffusers' DPM-Solver, DEIS, UniPC and
//! SA-Solver choose them.

use burn::tensor::{Tensor, TensorData};

use super::{
    ConfigMap, FinalSigmas, NoiseSchedule, SolverPrediction, TimestepSpacing, VarianceType,
    dpm_solver::{Level, Mixture, Predicted},
    noise_schedule::{self, NoiseOptions},
    options::{GivenLoop, LoopOptions, check_timesteps},
    prediction::Bounds,
    same_shape,
    sigma_loop::SigmaLoop,
    sigmas::{SigmaSpacing, SigmaTable, flow, linspace},
};
use crate::{Error, Result};

/// How the noise levels of a loop are spread, where that is not by its timesteps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Spread {
    /// Between the ends of the schedule.
    Between(SigmaSpacing),
    /// Evenly in λ between the ends of the schedule (Lu et al. 2022).
    Lu,
    /// As those of a flow, moved by this shift.
    Flow(f64),
}

/// The flags of a config that choose a [`Spread`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpreadFlags {
    pub karras: bool,
    pub exponential: bool,
    pub beta: bool,
    pub lu: bool,
    pub flow: bool,
    pub flow_shift: f64,
}

impl SpreadFlags {
    /// The one that they ask for, if any.
    ///
    /// # Errors
    /// If they ask for more than one; the error names the class.
    pub(super) fn chosen(self, class_name: &str) -> Result<Option<Spread>> {
        let between = SigmaSpacing::chosen(class_name, self.karras, self.exponential, self.beta)?;
        let refuse = |one: &str, other: &str| {
            Err(Error::Config(format!(
                "{class_name}: {one} and {other} each choose all noise levels of a loop; one of them must be false"
            )))
        };
        if self.flow && !(self.flow_shift > 0.0 && self.flow_shift.is_finite()) {
            return Err(Error::Config(format!(
                "{class_name}: flow_shift is {}, but it must be above 0",
                self.flow_shift
            )));
        }
        match (between, self.lu, self.flow) {
            (None, false, false) => Ok(None),
            (Some(spacing), false, false) => Ok(Some(Spread::Between(spacing))),
            (None, true, false) => Ok(Some(Spread::Lu)),
            (None, false, true) => Ok(Some(Spread::Flow(self.flow_shift))),
            (_, true, true) => refuse("use_lu_lambdas", "use_flow_sigmas"),
            (_, true, _) => refuse("use_lu_lambdas", "the other spacing"),
            (_, _, true) => refuse("use_flow_sigmas", "the other spacing"),
        }
    }
}

/// The noise level that a loop ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// None.
    Zero,
    /// The schedule's lowest.
    Lowest,
    /// That of the last step, which then only ends the loop, where the levels are spread; the schedule's lowest otherwise.
    OfLastStep,
}

impl From<FinalSigmas> for Last {
    fn from(choice: FinalSigmas) -> Self {
        match choice {
            FinalSigmas::Zero => Self::Zero,
            FinalSigmas::SigmaMin => Self::Lowest,
        }
    }
}

/// What a solver's config says about its loops.
#[derive(Clone, Debug)]
pub(super) struct DpmLoop {
    pub class_name: &'static str,
    pub table: SigmaTable,
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: usize,
    /// How many timesteps are left below the bound on λ.
    pub last_timestep: usize,
    pub spread: Option<Spread>,
    /// Whether the timesteps of Karras's and Lu's levels are rounded, not cut, to whole ones.
    pub rounds: bool,
    /// The ends of a spread, where they are not the schedule's.
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub last: Last,
}

/// An end of the spread levels that a config for another class left in this one's, as diffusers reads it.
pub(super) fn foreign_sigma(extra: &ConfigMap, key: &str) -> Option<f64> {
    extra
        .get(key)
        .and_then(serde_json::Value::as_f64)
        .filter(|sigma| *sigma > 0.0)
}

/// Refuses a loop's `mu` where the config does not shift dynamically.
pub(super) fn check_mu(class_name: &str, mu: Option<f64>, use_dynamic_shifting: bool) -> Result<()> {
    match mu {
        Some(mu) if !mu.is_finite() => Err(Error::Config(format!("mu is {mu}, but it must be a number"))),
        Some(_) if !use_dynamic_shifting => Err(Error::Config(format!(
            "{class_name} takes `mu` for its loop where use_dynamic_shifting is true, and it is false"
        ))),
        _ => Ok(()),
    }
}

/// What a solver's config says about its noise, its loops and its model.
#[derive(Clone, Copy, Debug)]
pub(super) struct SolverOptions<'a> {
    pub class_name: &'static str,
    pub noise: NoiseOptions<'a>,
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: usize,
    pub spread: SpreadFlags,
    /// The least λ that a loop visits.
    pub lambda_min_clipped: f64,
    /// Whether the timesteps of Karras's and Lu's levels are rounded, not cut, to whole ones.
    pub rounds: bool,
    /// The ends of a spread, where they are not the schedule's.
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub last: Last,
    pub prediction_type: SolverPrediction,
    pub bounds: Bounds,
    pub variance_type: Option<VarianceType>,
    /// Whether the equation takes the model's output as noise.
    pub needs_noise: bool,
}

impl<'a> SolverOptions<'a> {
    /// What most solvers have where their config does not say.
    pub(super) fn new(class_name: &'static str, noise: NoiseOptions<'a>) -> Self {
        Self {
            class_name,
            noise,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            spread: SpreadFlags::default(),
            lambda_min_clipped: f64::NEG_INFINITY,
            rounds: true,
            sigma_min: None,
            sigma_max: None,
            last: Last::OfLastStep,
            prediction_type: SolverPrediction::Epsilon,
            bounds: Bounds::thresholding(false, 1.0, 1.0),
            variance_type: None,
            needs_noise: false,
        }
    }
}

/// Loops of fewer steps end with steps of lower orders, where the config asks for it.
const FEW_STEPS: usize = 15;

/// The order of step `i` of a loop of `steps` steps, `order` at the most: fewer at the end of a short loop, where the config
/// asks for it by `lower_order_final`; and 1 for the last step where that `is_euler`.
pub(super) fn order_of_step(
    order: usize,
    i: usize,
    steps: usize,
    lower_order_final: bool,
    is_euler: bool,
) -> usize {
    let lowers = lower_order_final && steps < FEW_STEPS;
    match steps - i {
        1 if is_euler || lowers => 1,
        2 if lowers => order.min(2),
        _ => order,
    }
}

/// How many timesteps of a schedule have a λ of at least `least`: those whose noise a loop will see.
///
/// # Errors
/// If there are none.
fn unclipped_timesteps(class_name: &str, table: &SigmaTable, least: f64) -> Result<usize> {
    let kept = table
        .logs()
        .iter()
        .filter(|&&log_sigma| f64::from(-log_sigma) >= least)
        .count();
    if kept == 0 {
        return Err(Error::Config(format!(
            "{class_name}: lambda_min_clipped is {least}, which is above λ at every timestep of the schedule"
        )));
    }
    Ok(kept)
}

impl DpmLoop {
    /// The loop that `options` ask for.
    ///
    /// # Errors
    /// If the number of steps does not fit the schedule, or timesteps are given where the config spreads the levels.
    pub(super) fn set(&self, options: &LoopOptions) -> Result<SigmaLoop> {
        let given = options.given(self.class_name)?;
        let (timesteps, mut sigmas) = self.levels(given, options.mu)?;
        let end = sigmas.last().copied().unwrap_or(0.0);
        let lowest = f64::from(self.table.sigmas()[0]);
        let last = match self.last {
            Last::Zero => 0.0,
            // A flow's levels may be below the schedule's lowest, and noise must not rise.
            Last::Lowest => lowest.min(end),
            Last::OfLastStep if self.spread.is_some() => end,
            Last::OfLastStep => lowest,
        };
        sigmas.push(last);
        Ok(SigmaLoop::new(
            timesteps,
            sigmas.into_iter().map(|sigma| sigma as f32).collect(),
        ))
    }

    fn levels(&self, given: GivenLoop<'_>, mu: Option<f64>) -> Result<(Vec<f64>, Vec<f64>)> {
        let train = self.table.sigmas().len();
        if mu.is_some() && !matches!(self.spread, Some(Spread::Flow(_))) {
            return Err(Error::Config(format!(
                "{}: mu moves the noise levels of a flow, which needs use_flow_sigmas to be true",
                self.class_name
            )));
        }
        let timesteps = match given {
            GivenLoop::Steps(steps) => whole_timesteps(
                self.timestep_spacing,
                train,
                self.last_timestep,
                steps,
                self.steps_offset,
            )?,
            GivenLoop::Timesteps(timesteps) => {
                if self.spread.is_some() {
                    return Err(Error::Config(format!(
                        "{} cannot be given timesteps where its config spreads the noise levels otherwise",
                        self.class_name
                    )));
                }
                check_timesteps(timesteps, train)?;
                timesteps.iter().map(|t| t.trunc()).collect()
            }
            GivenLoop::Sigmas(_) => {
                return Err(Error::Config(format!(
                    "{} takes a number of steps or timesteps for its loop, not sigmas",
                    self.class_name
                )));
            }
        };
        let steps = match given {
            GivenLoop::Steps(steps) => steps,
            _ => timesteps.len(),
        };
        let (low, high) = (self.table.sigmas()[0], self.table.sigmas()[train - 1]);
        let timestep_of = |sigma: &f64| self.table.timestep(*sigma);
        Ok(match self.spread {
            None => {
                let sigmas = timesteps.iter().map(|&t| self.table.at(t)).collect();
                (timesteps, sigmas)
            }
            Some(Spread::Between(spacing)) => {
                let max = self.sigma_max.unwrap_or(high.into());
                let min = self.sigma_min.unwrap_or(low.into());
                let sigmas = spacing.spread(max, min, steps);
                let rounds = self.rounds && spacing == SigmaSpacing::Karras;
                (whole(sigmas.iter().map(timestep_of), rounds), sigmas)
            }
            Some(Spread::Lu) => {
                let logs = self.table.logs();
                let (max, min) = (f64::from(logs[train - 1]), f64::from(logs[0]));
                let ramp = linspace(0.0, 1.0, steps).into_iter();
                let sigmas: Vec<f64> = ramp.map(|at| (max + at * (min - max)).exp()).collect();
                (whole(sigmas.iter().map(timestep_of), self.rounds), sigmas)
            }
            Some(Spread::Flow(shift)) => {
                let sigmas = flow(train, mu.map_or(shift, f64::exp), steps);
                (
                    whole(sigmas.iter().map(|sigma| sigma * train as f64), false),
                    sigmas,
                )
            }
        })
    }
}

/// Timesteps as the whole numbers that models are asked at.
pub(super) fn whole(timesteps: impl Iterator<Item = f64>, round: bool) -> Vec<f64> {
    timesteps
        .map(|t| if round { t.round_ties_even() } else { t.trunc() })
        .collect()
}

/// The timesteps of a loop of `steps` over the first `last` of `train` timesteps. Unlike other schedulers, these solvers leave
/// out the place where the last step ends.
///
/// # Errors
/// If the number of steps does not fit, or the offset moves a timestep beyond the schedule.
pub(super) fn whole_timesteps(
    spacing: TimestepSpacing,
    train: usize,
    last: usize,
    steps: usize,
    steps_offset: usize,
) -> Result<Vec<f64>> {
    // Checks the number, and is the whole story for a loop that leaves nothing out.
    let all = spacing.timesteps(
        train,
        steps,
        if spacing == TimestepSpacing::Leading {
            0
        } else {
            steps_offset
        },
    )?;
    let timesteps: Vec<f64> = match spacing {
        TimestepSpacing::Linspace => {
            let rising = linspace(0.0, (last - 1) as f64, steps + 1).into_iter().skip(1);
            rising.rev().map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let stride = last / (steps + 1);
            if stride == 0 {
                // As many steps as timesteps; diffusers would stand still on the first.
                let stride = (last / steps).max(1);
                let rising = (0..steps).map(|i| (i * stride + steps_offset).min(last - 1));
                rising.rev().map(|t| t as f64).collect()
            } else {
                (1..=steps)
                    .rev()
                    .map(|i| (i * stride + steps_offset) as f64)
                    .collect()
            }
        }
        TimestepSpacing::Trailing if last == train => all.into_iter().map(|t| t as f64).collect(),
        TimestepSpacing::Trailing => {
            let stride = train as f64 / steps as f64;
            let count = (last as f64 / stride).ceil() as usize;
            (0..count.max(1))
                .map(|i| ((last as f64 - i as f64 * stride).round_ties_even() - 1.0).max(0.0))
                .collect()
        }
    };
    match timesteps.first() {
        Some(&first) if first >= train as f64 => Err(Error::Config(format!(
            "steps_offset {steps_offset} moves the first of {steps} timesteps to {first}, beyond the schedule's last, {}",
            train - 1
        ))),
        _ => Ok(timesteps),
    }
}

/// What every solver in λ keeps beside its update rule: the noise schedule, what the model's predictions mean, the loop as the
/// config wants it, and the loop as it stands.
#[derive(Clone, Debug)]
pub(super) struct DpmBase {
    pub noise: NoiseSchedule,
    pub mixture: Mixture,
    pub predicted: Predicted,
    pub plan: DpmLoop,
    pub steps: SigmaLoop,
}

impl DpmBase {
    /// A base whose loop visits every training timestep.
    ///
    /// # Errors
    /// If a value makes no sense, or two do not go together; the error names it and the class.
    pub(super) fn new(options: SolverOptions<'_>) -> Result<Self> {
        let class_name = options.class_name;
        let spread = options.spread.chosen(class_name)?;
        let noise = NoiseSchedule::with_signal(options.noise)?;
        let table = SigmaTable::new(class_name, noise.alphas_cumprod())?;
        let plan = DpmLoop {
            class_name,
            last_timestep: unclipped_timesteps(class_name, &table, options.lambda_min_clipped)?,
            table,
            timestep_spacing: options.timestep_spacing,
            steps_offset: options.steps_offset,
            spread,
            rounds: options.rounds,
            sigma_min: options.sigma_min,
            sigma_max: options.sigma_max,
            last: options.last,
        };
        let mixture = Mixture::of_flow(matches!(spread, Some(Spread::Flow(_))));
        let predicted = Predicted {
            kind: options.prediction_type,
            bounds: options.bounds,
            variance_type: options.variance_type,
        };
        predicted.check(class_name, mixture, options.needs_noise)?;
        let train = noise.num_train_timesteps();
        let level = |t: usize| match mixture {
            Mixture::Flow => t as f32 / train as f32,
            _ => plan.table.sigmas()[t],
        };
        let end = if plan.last == Last::Zero { 0.0 } else { level(0) };
        let timesteps = (0..train).rev().map(|t| t as f64).collect();
        let sigmas = (0..train).rev().map(level).chain([end]).collect();
        Ok(Self {
            noise,
            mixture,
            predicted,
            plan,
            steps: SigmaLoop::new(timesteps, sigmas),
        })
    }

    /// Begins the loop that `options` ask for, in which the class has a use for the `known` ones.
    ///
    /// # Errors
    /// If something else is asked for, or as [`DpmLoop::set`].
    pub(super) fn set_loop(
        &mut self,
        options: &LoopOptions,
        known: &[&str],
        use_dynamic_shifting: bool,
    ) -> Result<()> {
        options.only(self.plan.class_name, known)?;
        check_mu(self.plan.class_name, options.mu, use_dynamic_shifting)?;
        self.steps = self.plan.set(options)?;
        Ok(())
    }

    /// How many steps the loop has.
    pub(super) fn len(&self) -> usize {
        self.steps.timesteps().len()
    }

    /// α, σ and λ that step `i` begins with.
    pub(super) fn level(&self, i: usize) -> Level {
        self.mixture.level(self.steps.sigmas()[i])
    }

    /// σ of a whole timestep of the schedule.
    fn sigma_of_schedule(&self, t: f64) -> Option<f32> {
        let train = self.noise.num_train_timesteps() as f64;
        (0.0..train).contains(&t).then(|| match self.mixture {
            Mixture::Flow => (t / train) as f32,
            _ => self.plan.table.at(t) as f32,
        })
    }

    /// x_t = α x_0 + σ ε with one timestep a picture, for training.
    pub(super) fn add_noise(
        &self,
        x0: Tensor<4>,
        noise: Tensor<4>,
        timesteps: &[usize],
    ) -> Result<Tensor<4>> {
        if self.mixture != Mixture::Flow {
            return noise_schedule::add_noise(self.noise.alphas_cumprod(), x0, noise, timesteps);
        }
        same_shape("the noise", &noise, "the pictures", &x0)?;
        // Checks the timesteps; a flow's rates are others.
        noise_schedule::signal_and_noise(self.noise.alphas_cumprod(), timesteps, &x0)?;
        let sigmas: Vec<f32> = timesteps
            .iter()
            .filter_map(|&t| self.sigma_of_schedule(t as f64))
            .collect();
        let sigma = Tensor::from_data(TensorData::new(sigmas, [timesteps.len(), 1, 1, 1]), &x0.device());
        Ok((-sigma.clone() + 1.0) * x0 + sigma * noise)
    }

    /// x_t = α x_0 + σ ε at the noise level that the loop has at timestep `t`, or that the schedule has where the loop is
    /// not there.
    pub(super) fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        same_shape("the noise", &noise, "the pictures", &x0)?;
        let level = self.level_of_noise(t)?;
        Ok(x0 * level.alpha + noise * level.sigma)
    }

    /// The level that the loop, or else the schedule, has at timestep `t`.
    pub(super) fn level_of_noise(&self, t: f64) -> Result<Level> {
        let sigma = self.steps.level_of_noise(t, |t| self.sigma_of_schedule(t))?;
        Ok(self.mixture.level(sigma))
    }

    /// x̂_0 at the loop's timestep `t`, before a corrector moves the sample.
    pub(super) fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        let prediction = self.predicted.without_variance(prediction.clone(), x)?;
        let here = self.level(self.steps.at(t)?);
        Ok(self.predicted.clean(&prediction, x, here))
    }
}

/// The methods of [`Scheduler`](super::Scheduler) that a solver leaves to its field `base`.
macro_rules! loop_of_base {
    () => {
        fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
            self.set_loop(&LoopOptions::steps(num_inference_steps))
        }

        fn set_begin_index(&mut self, index: usize) {
            self.base.steps.begin_at(index);
        }

        fn timesteps(&self) -> &[f64] {
            self.base.steps.timesteps()
        }

        fn sigmas(&self) -> &[f32] {
            self.base.steps.sigmas()
        }

        fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
            self.base.add_noise(x0, noise, timesteps)
        }

        fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
            self.base.add_noise_at(x0, noise, t)
        }

        fn level(&self, t: f64) -> Result<$crate::schedulers::NoiseLevel> {
            self.base.level_of_noise(t).map(Into::into)
        }

        fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
            self.base.predicted_clean(prediction, t, x)
        }

        fn num_train_timesteps(&self) -> usize {
            self.base.noise.num_train_timesteps()
        }

        fn alphas_cumprod(&self) -> &[f32] {
            self.base.noise.alphas_cumprod()
        }
    };
}

pub(super) use loop_of_base;
