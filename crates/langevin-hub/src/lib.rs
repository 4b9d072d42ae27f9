//! The Hugging Face Hub for programs that wait: models and data sets into the standard cache, and pipelines out of a folder.
//!
//! It knows no tensors. What is pulled lies in the cache that Python's `huggingface_hub` uses, and is checked against the hash that the
//! Hub names before it takes its place there.
//!
//! ```no_run
//! use langevin_hub::{Hub, ModelFiles, Settings, Silent};
//!
//! let hub = Hub::new(Settings::from_env()?)?;
//! let folder = hub.pull_model(&"google/ddpm-cat-256".parse()?, &ModelFiles::default(), &Silent)?;
//! assert!(folder.join("model_index.json").is_file());
//! # Ok::<(), langevin_hub::Error>(())
//! ```

mod address;
mod cache;
mod download;
mod error;
mod failure;
mod hash;
mod headers;
mod http;
mod limit;
mod lock;
mod model;
mod name;
mod progress;
mod push;
mod refused;
mod settings;
mod shelf;
mod snapshot;
mod tree;
mod weights;

pub use error::{Error, Result};
pub use hash::Hash;
pub use model::{ModelFiles, ModelPart};
pub use name::{CONVERTED, MAIN, RepoId, RepoKind, RepoName, of_cached};
pub use progress::{Progress, Silent};
pub use push::{Push, Pushed};
pub use settings::{Settings, TokenSource};
pub use shelf::{CachedRepo, CachedRevision, Removed};
pub use snapshot::{RepoFile, Snapshot};

/// The Rust of `docs/hub.md`, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/hub.md")]
pub struct HubDocs;

/// A Hub, and this machine's cache of it.
pub struct Hub {
    settings: Settings,
    http: http::Http,
}

impl Hub {
    /// A Hub by its settings. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`Error::Setting`] if the certificates that the settings name cannot be read.
    pub fn new(settings: Settings) -> Result<Self> {
        let http = http::Http::new(&settings)?;
        Ok(Self { settings, http })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of what its API says of a repository.
    fn api(&self, repo: &RepoId) -> String {
        format!(
            "{}/api/{}/{}",
            self.settings.endpoint,
            repo.kind.plural(),
            repo.id
        )
    }
}
