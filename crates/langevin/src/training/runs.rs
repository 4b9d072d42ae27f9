//! What runs there are, and what their folders tell of them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{METRICS, RUN_CONFIG, TrainingConfig, lock, loss_curve::recent_losses, samples::SAMPLES};
use crate::{Error, Result, files, named::named_enum};

/// A run that has written nothing for so long is not going on, where the file system has no locks to tell.
const SILENCE: Duration = Duration::from_secs(300);
/// Steps that the last loss is averaged over.
const RECENT: usize = 50;

named_enum! {
    /// Where a run stands, as far as its folder tells.
    pub enum RunState: "the state of a run" {
        /// All steps are done, and the samples of the end are drawn.
        Finished = "finished",
        /// A process trains it.
        Running = "running",
        /// It ended before its last step.
        Stopped = "stopped",
    }
}

/// A run as its folder tells it.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Its folder.
    pub folder: PathBuf,
    /// What it was asked to do.
    pub config: TrainingConfig,
    /// Optimiser steps done.
    pub steps: u64,
    /// The mean loss of the last steps; `None` where not one was done.
    pub loss: Option<f64>,
    /// Whether it is over.
    pub state: RunState,
    /// When it last wrote a step.
    pub modified: SystemTime,
}

impl RunSummary {
    /// Reads the run in `folder`, of its numbers the last ones alone.
    ///
    /// # Errors
    /// If there is none, or its configuration cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let config: TrainingConfig = files::read_json(folder.join(RUN_CONFIG))?;
        let (steps, recent) = recent_losses(folder, RECENT)?;
        let modified = |name: &str| {
            fs::metadata(folder.join(name))
                .and_then(|file| file.modified())
                .ok()
        };
        let last = modified(METRICS)
            .or(modified(RUN_CONFIG))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let state = if modified(SAMPLES).is_some_and(|drawn| drawn >= last) {
            RunState::Finished
        } else {
            let has_written = || last.elapsed().is_ok_and(|silence| silence <= SILENCE);
            match lock::is_running(folder).unwrap_or_else(has_written) {
                true => RunState::Running,
                false => RunState::Stopped,
            }
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            steps,
            loss: (!recent.is_empty()).then(|| recent.iter().sum::<f64>() / recent.len() as f64),
            config,
            state,
            modified: last,
        })
    }

    /// The data set in a word.
    pub fn dataset(&self) -> String {
        let config = &self.config;
        let name = config.dataset().unwrap_or_default();
        let last = Path::new(&name).file_name();
        last.map_or(name.clone(), |last| last.to_string_lossy().into_owned())
    }
}

/// The folders of runs in `folder`, or itself where it is one, by their names.
///
/// # Errors
/// If it cannot be read.
pub fn find_runs(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_run = |path: &Path| path.join(RUN_CONFIG).is_file();
    if is_run(folder) {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let mut runs: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_run(path))
        .collect();
    runs.sort_by_cached_key(|path| natural(path));
    Ok(runs)
}

/// A name whose last number is compared as one, so that `digits-10` comes after `digits-9`.
fn natural(path: &Path) -> (String, usize) {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_string();
    let number = name[stem.len()..].parse().unwrap_or(0);
    (stem, number)
}

/// Step and value of one of the numbers in a run's [`METRICS`], such as `loss`; empty where the run has done no step.
///
/// # Errors
/// If the file cannot be read, or no line has such a number, with those that there are.
pub fn read_metric(folder: &Path, name: &str) -> Result<Vec<(u64, f64)>> {
    let path = folder.join(METRICS);
    if !path.exists() {
        return Ok(vec![]);
    }
    let text = files::read_text(&path)?;
    // The last line may be half written.
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let points: Vec<(u64, f64)> = lines
        .iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line[name].as_f64()?)))
        .collect();
    match (points.is_empty(), lines.last()) {
        (true, Some(line)) => {
            let known: Vec<&str> = line
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .collect();
            Err(Error::file(
                path,
                format!("has no numbers called `{name}`; there are {}", known.join(", ")),
            ))
        }
        _ => Ok(points),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::RunLock;

    fn run(folder: &Path, metrics: &str) -> PathBuf {
        files::write_json(folder.join(RUN_CONFIG), &TrainingConfig::digits()).unwrap();
        fs::write(folder.join(METRICS), metrics).unwrap();
        folder.to_path_buf()
    }

    #[test]
    fn a_run_is_summarised_up_to_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.25}\n{\"step\":3,\"lo";
        let path = run(&folder.path().join("digits-1"), metrics);
        let summary = RunSummary::read(&path).unwrap();
        assert_eq!((summary.steps, summary.loss), (2, Some(0.375)));
        assert_eq!(
            (summary.dataset().as_str(), summary.state),
            ("digits", RunState::Stopped)
        );
        let lock = RunLock::acquire(&path).unwrap();
        assert_eq!(RunSummary::read(&path).unwrap().state, RunState::Running);
        drop(lock);
        assert_eq!(RunSummary::read(&path).unwrap().state, RunState::Stopped);
        fs::write(path.join(SAMPLES), "").unwrap();
        assert_eq!(RunSummary::read(&path).unwrap().state, RunState::Finished);
        let message = read_metric(&path, "los").unwrap_err().to_string();
        assert!(message.contains("`los`; there are step, loss"), "{message}");
    }

    #[test]
    fn runs_are_found_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a-2", "a-10", "b"]
            .map(|name| run(&folder.path().join(name), ""))
            .to_vec();
        fs::create_dir(folder.path().join("no-run")).unwrap();
        assert_eq!(find_runs(folder.path()).unwrap(), paths);
        assert_eq!(find_runs(&paths[0]).unwrap(), paths[..1]);
        assert!(find_runs(&folder.path().join("nowhere")).is_err());
    }
}
