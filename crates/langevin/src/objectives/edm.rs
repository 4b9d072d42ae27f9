//! Training as Karras et al. 2022 do: log-normal noise levels and a preconditioned model.

use burn::tensor::Tensor;

use super::{Noise, Objective, TrainingPair, check, column};
use crate::{Result, random::Generator};

/// EDM's objective (Karras et al. 2022, table 1, "Training"). Its times are noise levels σ.
///
/// The network F is inside a denoiser D(x; σ) = c_skip x + c_out F(c_in x; ln σ / 4), and the loss λ(σ) ‖D(x) - x_0‖² with
/// λ = 1 / c_out² is the plain error of F: what F has to say has variance 1 at every level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdmObjective {
    /// The mean of ln σ.
    pub p_mean: f64,
    /// Its standard deviation.
    pub p_std: f64,
    /// The standard deviation of the data.
    pub sigma_data: f64,
}

impl Default for EdmObjective {
    fn default() -> Self {
        Self {
            p_mean: -1.2,
            p_std: 1.2,
            sigma_data: 0.5,
        }
    }
}

impl EdmObjective {
    /// c_in, c_skip and c_out at σ.
    fn preconditioning(&self, sigma: f64) -> [f64; 3] {
        let (data, square) = (self.sigma_data, sigma * sigma + self.sigma_data * self.sigma_data);
        [
            1.0 / square.sqrt(),
            data * data / square,
            sigma * data / square.sqrt(),
        ]
    }

    /// The three for every picture.
    fn columns(&self, times: &[f64], pictures: &Tensor<4>) -> [Tensor<4>; 3] {
        std::array::from_fn(|i| {
            column(
                times.iter().map(|&sigma| self.preconditioning(sigma)[i]),
                pictures,
            )
        })
    }
}

impl Objective for EdmObjective {
    fn draw_times(&self, n: usize, generator: &mut Generator) -> Vec<f64> {
        let normal = generator.randn(n).into_iter();
        normal
            .map(|z| (self.p_mean + self.p_std * f64::from(z)).exp())
            .collect()
    }

    /// By the logarithm, between the lowest and the highest level that EDM's samplers visit by default.
    fn noise_level(&self, time: f64) -> f32 {
        let (low, high) = (0.002_f64.ln(), 80_f64.ln());
        (((time.ln() - low) / (high - low)) as f32).clamp(0.0, 1.0)
    }

    fn training_pair(&self, x0: Tensor<4>, noise: Noise, times: &[f64]) -> Result<TrainingPair> {
        check(&x0, &noise.epsilon, "the noise", times)?;
        let [c_in, c_skip, c_out] = self.columns(times, &x0);
        let sigma = column(times.iter().copied(), &x0);
        let noisy = x0.clone() + noise.mixed * sigma;
        Ok(TrainingPair {
            input: noisy.clone() * c_in,
            timesteps: times.iter().map(|sigma| (sigma.ln() / 4.0) as f32).collect(),
            target: (x0 - noisy * c_skip) / c_out,
            weight: None,
        })
    }

    fn predicted_clean(&self, prediction: Tensor<4>, input: Tensor<4>, times: &[f64]) -> Result<Tensor<4>> {
        check(&input, &prediction, "the prediction", times)?;
        let [c_in, c_skip, c_out] = self.columns(times, &input);
        Ok(input / c_in * c_skip + prediction * c_out)
    }
}
