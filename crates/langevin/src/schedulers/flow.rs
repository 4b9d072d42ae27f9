//! What the flow-matching schedulers have in common: the sample at level σ is (1 - σ) x_0 + σ ε, and the model predicts
//! the velocity ε - x_0 (Lipman et al. 2023; Esser et al. 2024).

use burn::tensor::Tensor;

use super::{
    NoiseLevel, noise_schedule::MOST_TIMESTEPS, same_shape, sigma_loop::SigmaLoop, sigmas::linspace,
};
use crate::{Error, Result};

/// Checks what every flow scheduler's config has.
///
/// # Errors
/// If a value makes no sense; the error names it and the class.
pub(crate) fn check(class_name: &str, num_train_timesteps: usize, shift: f64) -> Result<()> {
    if num_train_timesteps == 0 || num_train_timesteps > MOST_TIMESTEPS {
        return Err(Error::Config(format!(
            "num_train_timesteps is {num_train_timesteps}, but a schedule has 1 to {MOST_TIMESTEPS} timesteps"
        )));
    }
    if !(shift > 0.0 && shift.is_finite()) {
        return Err(Error::Config(format!(
            "{class_name}: shift is {shift}, but it must be above 0"
        )));
    }
    Ok(())
}

/// Every noise level of training, t / T for t from T down to 1, in float32, moved by `shift`.
pub(crate) fn training_levels(num_train_timesteps: usize, shift: Option<f64>) -> Vec<f32> {
    let train = num_train_timesteps as f32;
    let levels = (1..=num_train_timesteps).rev().map(|t| t as f32 / train);
    match shift.map(|shift| shift as f32) {
        Some(shift) => levels
            .map(|sigma| shift * sigma / (1.0 + (shift - 1.0) * sigma))
            .collect(),
        None => levels.collect(),
    }
}

/// The timesteps of a loop of `steps`, evenly between the ends of the training levels.
pub(crate) fn even_timesteps(levels: &[f32], steps: usize) -> Vec<f64> {
    let train = levels.len() as f64;
    let end = |at: usize| f64::from(levels[at]) * train;
    linspace(end(0), end(levels.len() - 1), steps)
}

/// x̂_0 = x - σ v.
pub(crate) fn clean(prediction: &Tensor<4>, x: &Tensor<4>, sigma: f32) -> Tensor<4> {
    x.clone() - prediction.clone() * sigma
}

/// (1 - σ) x_0 + σ ε, with one timestep a picture: of the loop, or any between 0 and T, where σ is t / T.
pub(crate) fn add_noise(
    steps: &SigmaLoop,
    num_train_timesteps: usize,
    x0: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[f64],
) -> Result<Tensor<4>> {
    same_shape("the noise", &noise, "the pictures", &x0)?;
    let [batch, ..] = x0.dims();
    if timesteps.len() != batch {
        return Err(Error::Shape(format!(
            "{} timesteps were given for {batch} pictures; each picture has one",
            timesteps.len()
        )));
    }
    let levels: Result<Vec<f32>> = timesteps
        .iter()
        .map(|&t| sigma_of_noise(steps, num_train_timesteps, t))
        .collect();
    let sigma = Tensor::<1>::from_data(levels?.as_slice(), &x0.device()).reshape([batch, 1, 1, 1]);
    Ok(noise * sigma.clone() + x0 * (-sigma + 1.0))
}

/// σ at timestep `t` of the loop, or of training.
fn sigma_of_noise(steps: &SigmaLoop, num_train_timesteps: usize, t: f64) -> Result<f32> {
    let train = num_train_timesteps as f64;
    steps.level_of_noise(t, |t| (0.0..=train).contains(&t).then_some((t / train) as f32))
}

/// The level of the sample at timestep `t` of the loop, or of training.
pub(crate) fn level(steps: &SigmaLoop, num_train_timesteps: usize, t: f64) -> Result<NoiseLevel> {
    let sigma = sigma_of_noise(steps, num_train_timesteps, t)?;
    Ok(NoiseLevel {
        signal: 1.0 - sigma,
        noise: sigma,
    })
}

/// The methods of [`Scheduler`](super::Scheduler) that every flow scheduler with the fields `config` and `steps` has in
/// common.
macro_rules! flow_methods {
    () => {
        fn set_begin_index(&mut self, index: usize) {
            self.steps.begin_at(index);
        }

        fn timesteps(&self) -> &[f64] {
            self.steps.timesteps()
        }

        fn sigmas(&self) -> &[f32] {
            self.steps.sigmas()
        }

        fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
            let timesteps: Vec<f64> = timesteps.iter().map(|&t| t as f64).collect();
            flow::add_noise(
                &self.steps,
                self.config.num_train_timesteps,
                x0,
                noise,
                &timesteps,
            )
        }

        fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
            let [batch, ..] = x0.dims();
            flow::add_noise(
                &self.steps,
                self.config.num_train_timesteps,
                x0,
                noise,
                &vec![t; batch],
            )
        }

        fn level(&self, t: f64) -> Result<$crate::schedulers::NoiseLevel> {
            flow::level(&self.steps, self.config.num_train_timesteps, t)
        }

        /// The velocity of the flow, ε - x_0, the same at every timestep.
        fn get_velocity(
            &self,
            sample: Tensor<4>,
            noise: Tensor<4>,
            _timesteps: &[usize],
        ) -> Result<Tensor<4>> {
            same_shape("the noise", &noise, "the sample", &sample)?;
            Ok(noise - sample)
        }

        fn num_train_timesteps(&self) -> usize {
            self.config.num_train_timesteps
        }
    };
}

pub(super) use flow_methods;
