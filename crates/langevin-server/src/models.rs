//! The models that are served, by the names that callers know them by: loaded when somebody asks for them, and let go again, the one that
//! was asked for longest ago first, where others need the memory.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::StatusCode;
use langevin::{
    Error, Lora, Result,
    data::free_memory,
    device::Device,
    files::is_plain_name,
    pipelines::{LoadOptions, loaded_bytes},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{model::Model, options::ServerOptions, refusal::Refusal, shelf::Keeps};

/// Endings of single files that hold a pipeline.
const FILES: [&str; 3] = ["safetensors", "gguf", "ckpt"];
/// What shows that a folder is a pipeline.
const INDEX: &str = "model_index.json";

/// The models of a server. The first is drawn from where a request names none.
#[derive(Debug, Default)]
pub struct Models {
    all: Vec<Entry>,
    /// Bytes that may be in memory at once; `None` for what is free.
    most: Option<u64>,
    /// What else counts among these.
    beside: Vec<Arc<dyn Keeps>>,
    state: Mutex<State>,
    /// Told whenever somebody is done with a model.
    freed: Arc<Notify>,
    /// Whoever wants a model that is not there waits in turn.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether the first of them waits for memory: then nobody else begins, and what is under way comes to an end.
    is_short: AtomicBool,
}

/// A model, loaded or not.
#[derive(Debug)]
struct Entry {
    name: String,
    path: PathBuf,
    options: LoadOptions,
    device: Device,
    /// What its weights take.
    bytes: u64,
    /// What a caller may know of it, once it was loaded.
    description: OnceLock<Value>,
}

#[derive(Debug, Default)]
struct State {
    /// By numbers.
    loaded: Vec<Option<Loaded>>,
    clock: u64,
}

#[derive(Debug)]
struct Loaded {
    model: Arc<Model>,
    /// When it was asked for last.
    used: u64,
}

/// A model that stays in memory for as long as somebody has this.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    // Let go of before the others hear that it was.
    model: Arc<Model>,
    _notice: Notice,
}

/// Tells that something was let go of.
#[derive(Clone, Debug)]
struct Notice(Arc<Notify>);

