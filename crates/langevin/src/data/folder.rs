//! A folder of pictures, read as Hugging Face's ImageFolder reads it.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{
    Dataset, Example,
    decode::{EXTENSIONS, is_picture_name, read_picture},
    idx::folder_name,
    metadata::{self, Row},
    out_of_range,
};
use crate::{Error, Result};

/// Folders whose name is one of these words, or has it between `-`, `.`, `_`, spaces and digits, are the part to
/// train on.
const TRAIN_WORDS: [&str; 2] = ["train", "training"];
/// The same for the parts that are kept from training.
const OTHER_WORDS: [&str; 8] = [
    "validation",
    "valid",
    "dev",
    "val",
    "test",
    "testing",
    "eval",
    "evaluation",
];

/// Pictures in a folder and its sub-folders, decoded when they are asked for.
///
/// * **Labels** are the names of the folders that the pictures lie in, if there is more than one such name and
///   all pictures lie equally deep. Metadata files take their place.
/// * **`metadata.jsonl` or `metadata.csv`** lists pictures by `file_name`, relative to itself, with captions in
///   `text` and classes in `label` (numbers or names; `labels.json` beside it names numbered classes). Pictures
///   that no line names are left out.
/// * **Splits**: if a folder is called `train` (or `training`, `my-train-set` …), only what is below such folders
///   is read.
///
/// Pictures are sorted by their path, with `/` between folders; those of metadata files stay in their order.
/// Hidden folders and files, and folders that start with `__`, are passed over. Two things differ from Hugging
/// Face's: splits are told from folders' names and not from files', and a split's name is never a label.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    name: String,
    root: PathBuf,
    entries: Vec<Entry>,
    class_names: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    class: Option<usize>,
    caption: Option<String>,
}

/// What lies in a folder tree: paths relative to its root, sorted.
#[derive(Default)]
struct Tree {
    pictures: Vec<PathBuf>,
    metadata: Vec<PathBuf>,
}

impl ImageFolder {
    /// Looks through a folder; no picture is decoded yet.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read; [`Error::File`] if there is no picture (the error says what was
    /// looked for), a metadata file has a broken line or names a picture that is not there, labels do not fit
    /// together, or there are only splits that are not for training.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let mut tree = Tree::default();
        walk(root, Path::new(""), &mut HashSet::new(), &mut tree)?;
        tree.pictures.sort_by_cached_key(|path| sort_key(path));
        tree.metadata.sort_by_cached_key(|path| sort_key(path));
        let (entries, class_names) = if tree.metadata.is_empty() {
            from_folders(root, tree.pictures)?
        } else {
            from_metadata(root, &tree.metadata)?
        };
        if entries.is_empty() {
            let what = if tree.metadata.is_empty() {
                "no picture"
            } else {
                "no picture in its metadata"
            };
            return Err(Error::file(
                root,
                format!("holds {what} (looked for {} at any depth)", EXTENSIONS.join(", ")),
            ));
        }
        Ok(Self {
            name: folder_name(root),
            root: root.to_path_buf(),
            entries,
            class_names,
        })
    }

    /// The file of the picture at `index`.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.entries.get(index).map(|entry| entry.path.as_path())
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Result<Example> {
        let Entry { path, class, caption } = self
            .entries
            .get(index)
            .ok_or_else(|| out_of_range(&self.name, index, self.entries.len()))?;
        Ok(Example {
            picture: read_picture(path)?,
            class: *class,
            caption: caption.clone(),
        })
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        format!("folder of pictures {}", self.root.display())
    }
}

/// The same order on every system: the path's text with `/` between its parts.
fn sort_key(path: &Path) -> String {
    path.components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

/// Collects what lies below `root/folder`. Links are followed; a folder that was seen already, by whatever path,
/// is not entered again, so that a link to a folder above does not lead in circles.
fn walk(root: &Path, folder: &Path, seen: &mut HashSet<PathBuf>, tree: &mut Tree) -> Result<()> {
    let whole = root.join(folder);
    let read_error = |e: io::Error| Error::io("read", &whole, e);
    if !seen.insert(whole.canonicalize().map_err(read_error)?) {
        return Ok(());
    }
    let mut entries = fs::read_dir(&whole)
        .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
        .map_err(read_error)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") {
            continue;
        }
        let path = folder.join(&name);
        if fs::metadata(entry.path()).is_ok_and(|m| m.is_dir()) {
            if !bytes.starts_with(b"__") {
                walk(root, &path, seen, tree)?;
            }
        } else if is_picture_name(&path) {
            tree.pictures.push(path);
        } else if bytes == b"metadata.jsonl" || bytes == b"metadata.csv" {
            tree.metadata.push(path);
        }
    }
    Ok(())
}

