//! Where the files of a picture folder lie: in a folder, or in a zip archive of one.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    decode::{is_picture_name, read_limited},
    left_out::{self, Endings},
    paths::{folder_name, is_shown, sort_key},
    sound::is_sound_name,
    tar::TarFiles,
    zip::ZipFiles,
};
use crate::{
    Error, Result,
    files::{self, Inside},
};

/// The most bytes that the names of the classes, or a caption, may take.
const MAX_TEXT: u64 = 16 << 20;

/// The files below a folder, or in an archive. Paths are relative to it.
pub(super) enum Store {
    /// A folder on disk, and what links in it may lead to.
    Folder(PathBuf, Inside),
    /// An archive, of which nothing is ever unpacked to disk.
    Zip(ZipFiles),
    /// The same of a tar archive, or of several.
    Tar(TarFiles),
}

/// What a picture folder is made of.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Pictures by their names, sorted by path.
    pub pictures: Vec<PathBuf>,
    /// Sounds by their names, sorted by path.
    pub sounds: Vec<PathBuf>,
    /// `metadata.jsonl` and the like, sorted by path.
    pub metadata: Vec<PathBuf>,
    /// Other parquet files, sorted by path.
    pub parquet: Vec<PathBuf>,
    /// Texts, which are captions where they are called as a picture is.
    pub texts: HashSet<PathBuf>,
    /// Shards of tar archives, sorted by path.
    pub tars: Vec<PathBuf>,
    /// Whether these are the files of the split that is asked for, whatever their folders are called.
    pub is_split: bool,
    /// How many pictures and archives a card leaves out.
    pub unnamed: usize,
    /// All that is nothing of these.
    pub others: Vec<PathBuf>,
}

impl Store {
    /// The files below a folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not there.
    pub(super) fn folder(root: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::Folder(root.as_ref().to_path_buf(), Inside::of(root)?))
    }

    /// The folder, or the archive.
    pub(super) fn root(&self) -> &Path {
        match self {
            Self::Folder(root, _) => root,
            Self::Zip(zip) => zip.path(),
            Self::Tar(tar) => tar.path(),
        }
    }

    /// What the folder is called, or the archive without its ending.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Folder(root, _) => folder_name(root),
            Self::Tar(tar) if tar.is_sharded() => folder_name(tar.path()),
            Self::Zip(_) | Self::Tar(_) => {
                let stem = self.root().file_stem();
                stem.map_or_else(|| "pictures".into(), |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// A file's whole name, for messages.
    pub(super) fn whole(&self, path: &Path) -> PathBuf {
        self.root().join(path)
    }

    /// Pictures, metadata and parquet files at any depth, but for hidden ones and those in folders that start with `__`. Links that
    /// lead out of the folder are not followed, and told of.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read.
    pub(super) fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        match self {
            Self::Folder(root, inside) => walk(root, inside, &mut listing)?,
            Self::Zip(zip) => {
                zip.paths()
                    .filter(|path| is_shown(path))
                    .for_each(|path| listing.add(path.clone()));
            }
            Self::Tar(tar) => {
                tar.paths()
                    .filter(|path| is_shown(path))
                    .for_each(|path| listing.add(path.clone()));
            }
        }
        listing.pictures.sort_by_cached_key(|path| sort_key(path));
        listing.sounds.sort_by_cached_key(|path| sort_key(path));
        listing.metadata.sort_by_cached_key(|path| sort_key(path));
        listing.parquet.sort_by_cached_key(|path| sort_key(path));
        listing.tars.sort_by_cached_key(|path| sort_key(path));
        Ok(listing)
    }

    /// Whether it is made of tar archives, whose pictures may have columns beside them.
    pub(super) fn has_columns(&self) -> bool {
        matches!(self, Self::Tar(_))
    }

    /// Whether a folder is the file's own, and no tar archive among several.
    pub(super) fn is_own_folder(&self, path: &Path) -> bool {
        !matches!(self, Self::Tar(tar) if tar.is_shard(path))
    }

    /// Whether there is such a file, and it lies in the folder indeed.
    pub(super) fn has(&self, path: &Path) -> bool {
        match self {
            Self::Folder(root, inside) => {
                let whole = root.join(path);
                whole.is_file() && inside.holds(&whole).unwrap_or(false)
            }
            Self::Zip(zip) => zip.has(path),
            Self::Tar(tar) => tar.has(path),
        }
    }

    /// The bytes of a picture's file.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] naming the file if it cannot be read or is larger than a picture may be.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        match self {
            Self::Folder(root, _) => read_limited(&root.join(path)),
            Self::Zip(zip) => zip
                .read(path)
                .map_err(|message| Error::file(self.whole(path), message)),
            Self::Tar(tar) => tar
                .read(path)
                .map_err(|message| Error::file(self.whole(path), message)),
        }
    }

    /// A file's size, with its checksum where an archive has that. What is not there has none: it is named when it is read.
    ///
    /// # Errors
    /// [`Error::File`] if an archive has no such file.
    pub(super) fn size(&self, path: &Path) -> Result<(u64, Vec<u8>)> {
        match self {
            Self::Folder(root, _) => Ok((fs::metadata(root.join(path)).map_or(0, |file| file.len()), vec![])),
            Self::Zip(zip) => {
                let (size, checksum) = zip
                    .size(path)
                    .map_err(|message| Error::file(self.whole(path), message))?;
                Ok((size, checksum.to_le_bytes().to_vec()))
            }
            Self::Tar(tar) => Ok((tar.size(path).unwrap_or(0), vec![])),
        }
    }

    /// A file, to be read in pieces.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub(super) fn open(&self, path: &Path) -> Result<Box<dyn Read>> {
        Ok(match self {
            Self::Folder(root, _) => Box::new(files::open(root.join(path))?),
            Self::Zip(_) | Self::Tar(_) => Box::new(io::Cursor::new(self.read(path)?)),
        })
    }

    /// A small file as text.
    ///
    /// # Errors
    /// As [`Store::read`], or if it is not UTF-8, or not small.
    pub(super) fn read_text(&self, path: &Path) -> Result<String> {
        let wrong = |message: String| Error::file(self.whole(path), message);
        let mut bytes = Vec::new();
        self.open(path)?
            .take(MAX_TEXT + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read", self.whole(path), e))?;
        if bytes.len() as u64 > MAX_TEXT {
            return Err(wrong(format!(
                "is larger than the {} MiB that such a file may be",
                MAX_TEXT >> 20
            )));
        }
        String::from_utf8(bytes).map_err(|_| wrong("is not text in UTF-8".into()))
    }
}

