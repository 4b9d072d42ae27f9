//! What the schedulers that walk down a discrete schedule in σ have in common: its tables and the loop over them.

use burn::tensor::Tensor;

use super::{
    GivenLoop, NoiseLevel, NoiseSchedule, TimestepSpacing,
    noise_schedule::NoiseOptions,
    sigma_loop::{self, SigmaLoop},
    sigmas::{DiscreteSigmas, SigmaSpacing, SigmaTable},
};
use crate::{Error, Result};

/// The noise schedule, how loops are spread over it, and the present loop.
#[derive(Clone, Debug)]
pub(crate) struct Discrete {
    noise: NoiseSchedule,
    levels: DiscreteSigmas,
    pub steps: SigmaLoop,
}

/// What a config says about how loops are spread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spreading {
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: usize,
    pub sigma_spacing: Option<SigmaSpacing>,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
}

impl Spreading {
    /// By the timesteps alone, or with σ spread otherwise.
    pub(super) fn new(
        timestep_spacing: TimestepSpacing,
        steps_offset: usize,
        sigma_spacing: Option<SigmaSpacing>,
    ) -> Self {
        Self {
            timestep_spacing,
            steps_offset,
            sigma_spacing,
            sigma_min: None,
            sigma_max: None,
        }
    }
}

impl Discrete {
    /// The tables, and no loop yet.
    ///
    /// # Errors
    /// If a value makes no sense; the error names it.
    pub(super) fn new(class_name: &str, options: NoiseOptions<'_>, spreading: Spreading) -> Result<Self> {
        let noise = NoiseSchedule::with_signal(options)?;
        let table = SigmaTable::new(class_name, noise.alphas_cumprod())?;
        check_ends(class_name, spreading, &table)?;
        Ok(Self {
            noise,
            levels: DiscreteSigmas {
                table,
                timestep_spacing: spreading.timestep_spacing,
                steps_offset: spreading.steps_offset,
                spacing: spreading.sigma_spacing,
                sigma_min: spreading.sigma_min,
                sigma_max: spreading.sigma_max,
            },
            steps: SigmaLoop::default(),
        })
    }

    /// The timesteps of a loop and σ at each, see [`DiscreteSigmas::spread`].
    pub(super) fn spread(&self, class_name: &str, given: GivenLoop<'_>) -> Result<(Vec<f64>, Vec<f64>)> {
        self.levels.spread(class_name, given)
    }

    /// The same for a number of steps, with the timesteps of Karras's levels rounded, as diffusers has it for the midpoint methods.
    pub(super) fn spread_rounded(&self, class_name: &str, steps: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut timesteps, sigmas) = self.spread(class_name, GivenLoop::Steps(steps))?;
        if self.levels.spacing == Some(SigmaSpacing::Karras) {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        Ok((timesteps, sigmas))
    }

    /// Every training timestep and its σ: the loop until another is set.
    pub(super) fn every_timestep(&self) -> (Vec<f64>, Vec<f64>) {
        let sigmas = self.levels.table.sigmas().iter().enumerate().rev();
        sigmas.map(|(t, &sigma)| (t as f64, f64::from(sigma))).unzip()
    }

    /// Whether σ is spread otherwise than by the timesteps.
    pub(super) fn spreads_sigmas(&self) -> bool {
        self.levels.spacing.is_some()
    }

    pub(super) fn noise(&self) -> &NoiseSchedule {
        &self.noise
    }

    pub(super) fn table(&self) -> &SigmaTable {
        &self.levels.table
    }

    pub(super) fn init_noise_sigma(&self) -> f64 {
        self.steps.init_noise_sigma(self.levels.timestep_spacing)
    }

    /// x_0 + σ ε, with one timestep a picture.
    pub(super) fn add_noise(
        &self,
        x0: Tensor<4>,
        noise: Tensor<4>,
        timesteps: impl IntoIterator<Item = f64>,
    ) -> Result<Tensor<4>> {
        let sigmas: Result<Vec<f32>> = timesteps.into_iter().map(|t| self.sigma_of_noise(t)).collect();
        sigma_loop::add_noise(x0, noise, sigmas?)
    }

    /// σ at timestep `t`, of the loop or else of the schedule.
    fn sigma_of_noise(&self, t: f64) -> Result<f32> {
        let table = &self.levels.table;
        let last = table.sigmas().len() as f64 - 1.0;
        let of_schedule = |t: f64| (0.0..=last).contains(&t).then(|| table.at(t) as f32);
        self.steps.level_of_noise(t, of_schedule)
    }

    /// The level of the sample at timestep `t`.
    pub(super) fn level(&self, t: f64) -> Result<NoiseLevel> {
        self.sigma_of_noise(t).map(NoiseLevel::of_sigma)
    }
}

/// Refuses ends of the spread of σ that are not above zero, or not in order.
fn check_ends(class_name: &str, spreading: Spreading, table: &SigmaTable) -> Result<()> {
    for (name, end) in [
        ("sigma_min", spreading.sigma_min),
        ("sigma_max", spreading.sigma_max),
    ] {
        if end.is_some_and(|sigma| !(sigma > 0.0 && sigma.is_finite())) {
            return Err(Error::Config(format!(
                "{class_name}: {name} is {}, but a noise level is above 0 and finite",
                end.unwrap_or_default()
            )));
        }
    }
    let (least, most) = (table.sigmas()[0], table.sigmas()[table.sigmas().len() - 1]);
    let min = spreading.sigma_min.unwrap_or(least.into());
    let max = spreading.sigma_max.unwrap_or(most.into());
    if min > max {
        return Err(Error::Config(format!(
            "{class_name}: noise levels cannot fall from {max} to {min}; sigma_max must be above sigma_min"
        )));
    }
    Ok(())
}

/// The methods of [`Scheduler`](super::Scheduler) that every scheduler with a field `discrete` has in common.
macro_rules! discrete_methods {
    () => {
        fn set_begin_index(&mut self, index: usize) {
            self.discrete.steps.begin_at(index);
        }

        discrete_methods!(but set_begin_index);
    };
    (but set_begin_index) => {
        fn timesteps(&self) -> &[f64] {
            self.discrete.steps.timesteps()
        }

        fn sigmas(&self) -> &[f32] {
            self.discrete.steps.sigmas()
        }

        fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
            self.discrete
                .add_noise(x0, noise, timesteps.iter().map(|&t| t as f64))
        }

        fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
            let [batch, ..] = x0.dims();
            self.discrete.add_noise(x0, noise, vec![t; batch])
        }

        fn level(&self, t: f64) -> Result<$crate::schedulers::NoiseLevel> {
            self.discrete.level(t)
        }

        fn init_noise_sigma(&self) -> f64 {
            self.discrete.init_noise_sigma()
        }

        fn num_train_timesteps(&self) -> usize {
            self.discrete.noise().num_train_timesteps()
        }

        fn alphas_cumprod(&self) -> &[f32] {
            self.discrete.noise().alphas_cumprod()
        }
    };
}

pub(super) use discrete_methods;
