//! A scheduler's loop with the optimal denoiser of [`Data`] for its model.

#![allow(dead_code)]

use burn::tensor::Tensor;
use langevin::{
    random::Generator,
    schedulers::{AnyScheduler, ConfigMap, LoopOptions, Scheduler, StepOptions},
};
use serde_json::Value;

use super::oracle::{Data, Level, map};

/// What a class's samples and timesteps are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    /// Samples with noise σ, which the model sees scaled to preserve the variance; timesteps of a discrete schedule.
    Exploding,
    /// Samples that preserve the variance, at timesteps of a discrete schedule.
    Preserving,
    /// Samples with noise σ and a preconditioned network, at timesteps ¼ ln σ.
    Edm,
    /// Consistency models: the network is preconditioned to give the end of the flow.
    Consistency,
    /// Models distilled to latent consistency: the predicted noise is that of the flow's end.
    LatentConsistency,
    /// Models distilled to trajectory consistency: the predicted noise is the one that leads to where the step is to go.
    TrajectoryConsistency,
    /// Samples of a flow, at timesteps 1000 σ.
    Flow,
    /// Mixtures at an angle, the timestep.
    Angle,
    /// Samples with noise σ and a model of the score, at times between 0 and 1.
    Score,
}

impl Family {
    fn of(class_name: &str) -> Self {
        match class_name {
            "EulerDiscreteScheduler"
            | "EulerAncestralDiscreteScheduler"
            | "HeunDiscreteScheduler"
            | "KDPM2DiscreteScheduler"
            | "KDPM2AncestralDiscreteScheduler"
            | "LMSDiscreteScheduler"
            | "DPMSolverSDEScheduler" => Self::Exploding,
            "EDMEulerScheduler" | "EDMDPMSolverMultistepScheduler" => Self::Edm,
            "CMStochasticIterativeScheduler" => Self::Consistency,
            "LCMScheduler" => Self::LatentConsistency,
            "TCDScheduler" => Self::TrajectoryConsistency,
            "FlowMatchEulerDiscreteScheduler" | "FlowMatchHeunDiscreteScheduler" => Self::Flow,
            "IPNDMScheduler" => Self::Angle,
            "ScoreSdeVeScheduler" => Self::Score,
            _ => Self::Preserving,
        }
    }
}

/// The standard deviation that EDM's preconditioning takes the data to have.
const SIGMA_DATA: f64 = 0.5;
/// The lowest level of a consistency model.
const CONSISTENT: f64 = 0.002;

/// A loop in progress.
pub(crate) struct Sampled {
    pub scheduler: AnyScheduler,
    family: Family,
    data: Data,
    timesteps: Vec<f64>,
    /// ln σ of every timestep of a discrete schedule.
    logs: Vec<f64>,
    generator: Generator,
}

/// The scheduler of the class with this short or class name.
pub(crate) fn scheduler(name: &str, config: &Value) -> AnyScheduler {
    let mut map: ConfigMap = config.as_object().cloned().unwrap_or_default();
    let names = AnyScheduler::NAMES;
    let class = names
        .iter()
        .find(|(short, class)| *short == name || *class == name);
    let (_, class_name) = class.unwrap_or_else(|| panic!("there is no scheduler {name}"));
    map.insert("_class_name".to_owned(), (*class_name).into());
    AnyScheduler::from_json(map).unwrap_or_else(|e| panic!("{name}: {e}"))
}

impl Sampled {
    /// A loop of this many steps.
    pub(crate) fn new(mut scheduler: AnyScheduler, steps: usize, data: &Data) -> Self {
        let class_name = scheduler.class_name();
        let mut options = LoopOptions::steps(steps);
        if class_name == "RePaintScheduler" {
            // Without jumps back.
            options.jump_n_sample = Some(1);
        }
        scheduler
            .set_loop(&options)
            .unwrap_or_else(|e| panic!("{class_name}: {e}"));
        let logs = scheduler
            .alphas_cumprod()
            .iter()
            .map(|&alpha| 0.5 * (f64::from(1.0 - alpha) / f64::from(alpha)).ln())
            .collect();
        Self {
            family: Family::of(class_name),
            data: data.clone(),
            timesteps: scheduler.timesteps().to_vec(),
            logs,
            scheduler,
            generator: Generator::new(0),
        }
    }

    /// How many times the model is asked.
    pub(crate) fn calls(&self) -> usize {
        self.timesteps.len()
    }

    /// σ at a timestep of a discrete schedule.
    fn sigma(&self, t: f64) -> f64 {
        let below = (t.max(0.0) as usize).min(self.logs.len() - 2);
        let share = t - below as f64;
        (self.logs[below] * (1.0 - share) + self.logs[below + 1] * share).exp()
    }

