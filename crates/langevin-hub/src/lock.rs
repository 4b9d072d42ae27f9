//! Locks on files, the same that Python's client takes, so that two programs do not download the same bytes at once.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use crate::{Error, Progress, Result};

/// How often a lock that another holds is tried.
const EVERY: Duration = Duration::from_millis(100);
/// After how many tries its user is told what is waited for.
const TELL_AFTER: u32 = 20;

/// A lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else holds the lock. Where the file system has no locks, nobody is waited for: a file is checked before it
    /// takes its place in any case.
    pub fn acquire(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let mut tries = 0;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .map_err(|e| Error::io("create", path, e))?;
            match file.try_lock() {
                // Whoever held it may have removed the file: the lock must be on the one that others will find.
                Ok(()) if is_at(&file, path) => return Ok(Self { _file: file }),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(Self { _file: file }),
            }
            tries += 1;
            if tries == TELL_AFTER {
                progress.note("waiting for another program that is downloading the same file");
            }
            std::thread::sleep(EVERY);
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}
