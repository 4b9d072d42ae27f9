//! Tar archives, read where they lie: one of a folder of pictures, or the shards of a WebDataset. Nothing is unpacked to disk.
//!
//! The format of POSIX's `pax`, with GNU's and pax's ways of writing long names.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::decode::MAX_BYTES;
use crate::{Error, Result, files};

/// What everything in an archive is a multiple of.
const BLOCK: u64 = 512;
/// The most bytes that a long name, or what else is said of a file, may take.
const MAX_HEADER: u64 = 1 << 20;

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: usize,
    start: u64,
    size: u64,
}

/// The files in an archive, or in several.
pub(super) struct TarFiles {
    /// The archive, or the folder of several.
    path: PathBuf,
    /// The archives.
    shards: Vec<PathBuf>,
    /// The same by their paths in the folder; none where there is but one, which is named itself.
    names: HashSet<PathBuf>,
    /// Files by their paths; where there are several archives, below their archive's.
    places: BTreeMap<PathBuf, Place>,
}

impl TarFiles {
    /// Reads an archive's list of files.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::File`] if it is no whole tar archive.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut archive = Self {
            path: path.to_path_buf(),
            shards: vec![path.to_path_buf()],
            names: HashSet::new(),
            places: BTreeMap::new(),
        };
        archive.add(0, Path::new(""))?;
        Ok(archive)
    }

    /// The same of several in a folder, by their paths in it.
    ///
    /// # Errors
    /// As [`TarFiles::open`].
    pub(super) fn in_folder(folder: &Path, shards: &[PathBuf]) -> Result<Self> {
        let mut archives = Self {
            path: folder.to_path_buf(),
            shards: shards.iter().map(|shard| folder.join(shard)).collect(),
            names: shards.iter().cloned().collect(),
            places: BTreeMap::new(),
        };
        for (number, shard) in shards.iter().enumerate() {
            archives.add(number, shard)?;
        }
        Ok(archives)
    }

    fn add(&mut self, shard: usize, below: &Path) -> Result<()> {
        let path = &self.shards[shard];
        let file = files::open(path)?;
        let size = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let wrong = |message: String| Error::file(path, message);
        for (name, start, size) in members(&mut BufReader::new(file), size).map_err(wrong)? {
            // Names that lead out of the archive are no files of it.
            if let Some(inside) = files::plain_path(&name) {
                self.places
                    .insert(below.join(inside), Place { shard, start, size });
            }
        }
        Ok(())
    }

    /// The archive, or the folder of several.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a folder of archives.
    pub(super) fn is_sharded(&self) -> bool {
        !self.names.is_empty()
    }

    /// The files in it, relative to it.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.places.keys()
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.places.contains_key(path)
    }

    /// Whether a path is that of an archive, below which its files are.
    pub(super) fn is_shard(&self, path: &Path) -> bool {
        self.names.contains(path)
    }

    /// A file's size.
    pub(super) fn size(&self, path: &Path) -> Option<u64> {
        self.places.get(path).map(|place| place.size)
    }

    /// A file's bytes; the error is the part of a sentence that follows its name.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let place = self.places.get(path).ok_or("is not in the archive")?;
        if place.size > MAX_BYTES {
            return Err(format!("is larger than {} MiB", MAX_BYTES >> 20));
        }
        let read = || {
            let mut file = File::open(&self.shards[place.shard])?;
            file.seek(SeekFrom::Start(place.start))?;
            let mut bytes = Vec::new();
            file.take(place.size).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e: std::io::Error| format!("cannot be read from the archive: {e}"))?;
        if bytes.len() as u64 != place.size {
            return Err("is cut off: the archive has changed since it was opened".into());
        }
        Ok(bytes)
    }
}

/// Whether a file that begins so is a tar archive.
pub(super) fn is_tar(start: &[u8]) -> bool {
    start.len() >= BLOCK as usize && start.iter().any(|&byte| byte != 0) && has_checksum(start)
}

