//! What a model predicts and how its loss is weighted.

use burn::tensor::Tensor;

use crate::{
    Error, Result,
    named::named_enum,
    schedulers::{Scheduler, noise_schedule::signal_and_noise, same_shape},
};

/// What a training step compares.
#[derive(Clone, Debug)]
pub struct TrainingPair {
    /// x_t, what the model is given: `[batch, channels, height, width]`.
    pub input: Tensor<4>,
    /// What it should predict. Shape of the input.
    pub target: Tensor<4>,
    /// How much each picture's squared error counts, `[batch]`; `None` where all count 1.
    pub weight: Option<Tensor<1>>,
}

impl TrainingPair {
    /// For each picture the mean of the weighted squared errors of `prediction`, `[batch]`; their mean is the loss to
    /// minimise.
    ///
    /// # Errors
    /// If the prediction has another shape than the target.
    pub fn losses(&self, prediction: Tensor<4>) -> Result<Tensor<1>> {
        same_shape("the prediction", &prediction, "the target", &self.target)?;
        let [batch, channels, height, width] = prediction.dims();
        let error = (prediction - self.target.clone()).square();
        let errors = error
            .reshape([batch, channels * height * width])
            .mean_dim(1)
            .reshape([batch]);
        Ok(match &self.weight {
            Some(weight) => errors * weight.clone(),
            None => errors,
        })
    }
}

/// What a model learns to predict: from a clean picture and noise to a training pair, and back from a prediction.
///
/// `timesteps` holds one timestep of the scheduler a picture of the batch.
pub trait Objective: Send {
    /// What to give the model, and what it should answer.
    ///
    /// # Errors
    /// If the shapes of `x0` and `noise` differ, or the timesteps do not fit the batch or the schedule.
    fn training_pair(
        &self,
        scheduler: &dyn Scheduler,
        x0: Tensor<4>,
        noise: Tensor<4>,
        timesteps: &[usize],
    ) -> Result<TrainingPair>;

    /// x̂_0, the clean picture that `prediction` implies at `x_t`.
    ///
    /// # Errors
    /// If the shapes of `x_t` and `prediction` differ, or the timesteps do not fit the batch or the schedule.
    fn predicted_clean(
        &self,
        scheduler: &dyn Scheduler,
        prediction: Tensor<4>,
        x_t: Tensor<4>,
        timesteps: &[usize],
    ) -> Result<Tensor<4>>;
}

named_enum! {
    /// The three things that diffusion models predict. The names in files are diffusers'.
    ///
    /// As an [`Objective`] it is that of diffusers' `train_unconditional.py`.
    #[derive(Default)]
    pub enum PredictionType: "a kind of prediction" {
        /// The noise ε in the sample.
        #[default]
        Epsilon = "epsilon",
        /// The clean sample x_0. Its error is weighted by the signal-to-noise ratio, so that it counts as the noise's
        /// error does (Salimans and Ho 2022, section 4).
        Sample = "sample",
        /// The velocity v = √ᾱ ε - √(1 - ᾱ) x_0.
        VPrediction = "v_prediction",
    }
}

impl Objective for PredictionType {
    fn training_pair(
        &self,
        scheduler: &dyn Scheduler,
        x0: Tensor<4>,
        noise: Tensor<4>,
        timesteps: &[usize],
    ) -> Result<TrainingPair> {
        let input = scheduler.add_noise(x0.clone(), noise.clone(), timesteps)?;
        Ok(match self {
            Self::Epsilon => TrainingPair {
                input,
                target: noise,
                weight: None,
            },
            Self::Sample => {
                let weight = snr_weight(scheduler, timesteps, &x0)?;
                TrainingPair {
                    input,
                    target: x0,
                    weight: Some(weight),
                }
            }
            Self::VPrediction => {
                let target = scheduler.get_velocity(x0, noise, timesteps)?;
                TrainingPair {
                    input,
                    target,
                    weight: None,
                }
            }
        })
    }

    fn predicted_clean(
        &self,
        scheduler: &dyn Scheduler,
        prediction: Tensor<4>,
        x_t: Tensor<4>,
        timesteps: &[usize],
    ) -> Result<Tensor<4>> {
        same_shape("the prediction", &prediction, "the sample", &x_t)?;
        let (signal_rate, noise_rate) = signal_and_noise(scheduler.alphas_cumprod(), timesteps, &x_t)?;
        Ok(match self {
            // Without any signal there is nothing to scale up; a tiny rate keeps the quotient finite.
            Self::Epsilon => (x_t - prediction * noise_rate) / signal_rate.clamp_min(1e-12),
            Self::Sample => prediction,
            Self::VPrediction => x_t * signal_rate - prediction * noise_rate,
        })
    }
}

/// ᾱ_t / (1 - ᾱ_t) of each picture's timestep, `[batch]`.
///
/// # Errors
/// If a timestep has no noise at all, whose ratio is infinite.
fn snr_weight(scheduler: &dyn Scheduler, timesteps: &[usize], x0: &Tensor<4>) -> Result<Tensor<1>> {
    let alphas_cumprod = scheduler.alphas_cumprod();
    if alphas_cumprod.is_empty() {
        return Err(Error::Config(
            "this scheduler has no table of noise levels by which the error of a predicted sample could be weighted".into(),
        ));
    }
    // `add_noise` has checked that the timesteps are in the table.
    let ratios: Vec<f32> = timesteps
        .iter()
        .map(|&t| alphas_cumprod[t] / (1.0 - alphas_cumprod[t]))
        .collect();
    if let Some(place) = ratios.iter().position(|ratio| !ratio.is_finite()) {
        return Err(Error::Config(format!(
            "timestep {} has no noise, so the error of a predicted sample cannot be weighted there",
            timesteps[place]
        )));
    }
    Ok(Tensor::from_data(ratios.as_slice(), &x0.device()))
}

#[cfg(test)]
mod tests;