impl Drop for Notice {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Deref for Lease {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

/// Says that somebody waits for memory, until it is dropped.
struct Short<'a>(&'a AtomicBool);

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Models {
    /// Lets models take so many bytes of memory together, in place of what is free.
    pub fn with_max_memory(self, bytes: u64) -> Self {
        Self {
            most: Some(bytes),
            ..self
        }
    }

    /// Counts these among what is in memory.
    pub(crate) fn beside(self, beside: Vec<Arc<dyn Keeps>>) -> Self {
        Self { beside, ..self }
    }

    /// Loads the pipeline of a folder or of a single file, to be known as `name`.
    ///
    /// # Errors
    /// If there is none, it cannot be sampled from, or another model has that name.
    pub fn load(
        &mut self,
        name: &str,
        path: impl AsRef<Path>,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<()> {
        self.add(name, path, options, device)?;
        let number = self.all.len() - 1;
        self.read(number).map(drop).inspect_err(|_| {
            self.all.pop();
        })
    }

    /// Takes the pipeline of a folder or of a single file, to be known as `name`; it is loaded once somebody asks for it.
    ///
    /// # Errors
    /// If there is none, as far as its configuration tells, or another model has that name.
    pub fn add(
        &mut self,
        name: &str,
        path: impl AsRef<Path>,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<()> {
        let path = path.as_ref();
        if !is_plain_name(name) || self.find(name).is_some() {
            return Err(Error::Config(format!(
                "every model needs a plain name of its own, and `{name}` is none: give it one, as in my-name={}",
                path.display()
            )));
        }
        self.all.push(Entry {
            name: name.to_string(),
            path: path.to_path_buf(),
            bytes: loaded_bytes(path, options)?,
            options: options.clone(),
            device: device.clone(),
            description: OnceLock::new(),
        });
        Ok(())
    }

    /// Whether a model of so many bytes fits beside those that are loaded, none of them let go.
    pub fn has_room(&self, path: impl AsRef<Path>, options: &LoadOptions) -> Result<bool> {
        Ok(self.fits(loaded_bytes(path, options)?, &self.state()))
    }

    /// The pipelines in a folder that is none itself, by the names of their folders and files, in order. Those that have no plain name are
    /// left out.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn in_folder(folder: impl AsRef<Path>) -> Result<Vec<(String, PathBuf)>> {
        let folder = folder.as_ref();
        let entries = std::fs::read_dir(folder).map_err(|error| Error::io("read", folder, error))?;
        let is_model = |path: &PathBuf| {
            let is_file = || {
                path.extension()
                    .is_some_and(|ending| FILES.iter().any(|file| ending == *file))
            };
            path.join(INDEX).is_file() || (path.is_file() && is_file())
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(is_model)
            .collect();
        paths.sort();
        let mut models: Vec<(String, PathBuf)> = Vec::new();
        for path in paths {
            let whole = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let is_taken = models.iter().any(|(name, _)| *name == stem);
            let name = if path.is_dir() || is_taken { whole } else { stem };
            if is_plain_name(&name) {
                models.push((name, path));
            }
        }
        Ok(models)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of the model of this name; of the first, where none is named.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn number(&self, name: Option<&str>) -> Result<usize, Refusal> {
        match name {
            None if self.is_empty() => {
                Err(Refusal::unprocessable("this server has no model").with_field("model"))
            }
            None => Ok(0),
            Some(name) => self.find(name).ok_or_else(|| self.unknown(name)),
        }
    }

    /// The names of all of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|model| model.name.as_str())
    }

    /// The LoRA that were put on the model of a name as it was loaded.
    pub(crate) fn merged(&self, name: &str) -> &[Lora] {
        self.find(name)
            .map_or(&[], |number| &self.all[number].options.loras)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|model| model.name == name)
    }

    fn unknown(&self, name: &str) -> Refusal {
        let names: Vec<&str> = self.all.iter().map(|model| model.name.as_str()).collect();
        let message = format!(
            "there is no model `{name}` on this server; there are {}",
            names.join(", ")
        );
        Refusal::unprocessable(message).with_field("model")
    }

    /// What a caller may know of all of them.
    pub(crate) fn describe(&self, options: &ServerOptions) -> Vec<Value> {
        (0..self.len())
            .map(|number| self.describe_one(number, options))
            .collect()
    }

    /// What a caller may know of one: all of it, once it was loaded, and before that its name.
    pub(crate) fn describe_one(&self, number: usize, options: &ServerOptions) -> Value {
        let entry = &self.all[number];
        let loaded = |state: &State| Some(self.lease_of(&state.loaded.get(number)?.as_ref()?.model));
        let model = loaded(&self.state());
        let of = |model: &Lease| {
            let description = model.describe(options);
            serde_json::to_value(description).unwrap_or_default()
        };
        let known = match &model {
            Some(model) => Some(entry.description.get_or_init(|| of(model))),
            None => entry.description.get(),
        };
        let mut description = known.cloned().unwrap_or_else(|| json!({ "name": entry.name }));
        description["loaded"] = model.is_some().into();
        description
    }

    /// A model, which is loaded where it is not: where memory is short, once those who draw with others are done.
    ///
    /// # Errors
    /// If it does not fit into memory by itself, or cannot be loaded.
    pub(crate) async fn lease(self: &Arc<Self>, number: usize) -> Result<Lease, Refusal> {
        if !self.is_short.load(Ordering::Relaxed)
            && let Some(lease) = self.there(number)
        {
            return Ok(lease);
        }
        let turn = self.turn.clone().lock_owned().await;
        let mut short = None;
        loop {
            if let Some(lease) = self.there(number) {
                return Ok(lease);
            }
            if self.make_room(number)? {
                break;
            }
            short.get_or_insert_with(|| {
                self.is_short.store(true, Ordering::Relaxed);
                Short(&self.is_short)
            });
            self.freed.notified().await;
        }
        drop(short);
        let models = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let lease = models.read(number);
            // The next one's turn comes once this one counts as loaded.
            drop(turn);
            lease
        });
        let name = &self.all[number].name;
        let failed = || {
            Refusal::internal(format!(
                "the model `{name}` cannot be loaded: the server's log says why"
            ))
        };
        read.await.map_err(|_| failed())?.map_err(|error| {
            tracing::warn!("{name}: {error}");
            failed()
        })
    }

