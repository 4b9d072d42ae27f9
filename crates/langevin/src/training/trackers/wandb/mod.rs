//! A run folder of Weights & Biases, kept offline: what the wandb package writes with `WANDB_MODE=offline`, and its
//! `wandb sync` uploads.

mod framing;
mod messages;
mod settings;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::Write,
    path::{Path, PathBuf},
};

use prost::Message;
use serde_json::{Value as Json, json};

pub use settings::WandbSettings;

use self::messages::{
    Content, FilesItem, FilesRecord, HeaderRecord, HistoryRecord, HistoryStep, Items, Record, RecordInfo,
    RunExitRecord, RunRecord, VersionInfo, items,
};
use super::{Tracker, date::Moment, scalars};
use crate::{
    Error, Result,
    data::{Picture, sound::Sound},
    files::{write_atomically, write_json},
    grid,
    training::{UpdateReport, command::arguments},
};

/// The oldest wandb that knows this kind of file.
const MIN_CONSUMER: &str = "0.9.0";
/// What the folders of runs begin with.
const RUN: &str = "offline-run-";
/// `wandb_internal.FilesItem.FileType`.
const OWN_FILE: i32 = 1;
const MEDIA_FILE: i32 = 2;

/// One offline run: `wandb/offline-run-DATE-ID/run-ID.wandb`, and its files beside it.
#[derive(Debug)]
pub struct Wandb {
    folder: PathBuf,
    /// It goes on with the run that was written before it.
    resumed: bool,
    log: Log,
    started: Moment,
    /// The values of the step that is not over yet.
    row: Option<(usize, BTreeMap<String, Json>)>,
    /// The last value of everything that was logged.
    summary: BTreeMap<String, Json>,
}

/// The file of records.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    position: u64,
    records: i64,
    id: String,
}

impl Wandb {
    /// Begins a run of `hyper_parameters`, a JSON object, in the settings' folder or else in `run`, whose name it gets. One that goes on
    /// at a step has the id of the run that was last written there, if there is one, so that `wandb sync --append` makes one of both.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn create(
        settings: &WandbSettings,
        run: &Path,
        hyper_parameters: &Json,
        goes_on_at: Option<usize>,
    ) -> Result<Self> {
        let started = Moment::now();
        let runs = settings.dir.as_deref().unwrap_or(run).join("wandb");
        let place = |id: &str| runs.join(format!("{RUN}{}-{id}", started.compact()));
        let before = goes_on_at
            .and_then(|_| last_id(&runs))
            .filter(|id| !place(id).exists());
        let resumed = before.is_some();
        let id = before.unwrap_or_else(random_id);
        let folder = place(&id);
        fs::create_dir_all(folder.join("files")).map_err(|e| Error::io("create", &folder, e))?;
        let log = Log::create(folder.join(format!("run-{id}.wandb")), id)?;
        let mut wandb = Self {
            folder,
            resumed,
            log,
            started,
            row: None,
            summary: BTreeMap::new(),
        };
        let empty = serde_json::Map::new();
        let config = hyper_parameters.as_object().unwrap_or(&empty);
        let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy();
        wandb.log.write(Content::Run(RunRecord {
            run_id: wandb.log.id.clone(),
            entity: settings.entity.clone(),
            project: settings.project.clone(),
            config: Some(Items {
                update: items(config),
            }),
            display_name: settings.name.clone().unwrap_or_else(|| name.into_owned()),
            starting_step: goes_on_at.filter(|_| resumed).unwrap_or(0) as i64,
            start_time: Some(started.into()),
            resumed,
        }))?;
        wandb.write_config(config)?;
        wandb.write_metadata()?;
        Ok(wandb)
    }

    /// How `wandb` is asked to upload it.
    pub fn sync_line(&self) -> String {
        let append = if self.resumed { "--append " } else { "" };
        format!("wandb sync {append}{}", self.folder.display())
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `config.yaml`: a key and its value each; JSON is YAML.
    fn write_config(&mut self, config: &serde_json::Map<String, Json>) -> Result<()> {
        let values = config
            .iter()
            .map(|(key, value)| format!("{key}:\n  value: {value}\n"));
        let text: String = std::iter::once("wandb_version: 1\n".to_string())
            .chain(values)
            .collect();
        let path = self.folder.join("files/config.yaml");
        write_atomically(path, |w| w.write_all(text.as_bytes()))?;
        self.log.tell_of_file("config.yaml", OWN_FILE)
    }

    /// `wandb-metadata.json`: what was run where.
    fn write_metadata(&mut self) -> Result<()> {
        const NAME: &str = "wandb-metadata.json";
        let mut args = arguments().into_iter();
        let metadata = json!({
            "os": std::env::consts::OS,
            "program": args.next(),
            "args": args.collect::<Vec<_>>(),
            "startedAt": self.started.iso(),
            "langevin": env!("CARGO_PKG_VERSION"),
        });
        write_json(self.folder.join("files").join(NAME), &metadata)?;
        self.log.tell_of_file(NAME, OWN_FILE)
    }

    /// Adds values to the history at a step, and to the summary. A step has one row there, so it is written when the next begins.
    fn log(&mut self, step: usize, values: impl IntoIterator<Item = (String, Json)>) -> Result<()> {
        if self.row.as_ref().is_some_and(|(waiting, _)| *waiting != step) {
            self.flush()?;
        }
        let now = Moment::now().as_f64();
        let (_, row) = self.row.get_or_insert_with(|| (step, BTreeMap::new()));
        row.extend(values);
        row.insert("_step".into(), step.into());
        row.insert("_timestamp".into(), now.into());
        row.insert("_runtime".into(), (now - self.started.as_f64()).into());
        Ok(())
    }

    /// Writes the row that waits.
    fn flush(&mut self) -> Result<()> {
        let Some((step, row)) = self.row.take() else {
            return Ok(());
        };
        let item = items(&row);
        self.log.write(Content::Summary(Items { update: item.clone() }))?;
        self.log.write(Content::History(HistoryRecord {
            item,
            step: Some(HistoryStep { num: step as i64 }),
        }))?;
        self.summary.extend(row);
        Ok(())
    }
}

