//! What a model learns to predict, at which noise levels, and how its loss is weighted.

mod bias;
mod ddpm;
mod edm;
mod flow;
mod noise;
mod weighting;

pub use bias::{TimestepBias, TimestepBiasStrategy};
pub use ddpm::DdpmObjective;
pub use edm::EdmObjective;
pub use flow::FlowObjective;
pub use noise::{Noise, NoiseOptions};
pub use weighting::{LossWeighting, Weighting};

use burn::tensor::{Tensor, TensorData};

pub use crate::schedulers::PredictionType;
use crate::{Error, Result, named::named_enum, random::Generator, schedulers::same_shape};

/// What a training step compares.
#[derive(Clone, Debug)]
pub struct TrainingPair {
    /// What the model is given: `[batch, channels, height, width]`.
    pub input: Tensor<4>,
    /// The timestep that it is given, one per picture.
    pub timesteps: Vec<f32>,
    /// What it should predict. Shape of the input.
    pub target: Tensor<4>,
    /// How much each picture's squared error counts, `[batch]`; `None` where all count 1.
    pub weight: Option<Tensor<1>>,
}

impl TrainingPair {
    /// The same where only the first so many pictures are weighted, and the others count 1.
    pub fn weighting_first(mut self, count: usize) -> Self {
        let [batch, ..] = self.input.dims();
        self.weight = self.weight.map(|weight| {
            if count >= batch {
                return weight;
            }
            let ones = Tensor::ones([batch - count], &weight.device());
            Tensor::cat(vec![weight.narrow(0, 0, count), ones], 0)
        });
        self
    }

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

/// What a model learns: from a clean picture and noise to a training pair, and back from a prediction.
///
/// A picture's time says how far it is on its way from clean to noise: a timestep of a table, or a noise level σ.
pub trait Objective: Send + Sync {
    /// Draws a time for each of `n` pictures.
    fn draw_times(&self, n: usize, generator: &mut Generator) -> Vec<f64>;

    /// Where a time stands between the clean end, 0, and the noisy, 1.
    fn noise_level(&self, time: f64) -> f32;

    /// What to give the model, and what it should answer; one time a picture.
    ///
    /// # Errors
    /// If the shapes of picture and noise differ, or the times do not fit the batch or the schedule.
    fn training_pair(&self, x0: Tensor<4>, noise: Noise, times: &[f64]) -> Result<TrainingPair>;

    /// Whether what the model makes of the input as it stands changes what it learns, see [`Self::rectified`].
    fn rectifies(&self) -> bool {
        false
    }

    /// What to give the model and what it should answer once it is known what it makes of `pair`'s input as it stands; one time a picture.
    ///
    /// # Errors
    /// If the shapes differ, or the times do not fit the batch or the schedule.
    fn rectified(&self, pair: TrainingPair, prediction: Tensor<4>, times: &[f64]) -> Result<TrainingPair> {
        let _ = (prediction, times);
        Ok(pair)
    }

    /// x̂_0, the clean picture that `prediction` implies for the model's `input`.
    ///
    /// # Errors
    /// If the shapes differ, or the times do not fit the batch or the schedule.
    fn predicted_clean(&self, prediction: Tensor<4>, input: Tensor<4>, times: &[f64]) -> Result<Tensor<4>>;
}

named_enum! {
    /// The way from a picture to noise that a model is trained on, and so which samplers it has.
    #[derive(Default)]
    pub enum ObjectiveKind: "a way from picture to noise" {
        /// A table of noise levels, whose timesteps are drawn evenly (Ho et al. 2020).
        #[default]
        Ddpm = "ddpm",
        /// Any noise level, drawn log-normally, with a preconditioned model (Karras et al. 2022).
        Edm = "edm",
        /// A straight line to noise, with times drawn logit-normally (Esser et al. 2024).
        Flow = "flow",
    }
}

/// A number for each picture, `[batch, 1, 1, 1]`.
fn column(values: impl Iterator<Item = f64>, pictures: &Tensor<4>) -> Tensor<4> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n, 1, 1, 1]), &pictures.device())
}

/// Refuses a batch whose times are not one per picture, or noise of another shape.
fn check(pictures: &Tensor<4>, other: &Tensor<4>, what: &str, times: &[f64]) -> Result<()> {
    same_shape(what, other, "the pictures", pictures)?;
    let [batch, ..] = pictures.dims();
    if times.len() == batch {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "{} times were given for {batch} pictures; each picture has one",
        times.len()
    )))
}

#[cfg(test)]
mod tests;