    /// A model that is loaded.
    fn there(&self, number: usize) -> Option<Lease> {
        let mut state = self.state();
        state.clock += 1;
        let clock = state.clock;
        let loaded = state.loaded.get_mut(number)?.as_mut()?;
        loaded.used = clock;
        Some(self.lease_of(&loaded.model))
    }

    fn lease_of(&self, model: &Arc<Model>) -> Lease {
        Lease {
            model: model.clone(),
            _notice: Notice(self.freed.clone()),
        }
    }

    /// Lets go of models that nobody uses until another one fits; whether it does.
    ///
    /// # Errors
    /// If it never will.
    fn make_room(&self, number: usize) -> Result<bool, Refusal> {
        let Entry { bytes, name, .. } = &self.all[number];
        if let Some(most) = self.most.filter(|most| bytes > most) {
            let message = format!(
                "the model `{name}` takes {} of memory, and models may take {} on this server (--max-memory)",
                gibibytes(*bytes),
                gibibytes(most)
            );
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).with_field("model"));
        }
        let mut state = self.state();
        if self.let_go(*bytes, &mut state) {
            return Ok(true);
        }
        if state.loaded.iter().any(Option::is_some) {
            return Ok(false);
        }
        Err(no_room(*bytes, &format!("the model `{name}`")).with_field("model"))
    }

    /// Lets go of models that nobody uses, and of what is kept beside models, until so many bytes more fit; called `what` in messages.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn room_beside(&self, bytes: u64, what: &str) -> Result<(), Refusal> {
        match self.let_go(bytes, &mut self.state()) {
            true => Ok(()),
            false => Err(no_room(bytes, what)),
        }
    }

    /// Lets go of what nobody uses until so many bytes more fit; whether they do.
    fn let_go(&self, bytes: u64, state: &mut State) -> bool {
        loop {
            if self.fits(bytes, state) {
                return true;
            }
            let idle = |loaded: &Option<Loaded>| {
                loaded
                    .as_ref()
                    .filter(|one| Arc::strong_count(&one.model) == 1)
                    .map(|one| one.used)
            };
            let numbers = 0..state.loaded.len();
            let least = numbers
                .filter_map(|number| Some((idle(&state.loaded[number])?, number)))
                .min();
            let of_models = || {
                state
                    .loaded
                    .iter()
                    .flatten()
                    .map(|loaded| loaded.model.lent.let_go())
            };
            match least {
                Some((_, number)) => state.loaded[number] = None,
                // All of them, not the first alone.
                None if self
                    .beside
                    .iter()
                    .map(|kept| kept.let_go())
                    .chain(of_models())
                    .fold(false, |any, one| any | one) => {}
                None => return false,
            }
        }
    }

    /// Whether so many bytes fit beside the models that are loaded.
    fn fits(&self, bytes: u64, state: &State) -> bool {
        let loaded = state.loaded.iter().zip(&self.all);
        let used: u64 = loaded
            .filter_map(|(loaded, entry)| Some(loaded.as_ref()?.model.lent.bytes() + entry.bytes))
            .chain(self.beside.iter().map(|kept| kept.bytes()))
            .sum();
        match self.most {
            Some(most) => used.saturating_add(bytes) <= most,
            None => free_memory().is_none_or(|free| bytes <= free),
        }
    }

    /// Loads a model.
    fn read(&self, number: usize) -> Result<Lease> {
        let Entry {
            name,
            path,
            options,
            device,
            ..
        } = &self.all[number];
        let model = Arc::new(Model::load(name, path, options, device)?);
        let lease = self.lease_of(&model);
        let mut state = self.state();
        state.clock += 1;
        let used = state.clock;
        let places = state.loaded.len().max(number + 1);
        state.loaded.resize_with(places, || None);
        state.loaded[number] = Some(Loaded { model, used });
        Ok(lease)
    }

    /// A panic while the lock was held left nothing half done: every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer where there is no room for something.
fn no_room(bytes: u64, what: &str) -> Refusal {
    let message = format!("{what} takes {} of memory, which are not free", gibibytes(bytes));
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64)
}
