//! The IP-Adapters that requests may name: those of a folder that the server was started with, by one plain name each.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use langevin::{
    Error, Pipeline, Result,
    device::Device,
    models::{
        IpAdapterConfig, IpAdapterModel,
        ip_adapter::{encoder_of, has_ending},
    },
};

/// How many stay loaded. What sees pictures for them is the larger part, and they have it in common.
const KEPT: usize = 2;

/// The IP-Adapters of a folder: its files by their names without their endings, each with the image encoder beside it. One is loaded when a
/// request first names it, and those that were named last stay.
pub struct IpAdapters {
    all: BTreeMap<String, Entry>,
    /// The last that was named comes last.
    loaded: Mutex<Vec<(String, IpAdapterModel)>>,
    device: Device,
    passed_over: Vec<String>,
}

struct Entry {
    file: PathBuf,
    config: IpAdapterConfig,
    encoder: PathBuf,
}

impl IpAdapters {
    /// Those of a folder, of whose weights nothing is read yet.
    ///
    /// # Errors
    /// If the folder cannot be read, or two of them would have one name.
    pub fn of(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let mut adapters = Self {
            all: BTreeMap::new(),
            loaded: Mutex::new(Vec::new()),
            device: device.clone(),
            passed_over: Vec::new(),
        };
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        for entry in entries {
            let file = entry.map_err(|e| Error::io("read", folder, e))?.path();
            let name = file.file_stem().and_then(|name| name.to_str());
            let Some(name) =
                name.filter(|name| file.is_file() && has_ending(&file) && !name.starts_with('.'))
            else {
                continue;
            };
            let found =
                IpAdapterConfig::at(&file).and_then(|config| Ok((encoder_of(&file, &config)?, config)));
            match found {
                Ok((encoder, config)) => {
                    let entry = Entry {
                        file: file.clone(),
                        config,
                        encoder,
                    };
                    if let Some(other) = adapters.all.insert(name.to_string(), entry) {
                        let message =
                            format!("would be called `{name}` as another one there is: rename one of them");
                        return Err(Error::file(other.file, message));
                    }
                }
                Err(error) => adapters.passed_over.push(error.to_string()),
            }
        }
        Ok(adapters)
    }

    /// What in the folder is no IP-Adapter, and why.
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
    pub(crate) fn for_pipeline(&self, pipeline: &Pipeline) -> Vec<&str> {
        let model = pipeline.model.config();
        let fits = |entry: &Entry| entry.config.check_fits(&model).is_ok();
        let fitting = self.all.iter().filter(|(_, entry)| fits(entry));
        fitting.map(|(name, _)| name.as_str()).collect()
    }

    /// The adapter of a name, which is loaded where it is not there.
    ///
    /// # Errors
    /// If there is none of this name, or its weights are broken.
    pub(crate) fn get(&self, name: &str) -> Result<IpAdapterModel> {
        let Some(entry) = self.all.get(name) else {
            return Err(unknown(name));
        };
        // Held while it is loaded, so that it is once.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match loaded.iter().position(|(other, _)| other == name) {
            Some(place) => loaded.remove(place).1,
            None => {
                let same_encoder = |(other, _): &&(String, IpAdapterModel)| {
                    self.all[other.as_str()].encoder == entry.encoder
                };
                let beside = loaded
                    .iter()
                    .find(same_encoder)
                    .map(|(_, model)| model.encoder.clone());
                let excess = (loaded.len() + 1).saturating_sub(KEPT);
                loaded.drain(..excess);
                match beside {
                    Some(encoder) => IpAdapterModel::with_encoder(&entry.file, encoder, &self.device)?,
                    None => IpAdapterModel::open(&entry.file, Some(&entry.encoder), &self.device)?,
                }
            }
        };
        loaded.push((name.to_string(), found.clone()));
        Ok(found)
    }
}

impl fmt::Debug for IpAdapters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpAdapters")
            .field("all", &self.all.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The error where a request names what is not there.
pub(crate) fn unknown(name: &str) -> Error {
    Error::option(
        &["ip_adapter"],
        format!(
            "there is no IP-Adapter `{name}` on this server; GET /api/models lists each model's `ip_adapters`"
        ),
    )
}
