//! The hash of a model's file, which takes a while and is wanted at the end.

use std::{
    path::Path,
    thread::{self, JoinHandle},
};

use langevin::weights::FileHashes;

/// A hash that is being computed.
pub(super) struct Hash(JoinHandle<Option<String>>);

impl Hash {
    /// Of a single file; `None` of a folder.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let path = path.is_file().then(|| path.to_path_buf())?;
        Some(Self(thread::spawn(move || {
            Some(FileHashes::of(path).ok()?.sha256)
        })))
    }

    /// Its digits, once they are there; `None` where the file could not be read.
    pub(super) fn digits(self) -> Option<String> {
        self.0.join().ok().flatten()
    }
}
