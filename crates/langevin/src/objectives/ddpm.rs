//! Training on a table of noise levels (Ho et al. 2020, algorithm 1).

use burn::tensor::Tensor;

use super::{Noise, Objective, PredictionType, TrainingPair, Weighting, check};
use crate::{
    Error, Result,
    random::Generator,
    schedulers::{Scheduler, noise_schedule},
};

/// Noise, clean picture or velocity at the timesteps of a table, which are drawn evenly. Its times are timesteps.
#[derive(Clone, Debug)]
pub struct DdpmObjective {
    alphas_cumprod: Vec<f32>,
    prediction: PredictionType,
    weighting: Weighting,
}

impl DdpmObjective {
    /// For the table of a scheduler.
    ///
    /// # Errors
    /// If the scheduler has none; or if a timestep's weight is no number, as where a table ends without any signal and noise
    /// is predicted.
    pub fn new(scheduler: &dyn Scheduler, prediction: PredictionType, weighting: Weighting) -> Result<Self> {
        let alphas_cumprod = scheduler.alphas_cumprod().to_vec();
        if alphas_cumprod.is_empty() {
            return Err(Error::Config(
                "this scheduler has no table of noise levels by whole timesteps to train on".into(),
            ));
        }
        if prediction == PredictionType::Epsilon && alphas_cumprod.last() == Some(&0.0) {
            return Err(Error::Config(
                "the last timestep holds no signal, so predicting its noise teaches nothing, and cannot be undone: a schedule \
                 rescaled to zero terminal SNR needs `prediction_type` v_prediction or sample (Lin et al. 2023)"
                    .into(),
            ));
        }
        let objective = Self {
            alphas_cumprod,
            prediction,
            weighting,
        };
        for t in 0..objective.alphas_cumprod.len() {
            objective.weight(t)?;
        }
        Ok(objective)
    }

    /// ᾱ_t / (1 - ᾱ_t), as diffusers' `compute_snr` has it.
    pub fn snr(&self, t: usize) -> f64 {
        let alpha = self.alphas_cumprod[t];
        f64::from(alpha) / f64::from(1.0 - alpha)
    }

    /// How much the squared error at timestep `t` counts; `None` where nothing is weighted.
    ///
    /// # Errors
    /// If it is no number.
    pub fn weight(&self, t: usize) -> Result<Option<f64>> {
        self.weighting.weight(self.prediction, self.snr(t))
    }

    fn timesteps(&self, times: &[f64]) -> Vec<usize> {
        // What is not a timestep is beyond the table, which says so.
        let whole = |&t: &f64| {
            if t.fract() == 0.0 && t >= 0.0 {
                t as usize
            } else {
                usize::MAX
            }
        };
        times.iter().map(whole).collect()
    }
}

impl Objective for DdpmObjective {
    fn draw_times(&self, n: usize, generator: &mut Generator) -> Vec<f64> {
        let timesteps = generator.randint(0, self.alphas_cumprod.len() as i64, n);
        timesteps.into_iter().map(|t| t as f64).collect()
    }

    fn noise_level(&self, time: f64) -> f32 {
        (time / self.alphas_cumprod.len() as f64) as f32
    }

    fn training_pair(&self, x0: Tensor<4>, noise: Noise, times: &[f64]) -> Result<TrainingPair> {
        check(&x0, &noise.epsilon, "the noise", times)?;
        let timesteps = self.timesteps(times);
        // x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε
        let input = noise_schedule::add_noise(&self.alphas_cumprod, x0.clone(), noise.mixed, &timesteps)?;
        let weights: Option<Vec<f32>> = timesteps
            .iter()
            .map(|&t| Ok(self.weight(t)?.map(|weight| weight as f32)))
            .collect::<Result<_>>()?;
        let weight = weights.map(|weights| Tensor::from_data(weights.as_slice(), &x0.device()));
        let target = match self.prediction {
            PredictionType::Epsilon => noise.epsilon,
            PredictionType::Sample => x0,
            PredictionType::VPrediction => {
                noise_schedule::velocity(&self.alphas_cumprod, x0, noise.epsilon, &timesteps)?
            }
        };
        Ok(TrainingPair {
            input,
            timesteps: timesteps.iter().map(|&t| t as f32).collect(),
            target,
            weight,
        })
    }

    fn predicted_clean(&self, prediction: Tensor<4>, input: Tensor<4>, times: &[f64]) -> Result<Tensor<4>> {
        check(&input, &prediction, "the prediction", times)?;
        let timesteps = self.timesteps(times);
        let (signal, noise) = noise_schedule::signal_and_noise(&self.alphas_cumprod, &timesteps, &input)?;
        Ok(match self.prediction {
            // Without any signal there is nothing to scale up; a tiny rate keeps the quotient finite.
            PredictionType::Epsilon => (input - prediction * noise) / signal.clamp_min(1e-12),
            PredictionType::Sample => prediction,
            PredictionType::VPrediction => input * signal - prediction * noise,
        })
    }
}
