//! Training runs as the page shows them. Names that come from callers are compared with those that there are, and never become paths.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use langevin::training::runs::{RunSummary, find_runs, read_metric};
use serde::Serialize;

use crate::refusal::Refusal;

/// Points of the loss curve that are sent at most: as many as a wide screen can show.
const POINTS: usize = 600;
/// Pictures that are listed at most, the newest.
const PICTURES: usize = 48;

/// A run in the list.
#[derive(Debug, Serialize)]
pub(crate) struct RunEntry {
    name: String,
    dataset: String,
    model: String,
    steps: u64,
    loss: Option<f64>,
    state: String,
}

/// A run that is looked at.
#[derive(Debug, Serialize)]
pub(crate) struct RunDetails {
    #[serde(flatten)]
    entry: RunEntry,
    /// Step and mean loss of stretches of steps, from the first to the last.
    losses: Vec<(u64, f64)>,
    /// Sample grids, the newest first.
    pictures: Vec<RunPicture>,
}

/// A picture in a run's folder.
#[derive(Debug, Serialize)]
pub(crate) struct RunPicture {
    name: String,
    /// When it was written, in seconds since 1970: whoever has seen it knows by this whether it is another.
    modified: u64,
    #[serde(skip)]
    path: PathBuf,
}

/// The runs in a folder.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn list(folder: &Path) -> Result<Vec<RunEntry>, Refusal> {
    // One broken run does not hide the others.
    let read = |path: PathBuf| RunSummary::read(&path).ok().map(|run| entry(&path, &run));
    Ok(find_runs(folder)
        .map_err(unreadable)?
        .into_iter()
        .filter_map(read)
        .collect())
}

/// The run of this name.
///
/// # Errors
/// If there is none, or it cannot be read.
pub(crate) fn details(folder: &Path, name: &str) -> Result<RunDetails, Refusal> {
    let path = find(folder, name)?;
    let run = RunSummary::read(&path).map_err(unreadable)?;
    let losses = read_metric(&path, "loss").map_err(unreadable)?;
    let stretch = losses.len().div_ceil(POINTS).max(1);
    let mean = |points: &[(u64, f64)]| {
        let step = points.last().map_or(0, |(step, _)| *step);
        (
            step,
            points.iter().map(|(_, loss)| loss).sum::<f64>() / points.len() as f64,
        )
    };
    Ok(RunDetails {
        entry: entry(&path, &run),
        losses: losses.chunks(stretch).map(mean).collect(),
        pictures: pictures(&path),
    })
}

/// The bytes of a picture of a run.
///
/// # Errors
/// If there is none of that name.
pub(crate) fn picture(folder: &Path, run: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    let pictures = pictures(&find(folder, run)?);
    let picture = pictures.into_iter().find(|picture| picture.name == name);
    let bytes = picture.and_then(|picture| fs::read(picture.path).ok());
    bytes.ok_or_else(|| Refusal::not_found(format!("the run {run} has no picture `{name}`")))
}

fn find(folder: &Path, name: &str) -> Result<PathBuf, Refusal> {
    let runs = find_runs(folder).map_err(unreadable)?;
    let run = runs.into_iter().find(|path| name_of(path) == name);
    run.ok_or_else(|| {
        Refusal::not_found(format!(
            "there is no run `{name}` among those that this server shows"
        ))
    })
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What went wrong on this machine's disk is not said with its paths.
fn unreadable(error: langevin::Error) -> Refusal {
    tracing::warn!("{error}");
    Refusal::internal("the runs cannot be read: the server's log says why")
}

fn entry(path: &Path, run: &RunSummary) -> RunEntry {
    RunEntry {
        name: name_of(path),
        dataset: run.dataset(),
        model: run.config.model.short_name(),
        steps: run.steps,
        loss: run.loss,
        state: run.state.to_string(),
    }
}

/// The pictures at a run's root and among its samples, the newest first.
fn pictures(run: &Path) -> Vec<RunPicture> {
    let in_folder = |folder: PathBuf, prefix: &'static str| {
        // A link may lead to anybody's pictures.
        let is_own = prefix.is_empty() || folder.symlink_metadata().is_ok_and(|own| own.is_dir());
        let entries = is_own
            .then(|| fs::read_dir(folder))
            .into_iter()
            .flatten()
            .flatten()
            .flatten();
        entries.filter_map(move |entry| {
            let path = entry.path();
            let file = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let modified = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let is_png = path.extension().is_some_and(|extension| extension == "png");
            is_png.then(|| RunPicture {
                name: format!("{prefix}{}", name_of(&path)),
                modified,
                path,
            })
        })
    };
    let mut pictures: Vec<RunPicture> = in_folder(run.to_path_buf(), "")
        .chain(in_folder(run.join("samples"), "samples-"))
        // The page draws the curve itself.
        .filter(|picture| picture.name != "loss.png")
        .collect();
    pictures.sort_by(|a, b| (b.modified, &b.name).cmp(&(a.modified, &a.name)));
    pictures.truncate(PICTURES);
    pictures
}
