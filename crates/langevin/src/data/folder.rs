//! A folder of pictures, or a zip archive of one, read as Hugging Face's ImageFolder reads it.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Component, Path, PathBuf},
};

use super::{
    Alpha, Dataset, Example, OpenOptions, Picture,
    decode::{self, EXTENSIONS},
    idx::folder_name,
    metadata::{self, Row},
    open::no_column,
    out_of_range, split,
    store::{Listing, Store},
    zip::ZipFiles,
};
use crate::{Error, Result, files};

/// Pictures in a folder and its sub-folders, decoded when they are asked for.
///
/// * **Labels** are the names of the folders that the pictures lie in, if there is more than one such name and
///   all pictures lie equally deep. Metadata files take their place.
/// * **`metadata.jsonl` or `metadata.csv`** lists pictures by `file_name`, relative to itself, with captions in
///   `text` and classes in `label` (numbers or names; `labels.json` beside it names numbered classes). Pictures
///   that no line names are left out.
/// * **Splits**: if a folder is called after the split that is asked for (for `train` that is `train`, `training`,
///   `my-train-set` …), only what is below such folders is read. Where no folder is called after any split, all is
///   `train`.
///
/// Pictures are sorted by their path, with `/` between folders; those of metadata files stay in their order.
/// Hidden folders and files, and folders that start with `__`, are passed over. Two things differ from Hugging
/// Face's: splits are told from folders' names and not from files', and a split's name is never a label.
pub struct ImageFolder {
    name: String,
    store: Store,
    alpha: Alpha,
    entries: Vec<Entry>,
    class_names: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Relative to the folder or archive.
    path: PathBuf,
    class: Option<usize>,
    caption: Option<String>,
    /// As `path`.
    conditioning: Option<PathBuf>,
}

impl ImageFolder {
    /// Looks through a folder; no picture is decoded yet.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read; [`Error::File`] if there is no picture (the error says what was
    /// looked for), a metadata file has a broken line or names a picture that is not there, labels do not fit
    /// together, or there are only splits that were not asked for.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_folder(root, &OpenOptions::default())
    }

    /// [`ImageFolder::open`] with a choice of the split, and of what becomes of transparency.
    ///
    /// # Errors
    /// As [`ImageFolder::open`].
    pub fn open_folder(root: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let store = Store::folder(root.as_ref())?;
        let listing = store.list()?;
        Self::of(store, listing, options)
    }

    /// Looks through a zip archive in the same way. Nothing of it is unpacked to disk.
    ///
    /// # Errors
    /// As [`ImageFolder::open`], and if the file is no zip archive.
    pub fn open_zip(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let store = Store::Zip(ZipFiles::open(path.as_ref())?);
        let listing = store.list()?;
        Self::of(store, listing, options)
    }

    /// The pictures of a folder or archive, which has been looked through.
    pub(super) fn of(store: Store, listing: Listing, options: &OpenOptions) -> Result<Self> {
        let by_metadata = !listing.metadata.is_empty();
        let wanted = split::canonical(&options.split);
        let (entries, class_names) = if by_metadata {
            from_metadata(&store, &listing, wanted, options.conditioning_column.as_deref())?
        } else {
            no_column(store.root().display(), options)?;
            from_folders(&store, listing.pictures, wanted)?
        };
        if entries.is_empty() {
            let what = if by_metadata {
                "no picture in its metadata"
            } else {
                "no picture"
            };
            return Err(Error::file(
                store.root(),
                format!("holds {what} (looked for {} at any depth)", EXTENSIONS.join(", ")),
            ));
        }
        Ok(Self {
            name: store.name(),
            store,
            alpha: options.alpha,
            entries,
            class_names,
        })
    }

    /// The file of the picture at `index`. One in an archive has the archive's path before its own.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        self.entries.get(index).map(|entry| self.store.whole(&entry.path))
    }

    fn entry(&self, index: usize) -> Result<&Entry> {
        let entry = self.entries.get(index);
        entry.ok_or_else(|| out_of_range(&self.name, index, self.entries.len()))
    }

    fn decode(&self, path: &Path) -> Result<Picture> {
        let bytes = self.store.read(path)?;
        decode::decode(&bytes, self.alpha).map_err(|message| Error::file(self.store.whole(path), message))
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn class(&self, index: usize) -> Result<Option<usize>> {
        Ok(self.entry(index)?.class)
    }

    fn get(&self, index: usize) -> Result<Example> {
        let entry = self.entry(index)?;
        let conditioning = entry.conditioning.as_deref();
        Ok(Example {
            picture: self.decode(&entry.path)?,
            class: entry.class,
            caption: entry.caption.clone(),
            conditioning: conditioning.map(|path| self.decode(path)).transpose()?,
        })
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        let what = match self.store {
            Store::Folder(..) => "folder of pictures",
            Store::Zip(_) => "zip archive of pictures",
        };
        format!("{what} {}", self.store.root().display())
    }
}

type Found = (Vec<Entry>, Option<Vec<String>>);