impl Tracker for Wandb {
    fn update(&mut self, report: &UpdateReport) -> Result<()> {
        let scalars = scalars(report).into_iter();
        let values = scalars.map(|(name, value)| (name.to_string(), value.into()));
        let epoch = std::iter::once(("epoch".to_string(), report.epoch.into()));
        self.log(report.step, values.chain(epoch))
    }

    fn picture(&mut self, name: &str, step: usize, picture: &Picture) -> Result<()> {
        let bytes = grid::png_bytes(picture)?;
        let digest = sha256(&bytes);
        let path = format!("media/images/{name}_{step}_{}.png", &digest[..20]);
        write_atomically(self.folder.join("files").join(&path), |w| w.write_all(&bytes))?;
        self.log.tell_of_file(&path, MEDIA_FILE)?;
        let image = json!({
            "_type": "image-file",
            "path": path,
            "format": "png",
            "width": picture.width(),
            "height": picture.height(),
            "sha256": digest,
            "size": bytes.len(),
        });
        self.log(step, [(name.to_string(), image)])
    }

    fn sound(&mut self, name: &str, step: usize, sound: &Sound) -> Result<()> {
        let bytes = sound.wav();
        let digest = sha256(&bytes);
        let path = format!("media/audio/{name}_{step}_{}.wav", &digest[..20]);
        write_atomically(self.folder.join("files").join(&path), |w| w.write_all(&bytes))?;
        self.log.tell_of_file(&path, MEDIA_FILE)?;
        let audio = json!({ "_type": "audio-file", "path": path, "sha256": digest, "size": bytes.len() });
        self.log(step, [(name.to_string(), audio)])
    }

    fn finish(&mut self, well: bool) -> Result<()> {
        const NAME: &str = "wandb-summary.json";
        self.flush()?;
        write_json(self.folder.join("files").join(NAME), &self.summary)?;
        self.log.tell_of_file(NAME, OWN_FILE)?;
        let seconds = Moment::now().seconds.saturating_sub(self.started.seconds);
        self.log.write(Content::Exit(RunExitRecord {
            exit_code: i32::from(!well),
            runtime: i32::try_from(seconds).unwrap_or(i32::MAX),
        }))?;
        self.log.sync()
    }
}

impl Log {
    /// Begins the file with its header.
    fn create(path: PathBuf, id: String) -> Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(|e| Error::io("create", &path, e))?;
        let mut log = Self {
            path,
            file,
            position: 0,
            records: 0,
            id,
        };
        log.append(&framing::HEADER)?;
        log.write(Content::Header(HeaderRecord {
            version_info: Some(VersionInfo {
                producer: "langevin".into(),
                min_consumer: MIN_CONSUMER.into(),
            }),
        }))?;
        Ok(log)
    }

    /// Adds a record in one write, so that a run killed in the middle leaves whole records.
    fn write(&mut self, content: Content) -> Result<()> {
        self.records += 1;
        let record = Record {
            num: self.records,
            content: Some(content),
            info: Some(RecordInfo {
                stream_id: self.id.clone(),
            }),
        };
        self.append(&framing::record(self.position, &record.encode_to_vec()))
    }

    /// Says that a file under `files` is there to be uploaded.
    fn tell_of_file(&mut self, path: &str, file_type: i32) -> Result<()> {
        let file = FilesItem {
            path: path.into(),
            file_type,
        };
        self.write(Content::Files(FilesRecord { files: vec![file] }))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|e| Error::io("write", &self.path, e))
    }
}

/// The id of the run that was written last into a folder: names begin with the date.
fn last_id(runs: &Path) -> Option<String> {
    let names = fs::read_dir(runs)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let last = names.filter(|name| name.starts_with(RUN)).max()?;
    let (_, id) = last.rsplit_once('-')?;
    let is_id = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then(|| id.to_string())
}

/// Eight letters and digits, as the package's runs have.
fn random_id() -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // A new state has keys from the system's randomness.
    let mut random = RandomState::new().hash_one(std::process::id());
    let mut id = String::new();
    for _ in 0..8 {
        id.push(char::from(LETTERS[(random % 36) as usize]));
        random /= 36;
    }
    id
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
