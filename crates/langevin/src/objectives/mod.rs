//! What a model learns to predict and how its loss is weighted.

use burn::tensor::{Tensor, TensorData};

use crate::{Result, named::named_enum, schedulers::Scheduler};

named_enum! {
    /// What a model predicts from a noisy picture.
    pub enum PredictionType: "a kind of prediction" {
        /// The noise.
        Epsilon = "epsilon",
        /// The clean picture.
        Sample = "sample",
        /// The velocity between them (Salimans & Ho 2022, appendix D).
        VPrediction = "v_prediction",
    }
}

/// What to ask of a model at one step of training, and how much each answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective {
    prediction_type: PredictionType,
}

/// One batch of questions with their answers.
#[derive(Clone, Debug)]
pub struct Example {
    /// x_t: what the model sees, `[batch, channels, height, width]`.
    pub input: Tensor<4>,
    /// What it should say, of the same shape.
    pub target: Tensor<4>,
    /// How much each picture's squared error counts, `[batch]`; all the same where there are none.
    pub weights: Option<Tensor<1>>,
}

impl Objective {
    /// The objective of diffusers' training script for this prediction: a model that predicts the clean picture is weighted by the
    /// signal-to-noise ratio ᾱ / (1 - ᾱ), which makes its loss that of one that predicts noise; the others are not weighted.
    pub fn new(prediction_type: PredictionType) -> Self {
        Self { prediction_type }
    }

    /// What the model predicts.
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }

    /// The noisy pictures of `clean` with `noise` at `timesteps`, one a picture, and what the model should predict from them.
    ///
    /// # Errors
    /// If there are not as many timesteps as pictures, or one is beyond the schedule.
    pub fn example(
        &self,
        scheduler: &dyn Scheduler,
        clean: &Tensor<4>,
        noise: &Tensor<4>,
        timesteps: &[usize],
    ) -> Result<Example> {
        let input = scheduler.add_noise(clean.clone(), noise.clone(), timesteps)?;
        // `add_noise` has found every timestep in the schedule.
        let alphas = timesteps.iter().map(|&t| scheduler.alphas_cumprod()[t]);
        let column = |values: Vec<f32>| {
            let n = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [n]), &clean.device())
        };
        let (target, weights) = match self.prediction_type {
            PredictionType::Epsilon => (noise.clone(), None),
            PredictionType::Sample => {
                let snr = alphas.map(|alpha| alpha / (1.0 - alpha)).collect();
                (clean.clone(), Some(column(snr)))
            }
            PredictionType::VPrediction => {
                let rates = |rate: fn(f32) -> f32| column(alphas.clone().map(rate).collect()).reshape([-1, 1, 1, 1]);
                let signal_rate = rates(f32::sqrt);
                let noise_rate = rates(|alpha| (1.0 - alpha).sqrt());
                (noise.clone() * signal_rate - clean.clone() * noise_rate, None)
            }
        };
        Ok(Example { input, target, weights })
    }
}
