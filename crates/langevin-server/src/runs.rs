//! Training runs as the page shows them. Names that come from callers are compared with those that there are, and never become paths.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::body::Bytes;
use langevin::training::{
    LossCurve,
    runs::{RunSummary, find_runs},
    samples::SAMPLES_TRAINED,
};
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
    /// Which weights drew it: `average`, the moving average of those that are trained, or `trained`, themselves.
    of: &'static str,
    #[serde(skip)]
    path: PathBuf,
}

/// An answer is given again for so long: many who look cost no more than one.
const FRESH: Duration = Duration::from_secs(1);
/// Runs that are held with their curves, the last that were looked at.
const FOLLOWED: usize = 8;

/// The runs of a folder, and what was read of them.
#[derive(Debug)]
pub(crate) struct Runs {
    folder: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    list: Option<(Instant, Bytes)>,
    /// The last that was looked at comes last.
    followed: Vec<Followed>,
}

/// A run that somebody looks at.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    curve: LossCurve,
    answer: Option<(Instant, Bytes)>,
}

/// An answer, if it is not too old.
fn fresh(answer: &Option<(Instant, Bytes)>) -> Option<Bytes> {
    let (when, bytes) = answer.as_ref()?;
    (when.elapsed() < FRESH).then(|| bytes.clone())
}

impl Runs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            read: Mutex::default(),
        }
    }

    /// The runs, as JSON.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn list(&self) -> Result<Bytes, Refusal> {
        let mut read = self.read();
        if let Some(list) = fresh(&read.list) {
            return Ok(list);
        }
        // One broken run does not hide the others.
        let entry = |path: PathBuf| RunSummary::read(&path).ok().map(|run| entry(&path, &run));
        let runs = find_runs(&self.folder).map_err(unreadable)?;
        let list = as_json(&runs.into_iter().filter_map(entry).collect::<Vec<_>>())?;
        read.list = Some((Instant::now(), list.clone()));
        Ok(list)
    }

    /// The run of this name, as JSON: of its numbers what is new is read, whoever looked before.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub(crate) fn details(&self, name: &str) -> Result<Bytes, Refusal> {
        let path = find(&self.folder, name)?;
        let mut read = self.read();
        let place = read.followed.iter().position(|run| run.path == path);
        let mut followed = match place {
            Some(place) => read.followed.remove(place),
            None => Followed {
                curve: LossCurve::new(&path),
                answer: None,
                path: path.clone(),
            },
        };
        let answer = match fresh(&followed.answer) {
            Some(answer) => answer,
            None => followed.look()?,
        };
        if read.followed.len() == FOLLOWED {
            read.followed.remove(0);
        }
        read.followed.push(followed);
        Ok(answer)
    }

    /// The bytes of a picture of a run.
    ///
    /// # Errors
    /// If there is none of that name.
    pub(crate) fn picture(&self, run: &str, name: &str) -> Result<Vec<u8>, Refusal> {
        let pictures = pictures(&find(&self.folder, run)?, false);
        let picture = pictures.into_iter().find(|picture| picture.name == name);
        let bytes = picture.and_then(|picture| fs::read(picture.path).ok());
        bytes.ok_or_else(|| Refusal::not_found(format!("the run {run} has no picture `{name}`")))
    }

    /// A panic while the lock was held left answers that are old, or a curve that is gone and read again.
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    /// Looks at the run again.
    fn look(&mut self) -> Result<Bytes, Refusal> {
        let run = RunSummary::read(&self.path).map_err(unreadable)?;
        self.curve.update().map_err(unreadable)?;
        let details = RunDetails {
            entry: entry(&self.path, &run),
            losses: self.curve.points(POINTS),
            pictures: pictures(&self.path, run.config.use_ema),
        };
        let answer = as_json(&details)?;
        self.answer = Some((Instant::now(), answer.clone()));
        Ok(answer)
    }
}

fn as_json(value: &impl Serialize) -> Result<Bytes, Refusal> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from)
        .map_err(|error| Refusal::internal(format!("the runs make no JSON: {error}")))
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
        model: run.config.model_name(),
        steps: run.steps,
        loss: run.loss,
        state: run.state.to_string(),
    }
}

/// Which weights drew the picture of this name, in a run with or without an average of them.
fn drawn_by(name: &str, has_average: bool) -> &'static str {
    let trained = SAMPLES_TRAINED.trim_end_matches(".png");
    if has_average && !name.starts_with(trained) {
        "average"
    } else {
        "trained"
    }
}

/// The pictures at a run's root and among its samples, the newest first.
fn pictures(run: &Path, has_average: bool) -> Vec<RunPicture> {
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
            is_png.then(|| {
                let name = name_of(&path);
                RunPicture {
                    of: drawn_by(&name, has_average),
                    name: format!("{prefix}{name}"),
                    modified,
                    path,
                }
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