/// The regular files of an archive of so many bytes: each one's name, where it begins and how long it is.
///
/// # Errors
/// The part of a sentence that follows the archive's name.
fn members(archive: &mut (impl Read + Seek), size: u64) -> Result<Vec<(String, u64, u64)>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut said = Said::default();
    while at + BLOCK <= size {
        let io = |e: std::io::Error| format!("cannot be read as a tar archive: {e}");
        let mut header = [0; BLOCK as usize];
        archive
            .seek(SeekFrom::Start(at))
            .and_then(|_| archive.read_exact(&mut header))
            .map_err(io)?;
        if header == [0; BLOCK as usize] {
            break;
        }
        if !has_checksum(&header) {
            return Err(format!("is a damaged tar archive: at byte {at} no file begins"));
        }
        let start = at + BLOCK;
        let length = match said.size {
            // What a long header says of the next file does not hold for another long header.
            Some(size) if !matches!(header[156], b'x' | b'g' | b'L' | b'K') => size,
            _ => number(&header[124..136])
                .ok_or_else(|| format!("is a damaged tar archive: at byte {at} is no size"))?,
        };
        let end = start.checked_add(length).filter(|&end| end <= size);
        let end = end.ok_or("is a tar archive that is cut off: its last file is not whole")?;
        match header[156] {
            b'x' | b'L' => {
                if length > MAX_HEADER {
                    return Err(format!("has a name of {length} bytes in it"));
                }
                let mut text = vec![0; length as usize];
                archive.read_exact(&mut text).map_err(io)?;
                match header[156] {
                    b'L' => said.name = Some(until_zero(&text)),
                    _ => said.read(&text),
                }
            }
            b'g' | b'K' => {}
            b'0' | 0 | b'7' => {
                let name = said.name.take().unwrap_or_else(|| whole_name(&header));
                // Early archives have folders as files.
                if !name.ends_with('/') {
                    found.push((name, start, length));
                }
                said = Said::default();
            }
            _ => said = Said::default(),
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(found)
}

/// What stands before a file's header about it.
#[derive(Default)]
struct Said {
    name: Option<String>,
    size: Option<u64>,
}

impl Said {
    /// Records as `LENGTH KEY=VALUE`, each with a line's end.
    fn read(&mut self, mut text: &[u8]) {
        while let Some(space) = text.iter().position(|&byte| byte == b' ') {
            let length = std::str::from_utf8(&text[..space])
                .ok()
                .and_then(|length| length.parse::<usize>().ok());
            let Some(record) = length.and_then(|length| text.get(space + 1..length)) else {
                return;
            };
            let record = String::from_utf8_lossy(record);
            match record.trim_end_matches('\n').split_once('=') {
                Some(("path", name)) => self.name = Some(name.into()),
                Some(("size", size)) => self.size = size.parse().ok(),
                _ => {}
            }
            text = &text[length.unwrap_or(text.len())..];
        }
    }
}

/// The name in a header, with what POSIX's format has before it.
fn whole_name(header: &[u8]) -> String {
    let name = until_zero(&header[..100]);
    let before = if &header[257..262] == b"ustar" && header[262] == 0 {
        until_zero(&header[345..500])
    } else {
        String::new()
    };
    if before.is_empty() {
        name
    } else {
        format!("{before}/{name}")
    }
}

fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A number in octal digits, or as GNU writes large ones.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let is_small = high.first() == Some(&0x80) && high[1..].iter().all(|&byte| byte == 0);
        return is_small.then(|| low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    let digits = std::str::from_utf8(field)
        .ok()?
        .trim_matches(|c| c == ' ' || c == '\0');
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(digits, 8).ok()
}

/// Whether a header's sum is what it says: that of its bytes, with spaces where it stands.
fn has_checksum(header: &[u8]) -> bool {
    let sum: u64 = header[..BLOCK as usize]
        .iter()
        .enumerate()
        .map(|(at, &byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(byte)
            }
        })
        .sum();
    number(&header[148..156]) == Some(sum)
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