impl Listing {
    pub(super) fn add(&mut self, path: PathBuf) {
        if is_picture_name(&path) {
            self.pictures.push(path);
        } else if is_sound_name(&path) {
            self.sounds.push(path);
        } else if path.file_name().is_some_and(|name| {
            [
                "metadata.jsonl",
                "metadata.csv",
                "metadata.json",
                "metadata.parquet",
            ]
            .iter()
            .any(|metadata| name == *metadata)
        }) {
            self.metadata.push(path);
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            self.parquet.push(path);
        } else {
            match left_out::ending(&path).as_str() {
                "txt" => drop(self.texts.insert(path)),
                "tar" => self.tars.push(path),
                _ => self.others.push(path),
            }
        }
    }

    /// The files that are not used where these texts are captions, but for those that `is_read` knows.
    pub(super) fn passed_over(&self, captions: &HashSet<&Path>, is_read: impl Fn(&Path) -> bool) -> Endings {
        let mut endings = Endings::default();
        let texts = self
            .texts
            .iter()
            .filter(|text| !captions.contains(text.as_path()));
        let others = self.others.iter().chain(texts).chain(&self.tars);
        others
            .filter(|path| !is_read(path))
            .for_each(|path| endings.add(path));
        endings
    }

    /// The text beside a picture that is called as it, in which trainers of adapters keep its caption.
    pub(super) fn text_beside(&self, picture: &Path) -> Option<PathBuf> {
        Some(picture.with_extension("txt")).filter(|text| self.texts.contains(text))
    }
}

/// What lies beside `training.json` in the folder of a training run, at its beginning, on its way or at its end.
const RUN_MARKS: [&str; 3] = [".running", "metrics.jsonl", "model_index.json"];

/// Collects what lies below `root`. Links are followed within it; a folder that was seen already, by whatever path, is not entered
/// again, so that a link to a folder above does not lead in circles.
fn walk(root: &Path, inside: &Inside, listing: &mut Listing) -> Result<()> {
    let mut seen = HashSet::new();
    let mut leading_out = Vec::new();
    let canonical = |path: &Path| fs::canonicalize(path).map_err(|e| Error::io("read", path, e));
    // Each with the path that it has without links, which only links need the system for.
    let mut folders = vec![(PathBuf::new(), canonical(root)?)];
    while let Some((folder, place)) = folders.pop() {
        if !seen.insert(place.clone()) {
            continue;
        }
        let whole = root.join(&folder);
        let read_error = |e: io::Error| Error::io("read", &whole, e);
        let mut entries = fs::read_dir(&whole)
            .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
            .map_err(read_error)?;
        let has = |name: &str| entries.iter().any(|entry| entry.file_name() == name);
        if folder != Path::new("") && has("training.json") && RUN_MARKS.iter().any(|mark| has(mark)) {
            tracing::warn!("{}: is a training run, and no data", whole.display());
            continue;
        }
        // The last folder comes off the stack first.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
        for entry in entries {
            let name = entry.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b".") {
                continue;
            }
            let path = folder.join(&name);
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            // What leads nowhere is named when it is read.
            if is_link && !inside.holds(&entry.path()).unwrap_or(true) {
                leading_out.push(path);
            } else if fs::metadata(entry.path()).is_ok_and(|m| m.is_dir()) {
                if !bytes.starts_with(b"__") {
                    let place = if is_link {
                        canonical(&entry.path())?
                    } else {
                        place.join(&name)
                    };
                    folders.push((path, place));
                }
            } else {
                listing.add(path);
            }
        }
    }
    if let Some(first) = leading_out.iter().min() {
        tracing::warn!(
            "{}: links that lead out of the folder are not followed: {}{}; put what they lead to in their place, or name its folder",
            root.display(),
            first.display(),
            match leading_out.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            }
        );
    }
    Ok(())
}
