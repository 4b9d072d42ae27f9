//! `metrics.jsonl`: a line for every optimiser step, for whoever wants to plot or follow a run.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Tracker, scalars};
use crate::{Error, Result, files, training::UpdateReport};

/// The file, and the losses so far for the plot.
#[derive(Debug)]
pub(in crate::training) struct Metrics {
    path: PathBuf,
    /// None in a process that writes none.
    file: Option<File>,
    losses: Vec<(u64, f64)>,
}

impl Metrics {
    /// Begins the file anew.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(path)
            .map_err(|e| Error::io("write", path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Some(file),
            losses: vec![],
        })
    }

    /// Keeps the losses, and writes nothing.
    pub(crate) fn unwritten() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
            losses: vec![],
        }
    }

    /// Goes on after `step` steps: keeps the lines up to there of the file at `from`, which may be another run's.
    pub(crate) fn resume(path: &Path, from: &Path, step: usize) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kept {
            step: usize,
            loss: f64,
        }
        let text = if from.exists() {
            files::read_text(from)?
        } else {
            String::new()
        };
        let (mut kept, mut losses) = (String::new(), vec![]);
        // A power cut may leave anything at the end; whole lines of the steps that are done come first.
        for line in text.lines() {
            match serde_json::from_str::<Kept>(line) {
                Ok(read) if read.step <= step => {
                    losses.push((read.step as u64, read.loss));
                    kept.push_str(line);
                    kept.push('\n');
                }
                _ => break,
            }
        }
        files::write_atomically(path, |w| w.write_all(kept.as_bytes()))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|e| Error::io("write", path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Some(file),
            losses,
        })
    }

    /// Makes what was written last through a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        match &self.file {
            Some(file) => file.sync_all().map_err(|e| Error::io("write", &self.path, e)),
            None => Ok(()),
        }
    }

    /// Step and loss of every line.
    #[cfg(feature = "plot")]
    pub(crate) fn losses(&self) -> &[(u64, f64)] {
        &self.losses
    }

    /// The mean loss of the last steps.
    pub(crate) fn recent_loss(&self) -> Option<f64> {
        const RECENT: usize = 50;
        let recent = &self.losses[self.losses.len().saturating_sub(RECENT)..];
        let sum: f64 = recent.iter().map(|(_, loss)| loss).sum();
        (!recent.is_empty()).then(|| sum / recent.len() as f64)
    }
}

impl Tracker for Metrics {
    /// Adds a line, in one write, so that a run killed in the middle leaves whole lines.
    fn update(&mut self, report: &UpdateReport) -> Result<()> {
        let mut line = Map::from_iter([
            ("step".to_string(), Value::from(report.step)),
            ("epoch".to_string(), Value::from(report.epoch)),
        ]);
        for (name, value) in scalars(report) {
            line.insert(name.into(), value.into());
        }
        let text = format!("{}\n", Value::Object(line));
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes())
                .map_err(|e| Error::io("write", &self.path, e))?;
        }
        self.losses.push((report.step as u64, report.loss));
        Ok(())
    }
}
