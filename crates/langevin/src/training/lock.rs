//! Who trains in a run's folder: a file there is locked while the run goes on, so that others see whether it does, and no second run
//! writes into it.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{Error, Result};

/// The locked file.
pub(super) const NAME: &str = ".running";
/// Whoever looks whether a run goes on holds the lock for an instant, so a run tries it so often,
const TRIES: usize = 10;
/// with so much time between.
const PAUSE: Duration = Duration::from_millis(50);

/// Says that a run goes on in a folder, until it is dropped. A process that is killed lets go of it too.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    /// Closed when the value is dropped, which unlocks it.
    _file: File,
}

impl RunLock {
    /// Takes the folder for a run. On file systems without locks nothing is locked, and runs are told apart by when they last wrote.
    ///
    /// # Errors
    /// If another run goes on in it, or nothing can be written there.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        for attempt in 0.. {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if attempt < TRIES => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::file(
                        folder,
                        "another run is going on in this folder: wait for it, stop it, or name another folder",
                    ));
                }
                Ok(()) | Err(TryLockError::Error(_)) => break,
            }
        }
        Ok(Self { path, _file: file })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Where it stays, it is locked by nobody, which says the same.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a run goes on in a folder; `None` where the file system cannot tell.
pub(super) fn is_running(folder: &Path) -> Option<bool> {
    let Ok(file) = File::open(folder.join(NAME)) else {
        return Some(false);
    };
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_run_s_as_long_as_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_running(folder.path()), Some(false));
        let lock = RunLock::acquire(folder.path()).unwrap();
        assert_eq!(is_running(folder.path()), Some(true));
        let message = RunLock::acquire(folder.path()).unwrap_err().to_string();
        assert!(message.contains("another run is going on"), "{message}");
        assert_eq!(is_running(folder.path()), Some(true));
        drop(lock);
        assert_eq!(is_running(folder.path()), Some(false));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // What a killed process leaves is in nobody's way.
        fs::write(folder.path().join(NAME), "").unwrap();
        assert_eq!(is_running(folder.path()), Some(false));
        RunLock::acquire(folder.path()).unwrap();
    }
}
