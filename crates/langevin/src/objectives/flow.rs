//! Rectified flow: straight lines from pictures to noise (Liu et al. 2022), with logit-normal times (Esser et al. 2024).

use burn::tensor::Tensor;

use super::{Noise, Objective, TrainingPair, check, column};
use crate::{Result, random::Generator};

/// The velocity ε - x_0 along x = (1 - σ) x_0 + σ ε. Its times are σ, drawn as the logistic function of a normal number, so that
/// the middle of the way, where the velocity is hardest to tell, comes up most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowObjective {
    /// The mean of the logit of σ.
    pub logit_mean: f64,
    /// Its standard deviation.
    pub logit_std: f64,
    /// T: the model is given T σ.
    pub num_train_timesteps: usize,
}

impl Default for FlowObjective {
    fn default() -> Self {
        Self {
            logit_mean: 0.0,
            logit_std: 1.0,
            num_train_timesteps: 1000,
        }
    }
}

impl Objective for FlowObjective {
    fn draw_times(&self, n: usize, generator: &mut Generator) -> Vec<f64> {
        let normal = generator.randn(n).into_iter();
        normal
            .map(|z| 1.0 / (1.0 + (-(self.logit_mean + self.logit_std * f64::from(z))).exp()))
            .collect()
    }

    fn noise_level(&self, time: f64) -> f32 {
        time as f32
    }

    fn training_pair(&self, x0: Tensor<4>, noise: Noise, times: &[f64]) -> Result<TrainingPair> {
        check(&x0, &noise.epsilon, "the noise", times)?;
        let sigma = column(times.iter().copied(), &x0);
        let clean = column(times.iter().map(|sigma| 1.0 - sigma), &x0);
        Ok(TrainingPair {
            input: x0.clone() * clean + noise.mixed * sigma,
            timesteps: times
                .iter()
                .map(|sigma| (sigma * self.num_train_timesteps as f64) as f32)
                .collect(),
            target: noise.epsilon - x0,
            weight: None,
        })
    }

    fn predicted_clean(&self, prediction: Tensor<4>, input: Tensor<4>, times: &[f64]) -> Result<Tensor<4>> {
        check(&input, &prediction, "the prediction", times)?;
        Ok(input.clone() - prediction * column(times.iter().copied(), &input))
    }
}
