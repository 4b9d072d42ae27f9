//! Where a run's numbers and pictures are kept for whoever looks at them later: one trait, a file for each kind.
//!
//! [`METRICS`](super::METRICS) is always written; a [`TrackerKind`] is added by the configuration's `report_to`.

mod date;
pub(super) mod metrics;
mod scalars;
pub mod tensorboard;
pub mod wandb;

use std::path::Path;

pub use scalars::scalars;
pub use tensorboard::TensorBoard;
pub use wandb::{Wandb, WandbSettings};

use super::{RunInfo, TrainingConfig, UpdateReport};
use crate::{
    Error, Result,
    data::{Picture, sound::Sound},
    named::named_enum,
};

named_enum! {
    /// Another program's record of a run, that it can be looked at with.
    pub enum TrackerKind: "a tracker" {
        /// TensorBoard's event files.
        TensorBoard = "tensorboard",
        /// A run folder of Weights & Biases, kept offline.
        Wandb = "wandb",
    }
}

/// A keeper of a run's numbers and pictures. It is opened when the run begins.
pub trait Tracker: std::fmt::Debug {
    /// An optimiser step is done.
    ///
    /// # Errors
    /// If it cannot be written down.
    fn update(&mut self, report: &UpdateReport) -> Result<()>;

    /// Pictures were drawn after `step` steps; `name` says what they show, as `samples`.
    ///
    /// # Errors
    /// If they cannot be written.
    fn picture(&mut self, name: &str, step: usize, picture: &Picture) -> Result<()> {
        let _ = (name, step, picture);
        Ok(())
    }

    /// Sounds were drawn after `step` steps, one after another.
    ///
    /// # Errors
    /// If they cannot be written.
    fn sound(&mut self, name: &str, step: usize, sound: &Sound) -> Result<()> {
        let _ = (name, step, sound);
        Ok(())
    }

    /// The run is over, and whether it came to its end or was stopped as asked, rather than failed.
    ///
    /// # Errors
    /// If it cannot be written down.
    fn finish(&mut self, well: bool) -> Result<()> {
        let _ = well;
        Ok(())
    }
}

/// Zero where a folder holds the events of a run that is replaced: none of their steps count.
fn replaced(folder: &Path) -> Option<usize> {
    let names = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name());
    names
        .into_iter()
        .any(|name| name.to_string_lossy().starts_with("events.out.tfevents."))
        .then_some(0)
}

/// Opens the trackers that the configuration asks for. `goes_on_at` is the first step that they are told of where they have been told of it
/// before, by a run that was ended after its checkpoint or that is replaced; `say` is given a sentence about each that has one.
///
/// # Errors
/// If one cannot begin its files, or its environment asks for what cannot be done.
pub(super) fn open(
    config: &TrainingConfig,
    run: &RunInfo,
    goes_on_at: Option<usize>,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Box<dyn Tracker>>> {
    let hyper_parameters = serde_json::to_value(config)
        .map_err(|e| Error::Config(format!("the configuration cannot be written as JSON: {e}")))?;
    let mut trackers: Vec<Box<dyn Tracker>> = vec![];
    for kind in &config.report_to {
        match kind {
            TrackerKind::TensorBoard => {
                let folder = run.folder.join(&config.logging_dir);
                trackers.push(Box::new(TensorBoard::create(
                    &folder,
                    &hyper_parameters,
                    goes_on_at.or(replaced(&folder)),
                )?));
                say(&format!("watch with `tensorboard --logdir {}`", folder.display()));
            }
            TrackerKind::Wandb => {
                let settings = WandbSettings::from_environment()?;
                if settings.disabled {
                    say("WANDB_MODE is disabled: nothing is written for Weights & Biases");
                    continue;
                }
                let tracker = Wandb::create(&settings, &run.folder, &hyper_parameters, goes_on_at)?;
                say(&format!(
                    "Weights & Biases: the run stays on this machine; `{}` uploads it",
                    tracker.sync_line()
                ));
                trackers.push(Box::new(tracker));
            }
        }
    }
    Ok(trackers)
}
