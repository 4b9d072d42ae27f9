//! What the paths of files and folders of data say.

use std::path::Path;

use crate::files::{self, Inside};

/// What a folder is called, also where it is given as `.` or ends in a slash.
pub(super) fn folder_name(folder: &Path) -> String {
    if let Some(repository) = files::cached_repository(folder) {
        return repository.name().to_string();
    }
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    whole
        .file_name()
        .map_or_else(|| "pictures".into(), |name| name.to_string_lossy().into_owned())
}

/// Whether a file is there that lies in its folder indeed, or leads to a blob of the Hub's cache: a link that leads out of its folder is
/// passed over, and told of.
pub(super) fn is_file_beside(path: &Path) -> bool {
    let is_inside = || {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let inside = Inside::of(folder.unwrap_or(Path::new("."))).ok()?;
        inside.holds(path).ok()
    };
    let is_there = path.is_file();
    let counts = is_there && is_inside().unwrap_or(false);
    if is_there && !counts {
        tracing::warn!("{}: leads out of its folder, and is not read", path.display());
    }
    counts
}

/// Whether a file is neither hidden nor in a folder that is, or that starts with `__`.
pub(super) fn is_shown(path: &Path) -> bool {
    let mut parts = path.iter().map(|part| part.as_encoded_bytes());
    let is_hidden_folder = |part: &[u8]| part.starts_with(b".") || part.starts_with(b"__");
    let name = parts.next_back();
    name.is_some_and(|name| !name.starts_with(b".")) && !parts.any(is_hidden_folder)
}

/// The same order on every system: the path's text with `/` between its parts.
pub(super) fn sort_key(path: &Path) -> String {
    path.components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}
