//! Where the numbers of every optimiser step go out: to the run's metrics and to whoever watches.

use std::path::Path;

use super::{METRICS, Observer, Progress, UpdateReport, metrics::Metrics, pace::Pace};
use crate::Result;

/// Everybody who is told of an update.
#[derive(Debug)]
pub(super) struct Reports {
    metrics: Metrics,
    pace: Pace,
    steps: usize,
    epochs: usize,
}

impl Reports {
    /// For a run of so many steps in so many epochs, whose folder is there.
    pub fn begin(folder: &Path, steps: usize, epochs: usize) -> Result<Self> {
        Ok(Self {
            metrics: Metrics::create(&folder.join(METRICS))?,
            pace: Pace::start(),
            steps,
            epochs,
        })
    }

    /// The same, going on after `step` steps of a checkpoint's run, whose metrics are at `from`.
    pub fn resume(folder: &Path, from: &Path, step: usize, steps: usize, epochs: usize) -> Result<Self> {
        Ok(Self {
            metrics: Metrics::resume(&folder.join(METRICS), &from.join(METRICS), step)?,
            pace: Pace::start(),
            steps,
            epochs,
        })
    }

    /// Tells of an update: the one place that all of its numbers pass. Its pace is filled in here.
    pub fn update(&mut self, observer: &mut dyn Observer, mut report: UpdateReport) -> Result<()> {
        let (pictures_per_second, steps_per_second) = self.pace.step(report.losses.len());
        report.pictures_per_second = pictures_per_second;
        self.metrics.log(&report)?;
        observer.step(&Progress {
            epoch: report.epoch,
            epochs: self.epochs,
            step: report.step,
            steps: self.steps,
            loss: report.loss,
            learning_rate: report.learning_rate,
            pictures_per_second,
            seconds_left: (self.steps - report.step) as f64 / steps_per_second,
        });
        Ok(())
    }

    /// Leaves what happened since the last update out of the pace: samples were drawn, files written.
    pub fn pause(&mut self) {
        self.pace.pause();
    }

    /// The losses so far.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
