//! DPM-Solver-2 in σ with fresh noise in every step, as k-diffusion's `sample_dpm_2_ancestral`. Mirrors
//! `diffusers.KDPM2AncestralDiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    discrete::{Discrete, discrete_methods},
    same_shape,
    sigma_loop::{SigmaLoop, ancestral, clean_at, midpoint, scaled, twice},
};
use crate::Result;

scheduler_class! {
    /// The configuration of a [`KDPM2AncestralDiscreteScheduler`], with diffusers' names and defaults.
    pub struct KDPM2AncestralDiscreteConfig for KDPM2AncestralDiscreteScheduler {
        ..noise(0.00085, 0.012, Linear),
        ..discrete_sigmas,
        /// What the model predicts. Diffusers' class does not know `sample`.
        prediction_type: PredictionType = PredictionType::default(),
        ..steps(Linspace),
    }

    facts {}

    samplers {
        "dpm2-a", "noise", true, "the midpoint method with fresh noise in each step";
    }
}

/// The midpoint method in σ that steps further down than to the next noise level, and adds fresh noise up to it. Each step
/// but the last, which is Euler's, calls the model twice.
#[derive(Clone, Debug)]
pub struct KDPM2AncestralDiscreteScheduler {
    config: KDPM2AncestralDiscreteConfig,
    discrete: Discrete,
    /// Where each step leads.
    ways: Vec<Way>,
    /// Where the step in progress began, after its first half.
    sample: Option<Tensor<4>>,
}

/// A step's noise levels: half way, where it ends, and the fresh noise from there up to the next level.
#[derive(Clone, Copy, Debug)]
struct Way {
    mid: f32,
    down: f32,
    up: f32,
}

impl KDPM2AncestralDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: KDPM2AncestralDiscreteConfig) -> Result<Self> {
        let discrete = config.discrete()?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self {
            config,
            discrete,
            ways: Vec::new(),
            sample: None,
        };
        scheduler.begin(&timesteps, &sigmas);
        Ok(scheduler)
    }

    fn begin(&mut self, timesteps: &[f64], sigmas: &[f64]) {
        let levels: Vec<f32> = sigmas.iter().map(|&sigma| sigma as f32).collect();
        let nexts = levels[1..].iter().copied().chain([0.0]);
        let way = |(&sigma, next): (&f32, f32)| {
            let (down, up) = ancestral(sigma, next);
            let mid = midpoint(sigma, down);
            Way { mid, down, up }
        };
        self.ways = levels.iter().zip(nexts).map(way).collect();

        let table = self.discrete.table();
        let mut visited = vec![timesteps[0]];
        for (way, &t) in self.ways.iter().zip(&timesteps[1..]) {
            visited.extend([f64::from(table.timestep_f32(way.mid)), t]);
        }
        // As in diffusers, with more zeros at the end than are used.
        let sigmas = twice(&levels).copied().chain([0.0; 3]).collect();
        self.discrete.steps = SigmaLoop::new(visited, sigmas);
        self.sample = None;
    }

    /// σ where the model is asked at timestep `t`: where a step begins, or its midpoint.
    fn asked_at(&self, t: f64) -> Result<f32> {
        let step = self.discrete.steps.at(t)?;
        Ok(match self.sample {
            Some(_) => self.ways[step / 2].mid,
            None => self.discrete.steps.sigmas()[step],
        })
    }
}

impl Scheduler for KDPM2AncestralDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let class_name = KDPM2AncestralDiscreteConfig::CLASS_NAME;
        let (timesteps, sigmas) = self.discrete.spread_rounded(class_name, num_inference_steps)?;
        self.begin(&timesteps, &sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.discrete.steps.step(t)?;
        Ok(scaled(sample, self.asked_at(t)?))
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let (sigma, _) = self.discrete.steps.halves(t, self.sample.is_some())?;
        let Way { mid, down, up } = self.ways[self.discrete.steps.step(t)? / 2];
        let here = if self.sample.is_some() { mid } else { sigma };
        let derivative = (x.clone() - clean.clone()) / here;

        let previous = match self.sample.take() {
            // To the midpoint ...
            None => {
                self.sample = Some(x.clone());
                x + derivative * (mid - sigma)
            }
            // ... and with the derivative there from the beginning to the end, and up again by noise.
            Some(start) => {
                let noise = options.draw_noise(KDPM2AncestralDiscreteConfig::CLASS_NAME, &x)?;
                start + derivative * (down - sigma) + noise * up
            }
        };
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.asked_at(t)?;
        Ok(clean_at(self.config.prediction_type, prediction, x, sigma))
    }

    fn order(&self) -> usize {
        2
    }

    discrete_methods!();
}