type Found = (Vec<Entry>, Option<Vec<String>>);

/// Pictures with the labels that their folders' names give.
fn from_folders(root: &Path, pictures: Vec<PathBuf>) -> Result<Found> {
    let label = |path: &Path| match path.parent().and_then(Path::file_name) {
        Some(folder) => folder.to_string_lossy().into_owned(),
        None => folder_name(root),
    };
    let names: BTreeSet<String> = pictures.iter().map(|path| label(path)).collect();
    let depths: HashSet<usize> = pictures.iter().map(|path| path.components().count()).collect();
    let kept = training_part(root, pictures, |path| path)?;
    let in_split = |path: &PathBuf| path.parent().and_then(Path::file_name).is_some_and(is_train);
    let names: Option<Vec<String>> = (names.len() > 1 && depths.len() == 1 && !kept.iter().all(in_split))
        .then(|| names.into_iter().collect());
    let entry = |path: PathBuf| Entry {
        class: names
            .as_ref()
            .and_then(|names| names.binary_search(&label(&path)).ok()),
        path: root.join(path),
        caption: None,
    };
    Ok((kept.into_iter().map(entry).collect(), names))
}

/// Pictures that metadata files list, with their captions and labels.
fn from_metadata(root: &Path, metadata_files: &[PathBuf]) -> Result<Found> {
    let mut names: Option<(PathBuf, Vec<String>)> = None;
    let mut rows: Vec<(PathBuf, PathBuf, Row)> = Vec::new();
    let mut folders = HashSet::new();
    for file in metadata_files {
        let folder = file.parent().unwrap_or(Path::new(""));
        if !folders.insert(folder) {
            let message = "holds both metadata.csv and metadata.jsonl: keep one";
            return Err(Error::file(root.join(folder), message));
        }
        let labels = root.join(folder).join("labels.json");
        if labels.is_file() {
            let found = metadata::read_names(&labels)?;
            if let Some((other, known)) = names.replace((labels.clone(), found.clone()))
                && known != found
            {
                return Err(Error::file(
                    labels,
                    format!("names other classes than {}", other.display()),
                ));
            }
        }
        let path = root.join(file);
        for row in metadata::read(&path)? {
            let picture = folder.join(&row.file_name);
            if !root.join(&picture).is_file() {
                return Err(Error::file(
                    path,
                    format!("line {} names {}, which is not there", row.line, row.file_name),
                ));
            }
            rows.push((path.clone(), picture, row));
        }
    }
    let rows = training_part(root, rows, |(_, picture, _)| picture)?;
    let lines: Vec<(&Path, &Row)> = rows.iter().map(|(path, _, row)| (path.as_path(), row)).collect();
    let (classes, names) = metadata::resolve_labels(&lines, names.map(|(_, names)| names))?.unzip();
    let entry = |(index, (_, picture, row)): (usize, (PathBuf, PathBuf, Row))| Entry {
        path: root.join(picture),
        class: classes.as_ref().map(|classes| classes[index]),
        caption: row.caption,
    };
    Ok((rows.into_iter().enumerate().map(entry).collect(), names))
}

/// What of `items` lies in a folder for training: all, unless some folder is called so.
fn training_part<T>(root: &Path, items: Vec<T>, path: impl Fn(&T) -> &PathBuf) -> Result<Vec<T>> {
    let below = |item: &T, is_split: fn(&OsStr) -> bool| {
        path(item).parent().is_some_and(|folders| {
            folders
                .components()
                .any(|part| matches!(part, Component::Normal(name) if is_split(name)))
        })
    };
    if items.iter().any(|item| below(item, is_train)) {
        return Ok(items.into_iter().filter(|item| below(item, is_train)).collect());
    }
    if !items.is_empty() && items.iter().all(|item| below(item, is_other_split)) {
        return Err(Error::file(
            root,
            "holds pictures to test or validate with, and none in a folder called train: name the folder of \
             those to train on",
        ));
    }
    Ok(items)
}

fn is_train(name: &OsStr) -> bool {
    has_word(name, &TRAIN_WORDS)
}

fn is_other_split(name: &OsStr) -> bool {
    has_word(name, &OTHER_WORDS)
}

/// Hugging Face's rule for a split's name: a keyword, alone or set off by one of these characters.
fn has_word(name: &OsStr, words: &[&str]) -> bool {
    let is_separator = |c: char| matches!(c, '-' | '.' | '_' | ' ' | '0'..='9');
    name.to_str()
        .is_some_and(|name| name.split(is_separator).any(|word| words.contains(&word)))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
