//! `langevin runs`.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Result;
use clap::Args;
use langevin::training::runs::{RunSummary, find_runs};
use serde_json::json;

use crate::terminal::{self, duration, thousands};

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct RunsArgs {
    /// The folder that the runs are in
    #[arg(default_value = "runs")]
    pub folder: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Prints a line for each run.
pub(crate) fn run(args: RunsArgs) -> Result<()> {
    if args.json {
        return print_json(&args.folder);
    }
    let mut rows = vec![["run", "data", "model", "steps", "loss", "state", "last step"].map(String::from)];
    for folder in find_runs(&args.folder)? {
        match RunSummary::read(&folder) {
            Ok(run) => rows.push(row(&run)),
            // One broken run does not hide the others.
            Err(error) => terminal::note(&error.to_string()),
        }
    }
    if rows.len() == 1 {
        terminal::note(&format!("there is no run in {}", args.folder.display()));
        return Ok(());
    }
    let widths: [usize; 7] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).enumerate();
        let line: Vec<String> = cells
            // Numbers end below each other.
            .map(|(i, (cell, width))| match i {
                3 | 4 => format!("{cell:>width$}"),
                _ => format!("{cell:width$}"),
            })
            .collect();
        terminal::print_line(line.join("  ").trim_end())?;
    }
    Ok(())
}

/// Prints a list of the runs.
fn print_json(folder: &Path) -> Result<()> {
    let mut runs = Vec::new();
    for folder in find_runs(folder)? {
        match RunSummary::read(&folder) {
            Ok(run) => runs.push(json!({
                "folder": run.folder,
                "dataset": run.dataset(),
                "model": run.config.model_name(),
                "steps": run.steps,
                "loss": run.loss,
                "state": run.state.to_string(),
                "modified": terminal::unix_seconds(run.modified),
            })),
            Err(error) => terminal::note(&error.to_string()),
        }
    }
    Ok(terminal::print_json(&runs.into())?)
}

fn row(run: &RunSummary) -> [String; 7] {
    let silence = SystemTime::now().duration_since(run.modified).unwrap_or_default();
    [
        run.folder.display().to_string(),
        run.dataset(),
        run.config.model_name(),
        thousands(run.steps as usize),
        run.loss.map_or_else(|| "-".into(), |loss| format!("{loss:.4}")),
        run.state.to_string(),
        format!("{} ago", duration(silence.as_secs_f64())),
    ]
}
