//! Files that appear whole or not at all: written beside their place, synced, renamed. And which paths stay in a folder.

mod inside;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

pub use self::inside::{Inside, is_plain_name, plain_path};
use crate::{Error, Result};

/// Writes a file through `write`: into a temporary file beside `path`, synced, then renamed over it.
///
/// # Errors
/// If anything fails, in which case whatever was at `path` before is still there, whole.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".langevin-")
            .tempfile_in(&folder)?;
        {
            let mut buffered = std::io::BufWriter::new(file.as_file_mut());
            write(&mut buffered)?;
            buffered.flush()?;
        }
        file.as_file().sync_all()?;
        set_default_permissions(file.as_file())?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    attempt().map_err(|e| Error::io("write", path, e))
}

/// Temporary files are private to their owner; a finished file should be as readable as any other.
#[cfg(unix)]
fn set_default_permissions(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_default_permissions(_file: &fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Makes what was put into a folder, or renamed in it, last through a power cut, as syncing a file does for its bytes.
///
/// # Errors
/// If the system cannot. Where folders cannot be synced at all, as on Windows, nothing is done.
pub fn sync_folder(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    if cfg!(unix) {
        let sync = || fs::File::open(folder)?.sync_all();
        sync().map_err(|e| Error::io("write", folder, e))?;
    }
    Ok(())
}

/// A commit of a repository of the Hugging Face Hub in this machine's cache of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRepository {
    /// `ORG/NAME`.
    pub id: String,
    /// The commit.
    pub commit: String,
}

impl CachedRepository {
    /// `NAME` alone.
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }

    /// What means the same on another machine: `ORG/NAME@COMMIT`.
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.id, self.commit)
    }
}

/// The repository that a path belongs to which lies in a cache of the Hub: `…/models--ORG--NAME/snapshots/COMMIT/…`.
pub fn cached_repository(path: impl AsRef<Path>) -> Option<CachedRepository> {
    let (repository, commit) = in_cache(path.as_ref())?;
    let (_, id) = repository.file_name()?.to_str()?.split_once("--")?;
    Some(CachedRepository {
        id: id.replacen("--", "/", 1),
        commit: commit.to_string(),
    })
}

/// The folder of a repository in a cache of the Hub, and the commit in it, that a path belongs to.
fn in_cache(path: &Path) -> Option<(&Path, &str)> {
    path.ancestors().find_map(|snapshot| {
        let commit = snapshot.file_name()?.to_str()?;
        let snapshots = snapshot.parent()?;
        let repository = snapshots.parent()?;
        let (kind, _) = repository.file_name()?.to_str()?.split_once("--")?;
        let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        let is_cached = snapshots.ends_with("snapshots") && ["models", "datasets", "spaces"].contains(&kind);
        (is_commit && is_cached).then_some((repository, commit))
    })
}

/// Writes `value` as diffusers writes its configs: keys in order, indented by two spaces, with a final newline.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: impl AsRef<Path>, value: &impl serde::Serialize) -> Result<()> {
    let text = to_json(&path, value)?;
    write_atomically(path, |w| w.write_all(text.as_bytes()))
}

/// The text that [`write_json`] writes to `path`.
///
/// # Errors
/// If the value cannot be expressed as JSON.
pub fn to_json(path: impl AsRef<Path>, value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_value(value)
        .map(|mut value| {
            value.sort_all_objects();
            format!("{value:#}\n")
        })
        .map_err(|e| Error::file(path, format!("cannot be expressed as JSON: {e}")))
}

/// Opens a regular file: a pipe would wait for whoever writes into it, and a device may never end.
///
/// # Errors
/// If it cannot be opened, or is something else.
pub fn open(path: impl AsRef<Path>) -> Result<fs::File> {
    let fail = |e| Error::io("read", &path, e);
    let metadata = fs::metadata(&path).map_err(fail)?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(Error::file(path, "is not a regular file"));
    }
    fs::File::open(&path).map_err(fail)
}

/// Reads a whole regular file.
///
/// # Errors
/// As [`open`].
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(&path)?
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", path, e))?;
    Ok(bytes)
}

/// Reads a whole regular file as text.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let mut text = String::new();
    open(&path)?
        .read_to_string(&mut text)
        .map_err(|e| Error::io("read", path, e))?;
    Ok(text)
}

/// Reads JSON into `T`, with the file named in the error.
///
/// # Errors
/// If the file cannot be read or does not hold such a value.
pub fn read_json<T: serde::de::DeserializeOwned>(path: impl AsRef<Path>) -> Result<T> {
    let text = read_text(&path)?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("is not the JSON expected: {e}")))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_no_file_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("config.json");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.is_ok_and(|made| made.success()));
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let message = read_json::<serde_json::Value>(path).unwrap_err().to_string();
            assert!(message.contains("is not a regular file"), "{message}");
            assert!(read(path).is_err());
        }
        assert!(read_text(folder.path()).is_err());
    }
}
