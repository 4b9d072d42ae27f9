//! The ControlNets that requests may name: those of a folder that the server was started with, by one plain name each.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use langevin::{
    Error, Pipeline, Result,
    device::Device,
    models::{AnyControl, AnyControlConfig},
};

/// How many stay loaded: as many as one request usually names, since each takes a third of its base's memory.
const KEPT: usize = 2;
/// The endings of single files.
const ENDINGS: [&str; 5] = ["safetensors", "pth", "pt", "ckpt", "bin"];

/// The ControlNets of a folder: its subfolders, and its single files by their names without their endings. A network is loaded when a
/// request first names it, and those that were named last stay.
pub struct Controls {
    all: BTreeMap<String, Entry>,
    /// The last that was named comes last.
    loaded: Mutex<Vec<(String, AnyControl)>>,
    device: Device,
    passed_over: Vec<String>,
}

struct Entry {
    path: PathBuf,
    config: AnyControlConfig,
}

impl Controls {
    /// Those of a folder, of which only configurations are read.
    ///
    /// # Errors
    /// If the folder cannot be read, or two of them would have one name.
    pub fn of(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let mut controls = Self {
            all: BTreeMap::new(),
            loaded: Mutex::new(Vec::new()),
            device: device.clone(),
            passed_over: Vec::new(),
        };
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
            let Some(name) = name_of(&path) else {
                continue;
            };
            match AnyControlConfig::at(&path) {
                Ok(config) => {
                    let entry = Entry { path, config };
                    if let Some(other) = controls.all.insert(name.clone(), entry) {
                        let message =
                            format!("would be called `{name}` as another one there is: rename one of them");
                        return Err(Error::file(other.path, message));
                    }
                }
                Err(error) => controls.passed_over.push(error.to_string()),
            }
        }
        Ok(controls)
    }

    /// What in the folder is no ControlNet, and why.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The names of those that are made for a pipeline.
    pub(crate) fn for_pipeline<'a>(&'a self, pipeline: &'a Pipeline) -> impl Iterator<Item = &'a str> {
        let fits = |entry: &Entry| pipeline.check_control(&entry.config).is_ok();
        let fitting = self.all.iter().filter(move |(_, entry)| fits(entry));
        fitting.map(|(name, _)| name.as_str())
    }

    /// The network of a name, which is loaded where it is not there.
    ///
    /// # Errors
    /// If there is none of this name, or its weights are broken.
    pub(crate) fn get(&self, name: &str) -> Result<AnyControl> {
        let Some(entry) = self.all.get(name) else {
            return Err(unknown(name));
        };
        // Held while it is loaded, so that it is once.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match loaded.iter().position(|(other, _)| other == name) {
            Some(place) => loaded.remove(place).1,
            None => {
                let excess = (loaded.len() + 1).saturating_sub(KEPT);
                loaded.drain(..excess);
                AnyControl::open(&entry.path, &self.device)?
            }
        };
        loaded.push((name.to_string(), found.clone()));
        Ok(found)
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controls")
            .field("all", &self.all.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The error where a request names what is not there.
pub(crate) fn unknown(name: &str) -> Error {
    Error::option(
        &["control"],
        format!(
            "there is no ControlNet `{name}` on this server; GET /api/models lists each model's `controls`"
        ),
    )
}

/// What requests call an entry of the folder; `None` for what is no network by its looks.
fn name_of(path: &Path) -> Option<String> {
    let is_file = path.is_file();
    let has_ending = |path: &Path| {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        ENDINGS.contains(&ending.as_str()).then_some(())
    };
    if is_file {
        has_ending(path)?;
    } else if !path.join("config.json").is_file() {
        return None;
    }
    let name = if is_file {
        path.file_stem()
    } else {
        path.file_name()
    };
    let name = name?.to_str()?;
    (!name.starts_with('.')).then(|| name.to_string())
}
