//! The trainer: placeholder with the agreed interface.

use burn::tensor::Device;

use super::{Estimate, Observer, Outcome, TrainingConfig};
use crate::{Error, Result};

/// A training run.
#[derive(Debug)]
pub struct Trainer {}

impl Trainer {
    /// Opens the data, builds the model and makes the run's folder.
    pub fn new(_config: TrainingConfig, _device: &Device) -> Result<Self> {
        Err(Error::Unsupported("training is not there yet".into()))
    }

    /// How long the run will take.
    pub fn estimate(&mut self) -> Result<Estimate> {
        Err(Error::Unsupported("training is not there yet".into()))
    }

    /// Trains.
    pub fn run(&mut self, _observer: &mut dyn Observer) -> Result<Outcome> {
        Err(Error::Unsupported("training is not there yet".into()))
    }
}
