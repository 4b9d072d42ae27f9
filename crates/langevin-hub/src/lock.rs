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
    /// The locked file; `None` where nothing is locked.
    file: Option<File>,
}

impl Lock {
    /// Waits until nobody else holds the lock. Where there can be none, because the file system has no locks or the file belongs to
    /// somebody else, nobody is waited for: a file is checked before it takes its place in any case.
    ///
    /// # Errors
    /// [`Error::Stopped`] if `stop` says so while it is waited for.
    pub(crate) fn acquire(path: &Path, progress: &dyn Progress, stop: &dyn Fn() -> bool) -> Result<Self> {
        let mut tries = 0;
        loop {
            if stop() {
                return Err(Error::Stopped);
            }
            match Self::attempt(path) {
                Attempt::Held(lock) => return Ok(lock),
                // Whoever held it removed the file.
                Attempt::Gone => continue,
                Attempt::OfAnother => {}
            }
            tries += 1;
            if tries == TELL_AFTER {
                progress.note("waiting for another program that is downloading the same file");
            }
            std::thread::sleep(EVERY);
        }
    }

    /// The lock, unless somebody else holds it.
    pub(crate) fn try_acquire(path: &Path) -> Option<Self> {
        loop {
            match Self::attempt(path) {
                Attempt::Held(lock) => return Some(lock),
                Attempt::Gone => continue,
                Attempt::OfAnother => return None,
            }
        }
    }

    /// Whether nobody else can hold it.
    pub(crate) fn is_sure(&self) -> bool {
        self.file.is_some()
    }

    fn attempt(path: &Path) -> Attempt {
        if let Some(folder) = path.parent() {
            // Whoever removes a repository removes its locks. Without the folder there is no lock, which is said below.
            let _ = std::fs::create_dir_all(folder);
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        // A cache may be shared by a group; Python's client makes them so.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o664);
        let Ok(file) = options.open(path) else {
            return Attempt::Held(Self { file: None });
        };
        match file.try_lock() {
            // The lock must be on the file that others will find.
            Ok(()) if is_at(&file, path) => Attempt::Held(Self { file: Some(file) }),
            Ok(()) => Attempt::Gone,
            Err(TryLockError::WouldBlock) => Attempt::OfAnother,
            Err(TryLockError::Error(_)) => Attempt::Held(Self { file: None }),
        }
    }
}

enum Attempt {
    Held(Lock),
    Gone,
    OfAnother,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn a_lock_is_waited_for_until_somebody_says_stop() {
        let folder = tempfile::tempdir().unwrap();
        // The folder is made where somebody removed it.
        let path = folder.path().join("locks/a.lock");
        let held = Lock::acquire(&path, &Silent, &|| false).unwrap();
        assert!(held.is_sure() && Lock::try_acquire(&path).is_none());
        let tries = std::cell::Cell::new(0);
        let stop = || tries.replace(tries.get() + 1) > 1;
        assert!(matches!(
            Lock::acquire(&path, &Silent, &stop),
            Err(Error::Stopped)
        ));
        drop(held);
        assert!(Lock::try_acquire(&path).is_some());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o604, 0o604, "{mode:o}");
        }
    }

    #[test]
    fn where_there_can_be_no_lock_nobody_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in its place cannot be opened.
        let path = folder.path().join("a.lock");
        std::fs::create_dir(&path).unwrap();
        assert!(!Lock::acquire(&path, &Silent, &|| false).unwrap().is_sure());
    }
}
