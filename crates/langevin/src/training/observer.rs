//! What a training run tells whoever watches it, and what it leaves behind.

use std::path::PathBuf;

use crate::data::{Picture, sound::Sound};

/// Somebody who watches a training run: a progress bar, a page, a test.
///
/// Every method has a default that does nothing, so that an observer implements what it is about. [`Silent`] is one
/// that implements none.
pub trait Observer {
    /// The run is about to begin; called once, and before that for the run of an autoencoder that is trained first.
    fn started(&mut self, info: &RunInfo) {
        let _ = info;
    }

    /// An optimiser step is done.
    fn step(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// Samples were drawn after `step` optimiser steps.
    fn drawn(&mut self, step: usize, drawn: &Drawn) {
        let _ = (step, drawn);
    }

    /// Something worth a line: a file written, a picture skipped. A sentence without a final newline.
    fn message(&mut self, text: &str) {
        let _ = text;
    }

    /// Whether the run should end after the step it is in, with its pipeline and its plot written.
    fn should_stop(&self) -> bool {
        false
    }
}

/// An observer that watches nothing and never stops a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// What is about to be trained on what.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The run's folder.
    pub folder: PathBuf,
    /// The data set in words, such as `digits` or a folder's path.
    pub dataset: String,
    /// Pictures in the data set.
    pub pictures: usize,
    /// Names of the classes, empty where the run is unconditional.
    pub classes: Vec<String>,
    /// The model in words, such as `digits`.
    pub model: String,
    /// How many numbers are trained.
    pub parameters: usize,
    /// Height and width of the pictures as the model sees them.
    pub resolution: usize,
    /// Pictures in one batch.
    pub batch_size: usize,
    /// Passes over the data set.
    pub epochs: usize,
    /// Optimiser steps in the whole run.
    pub steps: usize,
}

/// Where a run stands after an optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The epoch that this step belongs to, counted from 1.
    pub epoch: usize,
    /// Epochs in the whole run.
    pub epochs: usize,
    /// Optimiser steps done, this one included.
    pub step: usize,
    /// Optimiser steps in the whole run.
    pub steps: usize,
    /// The step's loss, averaged over its batches.
    pub loss: f64,
    /// The learning rate that the step was taken with.
    pub learning_rate: f64,
    /// Pictures learnt from per second, over the last steps.
    pub pictures_per_second: f64,
    /// Seconds that the rest of the run will take at that pace.
    pub seconds_left: f64,
}

/// Samples that a run drew, always from the same seed, to see how it comes along.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The pictures, in the model's size.
    pub pictures: Vec<Picture>,
    /// How many of them are in a row of the grid.
    pub columns: usize,
    /// All of them as one picture, enlarged so that it can be seen.
    pub grid: Picture,
    /// A few on their way from noise: a row each, the finished picture last.
    pub denoising: Picture,
    /// The grid's file.
    pub path: PathBuf,
    /// A few of them as sounds, one after another, where they are spectrograms.
    pub sound: Option<Sound>,
}

/// All numbers of one optimiser step, for whoever keeps them.
#[derive(Clone, Debug)]
pub struct UpdateReport {
    /// The epoch that this step belongs to, counted from 1.
    pub epoch: usize,
    /// Optimiser steps done, this one included.
    pub step: usize,
    /// The step's loss, averaged over its batches.
    pub loss: f64,
    /// The learning rate that the step was taken with.
    pub learning_rate: f64,
    /// The gradients' norm before clipping.
    pub grad_norm: f64,
    /// The decay of the moving average, where there is one.
    pub ema_decay: Option<f64>,
    /// Pictures learnt from per second, over the last steps.
    pub pictures_per_second: f64,
    /// Where each of the step's pictures stood on the way from clean, 0, to noise, 1: its timestep over their number.
    pub noise_levels: Vec<f32>,
    /// Each of these pictures' loss.
    pub losses: Vec<f32>,
}

/// How long a run will take, measured on a few of its steps.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Seconds for one optimiser step.
    pub seconds_per_step: f64,
    /// Optimiser steps in one epoch.
    pub steps_per_epoch: usize,
    /// Optimiser steps in the whole run.
    pub steps: usize,
    /// Bytes of memory that the process will hold at most, where the system says how it grew; `None` elsewhere.
    pub memory: Option<u64>,
}

impl Estimate {
    /// Seconds for one pass over the data set.
    pub fn seconds_per_epoch(&self) -> f64 {
        self.seconds_per_step * self.steps_per_epoch as f64
    }

    /// Seconds for the whole run.
    pub fn seconds(&self) -> f64 {
        self.seconds_per_step * self.steps as f64
    }
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run's folder: a pipeline that diffusers loads, with everything else about the run beside it.
    pub folder: PathBuf,
    /// Optimiser steps done.
    pub steps: usize,
    /// Whether it was stopped before its last step.
    pub interrupted: bool,
    /// The checkpoint to go on from, of a run that was stopped.
    pub checkpoint: Option<PathBuf>,
    /// The loss averaged over the last steps, `None` where not one was done.
    pub final_loss: Option<f64>,
    /// Names of the classes, empty where the run is unconditional.
    pub classes: Vec<String>,
    /// The grid of samples made at the end.
    pub samples: Option<PathBuf>,
    /// The plot of the loss.
    pub plot: Option<PathBuf>,
    /// Wall-clock seconds from the first step to the last file.
    pub seconds: f64,
}
