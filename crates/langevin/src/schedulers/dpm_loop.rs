//! The loop of the solvers in λ: which timesteps and which noise levels it visits, as diffusers' DPM-Solver, DEIS, UniPC and
//! SA-Solver choose them.

use burn::tensor::{Tensor, TensorData};

use super::{
    ConfigMap, FinalSigmas, NoiseSchedule, TimestepSpacing,
    dpm_solver::{Level, Mixture},
    noise_schedule,
    options::{GivenLoop, LoopOptions, check_timesteps},
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
#[derive(Clone, Copy, Debug)]
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
    pub fn chosen(self, class_name: &str) -> Result<Option<Spread>> {
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

/// How many timesteps of a schedule have a λ of at least `least`: those whose noise a loop will see.
///
/// # Errors
/// If there are none.
pub(super) fn unclipped_timesteps(class_name: &str, table: &SigmaTable, least: f64) -> Result<usize> {
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
    pub fn set(&self, options: &LoopOptions) -> Result<SigmaLoop> {
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

/// What every solver in λ keeps beside its update rule: the noise schedule, the loop as the config wants it, and the loop as
/// it stands.
#[derive(Clone, Debug)]
pub(super) struct DpmBase {
    pub noise: NoiseSchedule,
    pub mixture: Mixture,
    pub plan: DpmLoop,
    pub steps: SigmaLoop,
}

impl DpmBase {
    /// A base whose loop visits every training timestep.
    pub fn new(noise: NoiseSchedule, plan: DpmLoop) -> Self {
        let mixture = Mixture::of_flow(matches!(plan.spread, Some(Spread::Flow(_))));
        let train = noise.num_train_timesteps();
        let level = |t: usize| match mixture {
            Mixture::Flow => t as f32 / train as f32,
            _ => plan.table.sigmas()[t],
        };
        let end = if plan.last == Last::Zero { 0.0 } else { level(0) };
        let timesteps = (0..train).rev().map(|t| t as f64).collect();
        let sigmas = (0..train).rev().map(level).chain([end]).collect();
        Self {
            noise,
            mixture,
            plan,
            steps: SigmaLoop::new(timesteps, sigmas),
        }
    }

    /// How many steps the loop has.
    pub fn len(&self) -> usize {
        self.steps.timesteps().len()
    }

    /// α, σ and λ that step `i` begins with.
    pub fn level(&self, i: usize) -> Level {
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
    pub fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
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
    pub fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        same_shape("the noise", &noise, "the pictures", &x0)?;
        let sigma = self.steps.level_of_noise(t, |t| self.sigma_of_schedule(t))?;
        let level = self.mixture.level(sigma);
        Ok(x0 * level.alpha + noise * level.sigma)
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

        fn num_train_timesteps(&self) -> usize {
            self.base.noise.num_train_timesteps()
        }

        fn alphas_cumprod(&self) -> &[f32] {
            self.base.noise.alphas_cumprod()
        }
    };
}

pub(super) use loop_of_base;