    /// The level of the sample at a call that begins a step.
    pub(crate) fn level(&self, call: usize) -> Level {
        let sigma = || f64::from(self.scheduler.sigmas()[call]);
        match self.family {
            Family::Preserving if !self.scheduler.sigmas().is_empty() => Level::preserving(sigma()),
            Family::Preserving if self.scheduler.class_name() == "DDIMInverseScheduler" => {
                // It is told the timestep that a step leads to.
                let before = call.checked_sub(1).map_or(0.0, |call| self.timesteps[call]);
                Level::preserving(self.sigma(before))
            }
            Family::Preserving | Family::LatentConsistency | Family::TrajectoryConsistency => {
                Level::preserving(self.sigma(self.timesteps[call]))
            }
            Family::Exploding | Family::Edm | Family::Consistency | Family::Score => {
                Level::exploding(sigma())
            }
            Family::Flow => Level::flow(sigma()),
            Family::Angle => Level::angle(self.timesteps[call]),
        }
    }

    /// A sample at the loop's beginning, of what was standard normal: the end of the flow that these ranks belong to.
    pub(crate) fn beginning(&self, standard: &Tensor<4>) -> Tensor<4> {
        let level = self.level(0);
        let noise = Level {
            signal: 0.0,
            noise: 1.0,
        };
        map(standard, |x| self.data.carried(x, noise, level))
    }

    /// What the model says of its input at timestep `t`.
    fn predict(&self, input: &Tensor<4>, t: f64) -> Tensor<4> {
        let data = &self.data;
        match self.family {
            Family::Exploding | Family::Preserving => {
                let level = Level::preserving(self.sigma(t));
                map(input, |x| {
                    (x - level.signal * data.denoised(x, level)) / level.noise
                })
            }
            Family::LatentConsistency => {
                let level = Level::preserving(self.sigma(t));
                map(input, |x| {
                    (x - level.signal * data.carried(x, level, Level::CLEAN)) / level.noise
                })
            }
            Family::TrajectoryConsistency => {
                let level = Level::preserving(self.sigma(t));
                let next = self.timesteps.iter().find(|&&later| later < t);
                let goal = Level::preserving(self.sigma((next.copied().unwrap_or(0.0) * 0.7).floor()));
                // x̂_0 and ε̂ that make up x here and the flow's sample there.
                let determinant = goal.noise - goal.signal * level.noise / level.signal;
                map(input, |x| {
                    (data.carried(x, level, goal) - goal.signal / level.signal * x) / determinant
                })
            }
            Family::Edm | Family::Consistency => {
                let times = if self.family == Family::Edm {
                    4.0
                } else {
                    4.0 / 1000.0
                };
                let sigma = (t * times).exp();
                let level = Level::exploding(sigma);
                let total = sigma.hypot(SIGMA_DATA);
                map(input, |scaled| {
                    let x = scaled * total;
                    if self.family == Family::Edm {
                        let skip = (SIGMA_DATA / total).powi(2);
                        (data.denoised(x, level) - skip * x) / (sigma * SIGMA_DATA / total)
                    } else if sigma <= CONSISTENT * 1.000_001 {
                        0.0
                    } else {
                        let above = sigma - CONSISTENT;
                        let skip = SIGMA_DATA.powi(2) / (above.powi(2) + SIGMA_DATA.powi(2));
                        let end = data.carried(x, level, Level::exploding(CONSISTENT));
                        (end - skip * x) / (above * SIGMA_DATA / total)
                    }
                })
            }
            Family::Flow => {
                let level = Level::flow(t / 1000.0);
                map(input, |x| (x - data.denoised(x, level)) / level.noise)
            }
            Family::Angle => {
                let level = Level::angle(t);
                map(input, |x| {
                    let clean = data.denoised(x, level);
                    let noise = (x - level.signal * clean) / level.noise;
                    level.signal * noise - level.noise * clean
                })
            }
            Family::Score => {
                let sigma = f64::from(
                    self.scheduler.sigmas()[self.timesteps.iter().position(|&at| at == t).unwrap()],
                );
                let level = Level::exploding(sigma);
                map(input, |x| (data.denoised(x, level) - x) / (sigma * sigma))
            }
        }
    }

    /// Does the first `calls` calls from `x`, a sample at the loop's beginning.
    pub(crate) fn run(&mut self, mut x: Tensor<4>, calls: usize) -> Tensor<4> {
        for &t in &self.timesteps.clone()[..calls] {
            let input = self.scheduler.scale_model_input(x.clone(), t).unwrap();
            let prediction = self.predict(&input, t);
            // RePaint knows nothing of the picture here.
            let unknown = x.zeros_like();
            let mut options = StepOptions {
                generator: Some(&mut self.generator),
                original_image: Some(unknown.clone()),
                mask: Some(unknown),
                ..StepOptions::default()
            };
            x = self
                .scheduler
                .step(prediction, t, x, &mut options)
                .unwrap()
                .previous;
        }
        x
    }

    /// Draws a sample of this shape at the loop's beginning as pipelines do, and does the loop.
    pub(crate) fn draw(&mut self, shape: [usize; 4]) -> Tensor<4> {
        let noise = self
            .generator
            .randn_tensor(shape, &burn::tensor::Device::default());
        let x = noise * self.scheduler.init_noise_sigma();
        self.run(x, self.calls())
    }

    /// Where the flow carries `x`, a sample at the loop's beginning, until a call that begins a step.
    pub(crate) fn carried(&self, x: &Tensor<4>, call: usize) -> Tensor<4> {
        let (from, to) = (self.level(0), self.level(call));
        map(x, |x| self.data.carried(x, from, to))
    }
}
