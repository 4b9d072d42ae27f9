//! Training on a table of noise levels (Ho et al. 2020, algorithm 1).

use burn::tensor::Tensor;

use super::{Noise, Objective, PredictionType, TimestepBias, TrainingPair, Weighting, bias, check};
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
    /// The probability of each timestep or an earlier one, where they are not alike.
    cumulative: Option<Vec<f32>>,
    /// The power of DREAM's weight, where it is used.
    dream: Option<f64>,
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
            cumulative: None,
            dream: None,
        };
        for t in 0..objective.alphas_cumprod.len() {
            objective.weight(t)?;
        }
        Ok(objective)
    }

    /// The same with timesteps of which some are drawn more often than others.
    ///
    /// # Errors
    /// If the bias makes no sense for the table.
    pub fn with_bias(self, bias: &TimestepBias) -> Result<Self> {
        let cumulative = bias.cumulative(self.alphas_cumprod.len())?;
        Ok(Self { cumulative, ..self })
    }

    /// The same with DREAM (Zhou et al. 2023, "Diffusion Rectification and Estimation-Adaptive Models", algorithm 1): the model learns from what it
    /// makes of a picture itself, by (1 - ᾱ)^(power / 2). Mirrors `compute_dream_and_update_latents`.
    ///
    /// # Errors
    /// If the model does not predict noise, or the power is no number of 0 or more.
    pub fn with_dream(self, power: f64) -> Result<Self> {
        let refused = |why: String| {
            Err(Error::option(
                &["dream_training", "dream_detail_preservation"],
                why,
            ))
        };
        if self.prediction != PredictionType::Epsilon {
            return refused(format!(
                "`dream_training` is for models that predict noise, and `prediction_type` is {}",
                self.prediction
            ));
        }
        if !(power.is_finite() && power >= 0.0) {
            return refused(format!(
                "`dream_detail_preservation` is {power}; it must be 0 or more"
            ));
        }
        Ok(Self {
            dream: Some(power),
            ..self
        })
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
        if let Some(cumulative) = &self.cumulative {
            let drawn = bias::draw(cumulative, n, generator);
            return drawn.into_iter().map(|t| t as f64).collect();
        }
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

    fn rectifies(&self) -> bool {
        self.dream.is_some()
    }

    fn rectified(&self, pair: TrainingPair, prediction: Tensor<4>, times: &[f64]) -> Result<TrainingPair> {
        let Some(power) = self.dream else {
            return Ok(pair);
        };
        check(&pair.input, &prediction, "the prediction", times)?;
        let timesteps = self.timesteps(times);
        let (_, noise) = noise_schedule::signal_and_noise(&self.alphas_cumprod, &timesteps, &pair.input)?;
        let missed = (pair.target.clone() - prediction) * noise.clone().powf_scalar(power);
        Ok(TrainingPair {
            input: pair.input + missed.clone() * noise,
            target: pair.target + missed,
            ..pair
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