/// Pictures with the labels that their folders' names give.
fn from_folders(store: &Store, pictures: Vec<PathBuf>, wanted: &str) -> Result<Found> {
    let label = |path: &Path| match path.parent().and_then(Path::file_name) {
        Some(folder) => folder.to_string_lossy().into_owned(),
        None => folder_name(store.root()),
    };
    let names: BTreeSet<String> = pictures.iter().map(|path| label(path)).collect();
    let depths: HashSet<usize> = pictures.iter().map(|path| path.components().count()).collect();
    let kept = part(store, pictures, |path| path, wanted)?;
    let in_split = |path: &PathBuf| {
        let folder = path
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        folder.and_then(split::meant_by) == Some(wanted)
    };
    let names: Option<Vec<String>> = (names.len() > 1 && depths.len() == 1 && !kept.iter().all(in_split))
        .then(|| names.into_iter().collect());
    let entry = |path: PathBuf| Entry {
        class: names
            .as_ref()
            .and_then(|names| names.binary_search(&label(&path)).ok()),
        path,
        caption: None,
        conditioning: None,
    };
    Ok((kept.into_iter().map(entry).collect(), names))
}

/// A line of a metadata file, with its files relative to the folder or archive.
struct Line {
    picture: PathBuf,
    conditioning: Option<PathBuf>,
    row: Row,
}

/// Pictures that metadata files list, with their captions and labels.
fn from_metadata(
    store: &Store,
    listing: &Listing,
    wanted: &str,
    conditioning: Option<&str>,
) -> Result<Found> {
    let listed: HashSet<&PathBuf> = listing.pictures.iter().collect();
    let mut names: Option<(PathBuf, Vec<String>)> = None;
    let mut rows: Vec<(PathBuf, Line)> = Vec::new();
    let mut folders = HashSet::new();
    for file in &listing.metadata {
        let whole = store.whole(file);
        if file.extension().is_some_and(|ending| ending == "parquet") {
            let message =
                "is metadata as parquet, where metadata.jsonl or metadata.csv is read beside pictures";
            return Err(Error::file(whole, message));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        if !folders.insert(folder) {
            let message = "holds both metadata.csv and metadata.jsonl: keep one";
            return Err(Error::file(store.whole(folder), message));
        }
        let labels = folder.join("labels.json");
        if store.has(&labels) {
            let found = metadata::names(&store.whole(&labels), &store.read_text(&labels)?)?;
            if let Some((other, known)) = names.replace((store.whole(&labels), found.clone()))
                && known != found
            {
                return Err(Error::file(
                    store.whole(&labels),
                    format!("names other classes than {}", other.display()),
                ));
            }
        }
        for row in metadata::rows(&whole, &store.read_text(file)?, conditioning)? {
            let there = |name: &String| {
                let Some(below) = files::plain_path(name) else {
                    let message = format!(
                        "line {} names {name}, which is not there: a name leads to a file beside its metadata or below, and nowhere else",
                        row.line
                    );
                    return Err(Error::file(&whole, message));
                };
                let picture = folder.join(below);
                if listed.contains(&picture) || store.has(&picture) {
                    return Ok(picture);
                }
                let message = format!("line {} names {name}, which is not there", row.line);
                Err(Error::file(&whole, message))
            };
            let picture = there(&row.file_name)?;
            let conditioning = row.conditioning.as_ref().map(there).transpose()?;
            rows.push((
                whole.clone(),
                Line {
                    picture,
                    conditioning,
                    row,
                },
            ));
        }
    }
    let rows = part(store, rows, |(_, line)| &line.picture, wanted)?;
    let lines: Vec<(&Path, &Row)> = rows
        .iter()
        .map(|(path, line)| (path.as_path(), &line.row))
        .collect();
    let (classes, names) = metadata::resolve_labels(&lines, names.map(|(_, names)| names))?.unzip();
    let entry = |(index, (_, line)): (usize, (PathBuf, Line))| Entry {
        path: line.picture,
        class: classes.as_ref().map(|classes| classes[index]),
        caption: line.row.caption,
        conditioning: line.conditioning,
    };
    Ok((rows.into_iter().enumerate().map(entry).collect(), names))
}

/// What of `items` lies in a folder that is called after the split `wanted`: all, if that is `train` and no folder is
/// called after a split.
fn part<T>(store: &Store, items: Vec<T>, path: impl Fn(&T) -> &PathBuf, wanted: &str) -> Result<Vec<T>> {
    let splits = |item: &T| -> Vec<&'static str> {
        let folders = path(item).parent().map(Path::components).into_iter().flatten();
        folders
            .filter_map(|part| match part {
                Component::Normal(name) => split::meant_by(name.to_str()?),
                _ => None,
            })
            .collect()
    };
    let there: BTreeSet<&str> = items.iter().flat_map(splits).collect();
    if there.contains(wanted) {
        return Ok(items
            .into_iter()
            .filter(|item| splits(item).contains(&wanted))
            .collect());
    }
    let none_is_another = wanted == split::TRAIN && items.iter().any(|item| splits(item).is_empty());
    if items.is_empty() || none_is_another {
        return Ok(items);
    }
    let there = if there.is_empty() {
        format!(
            "there is no folder called after a split, so all is `{}`",
            split::TRAIN
        )
    } else {
        let there: Vec<&str> = there.into_iter().collect();
        format!("there are folders called {}", there.join(", "))
    };
    Err(Error::file(
        store.root(),
        format!("holds no pictures of the split `{wanted}`: none lie in a folder called {wanted}; {there}"),
    ))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
