//! Zip archives, read where they lie: nothing is unpacked to disk, so no name in an archive can lead out of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{
    contain::contain,
    decode::{MAX_BYTES, is_picture_name},
    paths::is_shown,
};
use crate::{Error, Result, files};

/// What zip archives begin with, and those that hold nothing.
pub(super) const MAGIC: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// The files in an archive.
pub(super) struct ZipFiles {
    path: PathBuf,
    /// Where each file stands in the archive.
    places: BTreeMap<PathBuf, usize>,
    /// Reading moves the file's position, so one thread reads at a time; pictures are decoded outside.
    archive: Mutex<ZipArchive<BufReader<File>>>,
}

impl ZipFiles {
    /// Reads an archive's list of files.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::File`] if it is no whole zip archive.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = files::open(path)?;
        let size = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let open = || {
            let archive = ZipArchive::new(BufReader::new(file))
                .map_err(|e| format!("cannot be read as a zip archive: {e}"))?;
            check(&archive, size)?;
            let places = (0..archive.len())
                .filter_map(|place| Some((inside(&archive.name_for_index(place)?.ok()?)?, place)))
                .collect();
            Ok((archive, places))
        };
        let (archive, places) = contain(open).map_err(|message| Error::file(path, message))?;
        Ok(Self {
            path: path.to_path_buf(),
            places,
            archive: Mutex::new(archive),
        })
    }

    /// The archive's own path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files in it, relative to it.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.places.keys()
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.places.contains_key(path)
    }

    /// A file's size, and its checksum; the error is the part of a sentence that follows the file's name.
    pub(super) fn size(&self, path: &Path) -> Result<(u64, u32), String> {
        let place = *self.places.get(path).ok_or("is not in the archive")?;
        let archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = archive
            .by_index_data(place)
            .map_err(|e| format!("cannot be read from the archive: {e}"))?;
        Ok((entry.size(), entry.crc32()))
    }

    /// Unpacks a file into memory; the error is the part of a sentence that follows the file's name. A file that
    /// unpacks to more than a picture may take is refused, whatever its header claims.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let place = *self.places.get(path).ok_or("is not in the archive")?;
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        contain(|| {
            let file = archive.by_index(place).map_err(|e| match e {
                ZipError::UnsupportedArchive(why) => {
                    format!("is packed in a way that is not read here (stored and deflated files are): {why}")
                }
                other => format!("cannot be read from the archive: {other}"),
            })?;
            let too_large = || format!("unpacks to more than {} MiB", MAX_BYTES >> 20);
            if file.size() > MAX_BYTES {
                return Err(too_large());
            }
            let mut bytes = Vec::new();
            file.take(MAX_BYTES + 1)
                .read_to_end(&mut bytes)
                .map_err(|e| format!("is damaged in the archive: {e}"))?;
            if bytes.len() as u64 > MAX_BYTES {
                return Err(too_large());
            }
            Ok(bytes)
        })
    }
}

/// Looks at an archive's list of files. Pictures that are all packed in one way that is not read here are said to be once.
///
/// # Errors
/// The part of a sentence that follows the archive's name.
fn check(archive: &ZipArchive<BufReader<File>>, size: u64) -> Result<(), String> {
    let mut packed = 0u64;
    for place in 0..archive.len() {
        let Ok(entry) = archive.by_index_data(place) else {
            continue;
        };
        packed = packed.saturating_add(entry.compressed_size());
        let Ok(name) = entry.name() else { continue };
        let is_used = || inside(&name).is_some_and(|path| is_picture_name(&path) && is_shown(&path));
        let method = entry.compression();
        if entry.encrypted() && is_used() {
            return Err(format!("is not supported: {} in it is encrypted", name));
        }
        if !matches!(method, CompressionMethod::Stored | CompressionMethod::Deflated) && is_used() {
            return Err(format!(
                "is not supported: {} in it is packed by {method}, and stored and deflated files are read: pack it again, as `zip` does",
                name
            ));
        }
    }
    // Few bytes that are the content of many files make an archive of any size.
    if packed > size {
        return Err(format!(
            "has files that share their bytes: {packed} of them in {size}, and is not read"
        ));
    }
    Ok(())
}

/// An entry's name as a path in the archive, which PowerShell writes with `\` and others with `./` before it; `None` for folders, and for
/// names that lead out of it.
fn inside(name: &str) -> Option<PathBuf> {
    files::plain_path(name).filter(|_| !name.ends_with(['/', '\\']))
}

#[cfg(test)]
#[path = "zip_tests.rs"]
mod tests;
