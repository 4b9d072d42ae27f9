//! Where the numbers of every optimiser step go out: to the run's metrics and to whoever watches.

use std::path::Path;

use super::{
    Drawn, METRICS, Observer, Progress, UpdateReport,
    pace::Pace,
    trackers::{Tracker, metrics::Metrics},
};
use crate::Result;

/// Everybody who is told of an update.
#[derive(Debug)]
pub(super) struct Reports {
    metrics: Metrics,
    trackers: Vec<Box<dyn Tracker>>,
    pace: Pace,
    steps: usize,
    epochs: usize,
}

impl Reports {
    /// For a run of so many steps in so many epochs, whose folder is there.
    pub(super) fn begin(folder: &Path, steps: usize, epochs: usize) -> Result<Self> {
        Ok(Self {
            metrics: Metrics::create(&folder.join(METRICS))?,
            trackers: vec![],
            pace: Pace::start(),
            steps,
            epochs,
        })
    }

    /// For a process that writes none of it.
    pub(super) fn unwritten(steps: usize, epochs: usize) -> Self {
        Self {
            metrics: Metrics::unwritten(),
            trackers: vec![],
            pace: Pace::start(),
            steps,
            epochs,
        }
    }

    /// The same, going on after `step` steps of a checkpoint's run, whose metrics are at `from`.
    pub(super) fn resume(
        folder: &Path,
        from: &Path,
        step: usize,
        steps: usize,
        epochs: usize,
    ) -> Result<Self> {
        Ok(Self {
            metrics: Metrics::resume(&folder.join(METRICS), &from.join(METRICS), step)?,
            trackers: vec![],
            pace: Pace::start(),
            steps,
            epochs,
        })
    }

    /// Tells of an update: the one place that all of its numbers pass. Its pace is filled in here.
    pub(super) fn update(&mut self, observer: &mut dyn Observer, mut report: UpdateReport) -> Result<()> {
        let (pictures_per_second, steps_per_second) = self.pace.step(report.losses.len());
        report.pictures_per_second = pictures_per_second;
        self.metrics.update(&report)?;
        for tracker in &mut self.trackers {
            tracker.update(&report)?;
        }
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

    /// Adds trackers that are told of everything from here on.
    pub(super) fn add(&mut self, trackers: Vec<Box<dyn Tracker>>) {
        self.trackers.extend(trackers);
    }

    /// Tells of pictures drawn after `step` steps.
    pub(super) fn drawn(&mut self, observer: &mut dyn Observer, step: usize, drawn: &Drawn) -> Result<()> {
        for tracker in &mut self.trackers {
            tracker.picture("samples", step, &drawn.grid)?;
            tracker.picture("denoising", step, &drawn.denoising)?;
            if let Some(sound) = &drawn.sound {
                tracker.sound("sounds", step, sound)?;
            }
        }
        observer.drawn(step, drawn);
        self.pace.pause();
        Ok(())
    }

    /// Tells that the run is over, and whether it failed.
    pub(super) fn finish(&mut self, well: bool) -> Result<()> {
        self.trackers
            .iter_mut()
            .try_for_each(|tracker| tracker.finish(well))
    }

    /// Leaves what happened since the last update out of the pace: samples were drawn, files written.
    pub(super) fn pause(&mut self) {
        self.pace.pause();
    }

    /// The losses so far.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
