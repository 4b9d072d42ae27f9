//! The fourth-order multistep method of Liu et al. (2022) for models of a continuous time, as in Dance Diffusion. Mirrors
//! `diffusers.IPNDMScheduler`.

use std::{collections::VecDeque, f32::consts::PI};

use burn::tensor::Tensor;

use super::{
    ModelKind, NoiseLevel, Scheduler, StepOptions, StepOutput,
    class::scheduler_class,
    noise_schedule::linspace,
    options::check_steps,
    position::{Position, index_of},
    same_shape,
};
use crate::{Error, Result};

/// How many predictions a step looks at.
const ORDER: usize = 4;
/// The least share of signal that is divided by, as in diffusers.
const LEAST_ALPHA: f32 = 1e-8;

scheduler_class! {
    /// The configuration of an [`IPNDMScheduler`], with diffusers' names and defaults.
    pub struct IPNDMConfig for IPNDMScheduler {
        /// How many steps the loop has before it is set.
        num_train_timesteps: usize = 1000,
        /// The share of noise at every step of the loop and after the last, in place of sin²(πt/2).
        trained_betas: Option<Vec<f64>> = None,
    }

    facts {
        model: ModelKind::ContinuousTime,
    }

    samplers {
        "ipndm", "1", false, "for models asked at times from 0 to 1: linear multistep";
    }
}

/// The Adams–Bashforth method for models that predict the velocity v = α ε - β x_0, where x = α x_0 + β ε with
/// α² + β² = 1. Timesteps are the angle of that mixture, 1 for pure noise and 0 for the clean sample.
#[derive(Clone, Debug)]
pub struct IPNDMScheduler {
    config: IPNDMConfig,
    timesteps: Vec<f64>,
    /// β and α of every step and after the last.
    betas: Vec<f32>,
    alphas: Vec<f32>,
    position: Position,
    /// The latest first.
    noises: VecDeque<Tensor<4>>,
}

impl IPNDMScheduler {
    /// A scheduler with a loop of `num_train_timesteps` steps, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: IPNDMConfig) -> Result<Self> {
        if let Some(beta) = config
            .trained_betas
            .iter()
            .flatten()
            .find(|beta| !(0.0..=1.0).contains(*beta))
        {
            return Err(Error::Config(format!(
                "a value of trained_betas is {beta}, but IPNDMScheduler takes shares of noise between 0 and 1"
            )));
        }
        // Trained betas are for one number of steps alone.
        let steps = match &config.trained_betas {
            Some(betas) => betas.len().saturating_sub(1),
            None => config.num_train_timesteps,
        };
        let mut scheduler = Self {
            config,
            timesteps: Vec::new(),
            betas: Vec::new(),
            alphas: Vec::new(),
            position: Position::default(),
            noises: VecDeque::new(),
        };
        scheduler.set_timesteps(steps)?;
        Ok(scheduler)
    }
}

impl Scheduler for IPNDMScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        check_steps(num_inference_steps)?;
        self.betas = match &self.config.trained_betas {
            Some(betas) if betas.len() != num_inference_steps + 1 => {
                return Err(Error::Config(format!(
                    "trained_betas holds {} values, which makes a loop of one step less, but {num_inference_steps} steps \
                     were asked for",
                    betas.len()
                )));
            }
            Some(betas) => betas.iter().map(|&beta| beta as f32).collect(),
            None => {
                let times = linspace(1.0, 0.0, num_inference_steps + 1).into_iter();
                let sines = times.map(|t| (t * PI / 2.0).sin());
                sines.map(|sine| sine * sine).collect()
            }
        };
        self.alphas = self
            .betas
            .iter()
            .map(|beta| (1.0 - beta * beta).max(0.0).sqrt())
            .collect();
        let angle = |(beta, alpha): (&f32, &f32)| f64::from(beta.atan2(*alpha) / PI * 2.0);
        self.timesteps = self
            .betas
            .iter()
            .zip(&self.alphas)
            .map(angle)
            .take(num_inference_steps)
            .collect();
        self.position = Position::default();
        self.noises.clear();
        Ok(())
    }

    fn set_begin_index(&mut self, index: usize) {
        self.position.begin_at(index);
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let step = self.position.find(&self.timesteps, t)?;
        let (alpha, beta) = (self.alphas[step], self.betas[step]);
        let (alpha_next, beta_next) = (self.alphas[step + 1], self.betas[step + 1]);

        // ε̂, and what the last four say of it over the step (Liu et al. 2022, eq. 12)
        self.noises.push_front(x.clone() * beta + prediction * alpha);
        self.noises.truncate(ORDER);
        let e: Vec<_> = self.noises.iter().cloned().collect();
        let noise = match e.as_slice() {
            [e0, e1] => (e0.clone() * 3.0 - e1.clone()) / 2.0,
            [e0, e1, e2] => (e0.clone() * 23.0 - e1.clone() * 16.0 + e2.clone() * 5.0) / 12.0,
            [e0, e1, e2, e3, ..] => {
                (e0.clone() * 55.0 - e1.clone() * 59.0 + e2.clone() * 37.0 - e3.clone() * 9.0) * (1.0 / 24.0)
            }
            [e0] => e0.clone(),
            [] => x.zeros_like(),
        };
        // α' x̂_0 + β' ε̂, with x̂_0 = (x - β ε̂) / α (eq. 11)
        let clean = (x - noise.clone() * beta) / alpha.max(LEAST_ALPHA);
        let previous = clean.clone() * alpha_next + noise * beta_next;
        self.position.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn add_noise(&self, _x0: Tensor<4>, _noise: Tensor<4>, _timesteps: &[usize]) -> Result<Tensor<4>> {
        Err(Error::Config(
            "the timesteps of IPNDMScheduler are times between 0 and 1, not whole numbers of a schedule"
                .to_owned(),
        ))
    }

    /// α x_0 + β ε. Diffusers' class has no such method.
    fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        same_shape("the noise", &noise, "the pictures", &x0)?;
        let step = index_of(&self.timesteps, t)?;
        Ok(x0 * self.alphas[step] + noise * self.betas[step])
    }

    // The clean sample is of a mixture with earlier predictions: what a copied step knows.
    fn level(&self, t: f64) -> Result<NoiseLevel> {
        let step = index_of(&self.timesteps, t)?;
        Ok(NoiseLevel {
            signal: self.alphas[step],
            noise: self.betas[step],
        })
    }

    fn num_train_timesteps(&self) -> usize {
        self.config.num_train_timesteps
    }
}
