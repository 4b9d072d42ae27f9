//! A folder of pictures, or a zip archive of one, read as Hugging Face's ImageFolder reads it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use super::{
    Alpha, Dataset, Example, Fingerprint, OpenOptions, Picture,
    columns::{self, Columns},
    decode::{self, EXTENSIONS},
    fingerprint::Fingerprinting,
    left_out,
    medium::Medium,
    metadata::{self, Row, Rows},
    open::{no_attributes, no_column},
    out_of_range,
    paths::{folder_name, sort_key},
    sound::{self, Bytes, SoundReader},
    split,
    store::{Listing, Store},
    tar::TarFiles,
    zip::ZipFiles,
};
use crate::{Error, Result, files};

/// Pictures in a folder and its sub-folders, decoded when they are asked for.
///
/// * **Labels** are the names of the folders that the pictures lie in, if there is more than one such name and
///   all pictures lie equally deep. Metadata files take their place.
/// * **`metadata.jsonl`, `metadata.csv` or `metadata.json`** lists pictures by `file_name`, relative to itself and at or below its folder,
///   with captions in `text`, `caption` or `prompt` and classes in `label` (numbers or names; `labels.json` beside it names numbered
///   classes; -1 and nothing are no class). Pictures that no line names are left out.
/// * **`NAME.txt`** beside the picture `NAME.png` is its caption, where no metadata has one.
/// * **Splits**: if a folder is called after the split that is asked for (for `train` that is `train`, `training`,
///   `my-train-set` …), only what is below such folders is read. Where no folder is called after any split, all is
///   `train`.
///
/// Pictures are sorted by their path, with `/` between folders; those of metadata files stay in their order.
/// Hidden folders and files, folders that start with `__`, and training runs are passed over, and links that lead out of the folder.
/// Two things differ from Hugging
/// Face's: splits are told from folders' names and not from files', and a split's name is never a label.
pub struct ImageFolder {
    name: String,
    store: Store,
    alpha: Alpha,
    entries: Vec<Entry>,
    class_names: Option<Vec<String>>,
    /// The column that captions are in, where one was asked for.
    caption_column: Option<String>,
    left_out: Vec<String>,
    /// What its files are called, one and several.
    words: (&'static str, &'static str),
}

#[derive(Clone, Debug)]
struct Entry {
    /// Relative to the folder or archive.
    path: PathBuf,
    class: Option<usize>,
    caption: Option<String>,
    /// The file that the caption is in, where no metadata has one; as `path`.
    caption_file: Option<PathBuf>,
    /// As `path`.
    conditioning: Option<PathBuf>,
    attributes: Vec<bool>,
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
        let mut listing = store.list()?;
        options.medium.choose(store.root(), &mut listing)?;
        Self::of(store, listing, options)
    }

    /// Looks through a zip archive in the same way. Nothing of it is unpacked to disk.
    ///
    /// # Errors
    /// As [`ImageFolder::open`], and if the file is no zip archive.
    pub fn open_zip(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let store = Store::Zip(ZipFiles::open(path.as_ref())?);
        let mut listing = store.list()?;
        options.medium.choose(store.root(), &mut listing)?;
        Self::of(store, listing, options)
    }

    /// Looks through a tar archive in the same way; files beside a picture that are called as it may be its caption, its class and other
    /// pictures, as WebDataset has them.
    ///
    /// # Errors
    /// As [`ImageFolder::open`], and if the file is no tar archive.
    pub fn open_tar(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let store = Store::Tar(TarFiles::open(path.as_ref())?);
        let mut listing = store.list()?;
        options.medium.choose(store.root(), &mut listing)?;
        Self::of(store, listing, options)
    }

    /// The same of several archives in a folder.
    pub(super) fn of_shards(folder: &Path, shards: &[PathBuf], options: &OpenOptions) -> Result<Self> {
        let store = Store::Tar(TarFiles::in_folder(folder, shards)?);
        let mut listing = store.list()?;
        options.medium.choose(store.root(), &mut listing)?;
        Self::of(store, listing, options)
    }

    /// One sound's file in a folder.
    pub(super) fn of_sound(root: &Path, name: &Path) -> Result<Self> {
        let entry = Entry {
            path: name.to_path_buf(),
            class: None,
            caption: None,
            caption_file: None,
            conditioning: None,
            attributes: Vec::new(),
        };
        Ok(Self {
            name: name
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            store: Store::folder(root)?,
            alpha: Alpha::default(),
            entries: vec![entry],
            class_names: None,
            caption_column: None,
            left_out: Vec::new(),
            words: ("sound", "sounds"),
        })
    }

    /// The pictures of a folder or archive, which has been looked through.
    pub(super) fn of(store: Store, listing: Listing, options: &OpenOptions) -> Result<Self> {
        let tables = tables(&store, &listing, options)?;
        let by_metadata = !tables.is_empty();
        let wanted = (!listing.is_split).then(|| split::canonical(&options.split));
        let mut left_out = Vec::new();
        let (mut entries, class_names) = if by_metadata {
            from_metadata(&store, &listing, tables, wanted, &mut left_out)?
        } else if store.has_columns() {
            from_columns(&store, &listing, options, &mut left_out)?
        } else {
            no_column(store.root().display(), options)?;
            from_folders(&store, listing.pictures.clone(), wanted, &mut left_out)?
        };
        // A table's column that was asked for is all that counts.
        let beside = !by_metadata || options.caption_column.is_none();
        for entry in entries
            .iter_mut()
            .filter(|entry| beside && entry.caption.is_none())
        {
            entry.caption_file = match store.has_columns() {
                true => columns::caption_beside(&store, &entry.path, options.caption_column.as_deref()),
                false => listing.text_beside(&entry.path),
            };
        }
        if listing.unnamed > 0 {
            left_out.push(format!(
                "README.md names other files for this split and configuration: {} left out",
                listing.unnamed
            ));
        }
        let captions = entries
            .iter()
            .filter_map(|entry| entry.caption_file.as_deref())
            .collect();
        let passed_over =
            listing.passed_over(&captions, |path| store.has_columns() && columns::is_read(path));
        left_out.extend(passed_over.sentence());
        if entries.is_empty() {
            let (one, _) = options.medium.words();
            let what = if by_metadata {
                format!("no {one} in its metadata")
            } else {
                format!("no {one}")
            };
            let endings = match &options.medium {
                Medium::Sounds(_) => sound::EXTENSIONS.join(", "),
                _ => EXTENSIONS.join(", "),
            };
            let there = match passed_over.list() {
                list if list.is_empty() => "it is empty".to_string(),
                list => format!("there are {list}"),
            };
            let unpack = match ARCHIVES.iter().any(|ending| passed_over.count(ending) > 0) {
                true => "; a zip or tar archive is named itself, and any other unpacked first",
                false => "",
            };
            return Err(Error::file(
                store.root(),
                format!("holds {what} (looked for {endings} at any depth); {there}{unpack}"),
            ));
        }
        Ok(Self {
            left_out,
            name: store.name(),
            store,
            alpha: options.alpha,
            entries,
            class_names,
            caption_column: options.caption_column.clone(),
            words: options.medium.words(),
        })
    }

    /// The sound at `index`, to be read in parts.
    pub(super) fn sound(&self, index: usize, rate: u32) -> Result<SoundReader> {
        let path = &self.entry(index)?.path;
        let whole = self.store.whole(path);
        match &self.store {
            Store::Folder(..) => SoundReader::open(whole, Some(rate)),
            _ => {
                let bytes = Bytes(self.store.read(path)?.into());
                SoundReader::of_bytes(&whole, bytes, Some(rate))
            }
        }
    }

    /// What is known of the file at `index`, with its picture.
    pub(super) fn described(&self, index: usize, picture: Picture) -> Result<Example> {
        let entry = self.entry(index)?;
        let conditioning = entry.conditioning.as_deref();
        Ok(Example {
            picture,
            class: entry.class,
            caption: self.caption(entry)?,
            conditioning: conditioning.map(|path| self.decode(path)).transpose()?,
            attributes: entry.attributes.clone(),
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

    fn caption(&self, entry: &Entry) -> Result<Option<String>> {
        let Some(file) = &entry.caption_file else {
            return Ok(entry.caption.clone());
        };
        if file.extension().is_some_and(|ending| ending == "json") {
            return columns::caption_in(&self.store, file, self.caption_column.as_deref());
        }
        let text = self.store.read_text(file)?;
        Ok(Some(text.trim().to_string()).filter(|text| !text.is_empty()))
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
        let picture = self.decode(&self.entry(index)?.path)?;
        self.described(index, picture)
    }

    fn caption(&self, index: usize) -> Result<Option<String>> {
        ImageFolder::caption(self, self.entry(index)?)
    }

    fn size(&self, index: usize) -> Result<[usize; 2]> {
        let path = &self.entry(index)?.path;
        let whole = self.store.whole(path);
        let size = match self.store {
            // Without reading the rest of it.
            Store::Folder(..) if whole.is_file() => {
                let file = files::open(&whole)?;
                decode::size(std::io::BufReader::new(file))
            }
            _ => decode::size(std::io::Cursor::new(self.store.read(path)?)),
        };
        size.map_err(|message| Error::file(whole, message))
    }

    fn folder(&self, index: usize) -> Option<String> {
        let folder = self.entries.get(index)?.path.parent()?.file_name();
        Some(folder.map_or_else(
            || self.name.clone(),
            |folder| folder.to_string_lossy().into_owned(),
        ))
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn left_out(&self) -> Vec<String> {
        self.left_out.clone()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut taking = Fingerprinting::default();
        for entry in &self.entries {
            for path in std::iter::once(&entry.path).chain(&entry.conditioning) {
                let (size, more) = self.store.size(path)?;
                taking.file(&sort_key(path), size, &more);
            }
            taking.class(entry.class);
            taking.caption(self.caption(entry)?.as_deref());
        }
        Ok(taking.finish(self.len(), self.class_names()))
    }

    fn description(&self) -> String {
        let (what, place) = match self.store {
            Store::Folder(..) => ("folder", ""),
            Store::Zip(_) => ("zip archive", ""),
            Store::Tar(ref tar) if tar.is_sharded() => ("tar archives", " in"),
            Store::Tar(_) => ("tar archive", ""),
        };
        let (_, several) = self.words;
        format!("{what} of {several}{place} {}", self.store.root().display())
    }
}

/// The endings of archives, of which a folder holds no pictures until they are unpacked.
const ARCHIVES: [&str; 9] = ["zip", "tar", "gz", "tgz", "7z", "rar", "xz", "bz2", "zst"];

type Found = (Vec<Entry>, Option<Vec<String>>);

/// Pictures with the labels that their folders' names give.
fn from_folders(
    store: &Store,
    pictures: Vec<PathBuf>,
    wanted: Option<&str>,
    left_out: &mut Vec<String>,
) -> Result<Found> {
    let label = |path: &Path| match path
        .parent()
        .filter(|folder| store.is_own_folder(folder))
        .and_then(Path::file_name)
    {
        Some(folder) => folder.to_string_lossy().into_owned(),
        None => folder_name(store.root()),
    };
    let names: BTreeSet<String> = pictures.iter().map(|path| label(path)).collect();
    let depths: HashSet<usize> = pictures.iter().map(|path| path.components().count()).collect();
    let kept = part(store, pictures, |path| path, wanted, left_out)?;
    let in_split = |path: &PathBuf| {
        let folder = path
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        folder
            .and_then(split::meant_by)
            .is_some_and(|split| wanted.is_none_or(|wanted| split == wanted))
    };
    let classes: Option<Vec<String>> = (names.len() > 1 && depths.len() == 1 && !kept.iter().all(in_split))
        .then(|| names.iter().cloned().collect());
    if names.len() > 1 && depths.len() > 1 {
        left_out.push(
            "the pictures lie at different depths, so the names of their folders are no classes".into(),
        );
    }
    let names = classes;
    let entry = |path: PathBuf| Entry {
        class: names
            .as_ref()
            .and_then(|names| names.binary_search(&label(&path)).ok()),
        path,
        caption: None,
        caption_file: None,
        conditioning: None,
        attributes: Vec::new(),
    };
    Ok((kept.into_iter().map(entry).collect(), names))
}

/// Pictures of tar archives with what stands beside them.
fn from_columns(
    store: &Store,
    listing: &Listing,
    options: &OpenOptions,
    left_out: &mut Vec<String>,
) -> Result<Found> {
    no_attributes(store.root().display(), options)?;
    let column = options.conditioning_column.as_deref();
    let wanted = (!listing.is_split).then(|| split::canonical(&options.split));
    let kept = part(store, listing.pictures.clone(), |path| path, wanted, left_out)?;
    let Columns {
        pictures,
        conditioning,
        classes,
        unused,
    } = Columns::of(store, kept, column)?;
    left_out.extend(left_out::columns("columns that are", &unused));
    let (mut entries, mut names) = match classes {
        None => from_folders(store, pictures, wanted, &mut Vec::new())?,
        Some((classes, names)) => {
            let entry = |(path, class): (PathBuf, usize)| Entry {
                path,
                class: Some(class),
                caption: None,
                caption_file: None,
                conditioning: None,
                attributes: Vec::new(),
            };
            (
                pictures.into_iter().zip(classes).map(entry).collect(),
                Some(names),
            )
        }
    };
    for (entry, conditioning) in entries.iter_mut().zip(conditioning.into_iter().flatten()) {
        entry.conditioning = Some(conditioning);
    }
    names = names.filter(|names| !names.is_empty());
    Ok((entries, names))
}

/// A line of a metadata file, with its files relative to the folder or archive.
struct Line {
    picture: PathBuf,
    conditioning: Option<PathBuf>,
    row: Row,
}

/// A metadata file and its rows.
type Table<'a> = (&'a PathBuf, Rows);

/// The metadata files with what they say.
fn tables<'a>(store: &Store, listing: &'a Listing, options: &OpenOptions) -> Result<Vec<Table<'a>>> {
    let mut tables: Vec<Table> = Vec::new();
    let is_json = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "json");
    // JSON last, which counts where there is nothing else.
    let (json, others): (Vec<_>, Vec<_>) = listing.metadata.iter().partition(|file| is_json(file));
    for file in others.into_iter().chain(json) {
        let whole = store.whole(file);
        if file.extension().is_some_and(|ending| ending == "parquet") {
            let message =
                "is metadata as parquet, where metadata.jsonl or metadata.csv is read beside pictures";
            return Err(Error::file(whole, message));
        }
        if tables.iter().any(|(known, _)| known.parent() == file.parent()) {
            if is_json(file) {
                tracing::warn!(
                    "{}: is not used, as there is other metadata beside it",
                    whole.display()
                );
                continue;
            }
            let message = "holds both metadata.csv and metadata.jsonl: keep one";
            return Err(Error::file(
                store.whole(file.parent().unwrap_or(Path::new(""))),
                message,
            ));
        }
        match metadata::rows(&whole, store.open(file)?, options)? {
            Some(rows) => tables.push((file, rows)),
            None => tracing::warn!(
                "{}: is not used: metadata of pictures would be a list of objects with `file_name`, or an object by their names",
                whole.display()
            ),
        }
    }
    tables.sort_by_key(|(file, _)| sort_key(file));
    Ok(tables)
}

/// Pictures that metadata files list, with their captions and labels.
fn from_metadata(
    store: &Store,
    listing: &Listing,
    tables: Vec<Table>,
    wanted: Option<&str>,
    left_out: &mut Vec<String>,
) -> Result<Found> {
    let listed: HashSet<&PathBuf> = listing.pictures.iter().collect();
    let mut names: Option<(PathBuf, Vec<String>)> = None;
    let mut rows: Vec<(PathBuf, Line)> = Vec::new();
    let mut unused = BTreeSet::new();
    for (file, table) in tables {
        let whole = store.whole(file);
        let folder = file.parent().unwrap_or(Path::new(""));
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
        unused.extend(table.unused);
        for row in table.rows {
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
    let named: HashSet<&PathBuf> = rows
        .iter()
        .flat_map(|(_, line)| std::iter::once(&line.picture).chain(&line.conditioning))
        .collect();
    match listed.iter().filter(|picture| !named.contains(*picture)).count() {
        0 => {}
        count => left_out.push(format!(
            "{} {} in the folder and not in the metadata, so left out",
            left_out::pictures(count),
            if count == 1 { "is" } else { "are" }
        )),
    }
    left_out.extend(left_out::columns("fields of the metadata that are", &unused));
    let rows = part(store, rows, |(_, line)| &line.picture, wanted, left_out)?;
    let lines: Vec<(&Path, &Row)> = rows
        .iter()
        .map(|(path, line)| (path.as_path(), &line.row))
        .collect();
    let (classes, names) = metadata::resolve_labels(&lines, names.map(|(_, names)| names))?.unzip();
    let entry = |(index, (_, line)): (usize, (PathBuf, Line))| Entry {
        path: line.picture,
        class: classes.as_ref().map(|classes| classes[index]),
        caption: line.row.caption,
        caption_file: None,
        conditioning: line.conditioning,
        attributes: line.row.attributes,
    };
    Ok((rows.into_iter().enumerate().map(entry).collect(), names))
}

/// The folders that are called after a split, the only ones beside several that are not: classes.
fn split_words_among_classes<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let is_split = |folder: &Path| {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.and_then(split::meant_by).is_some()
    };
    let mut beside: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for path in paths {
        for folder in path.ancestors().skip(1) {
            let Some(parent) = folder.parent() else { break };
            if !beside.entry(parent).or_default().insert(folder) {
                break;
            }
        }
    }
    let class = |folders: BTreeSet<&Path>| {
        let (splits, others): (Vec<&Path>, Vec<&Path>) =
            folders.into_iter().partition(|folder| is_split(folder));
        match splits.as_slice() {
            [only] if others.len() > 1 => Some(only.to_path_buf()),
            _ => None,
        }
    };
    beside.into_values().filter_map(class).collect()
}

/// What of `items` lies in a folder that is called after the split `wanted`: all, if that is `train` and no folder is
/// called after a split.
fn part<T>(
    store: &Store,
    items: Vec<T>,
    path: impl Fn(&T) -> &PathBuf,
    wanted: Option<&str>,
    left_out: &mut Vec<String>,
) -> Result<Vec<T>> {
    let Some(wanted) = wanted else { return Ok(items) };
    let classes = split_words_among_classes(items.iter().map(&path));
    for class in &classes {
        tracing::warn!(
            "{}: is taken for a class, as the folders beside it are, and not for a split",
            store.whole(class).display()
        );
    }
    let splits = |item: &T| -> Vec<&'static str> {
        let folders = path(item)
            .ancestors()
            .skip(1)
            .filter(|folder| !classes.contains(*folder));
        folders
            .filter_map(|folder| split::meant_by(folder.file_name()?.to_str()?))
            .collect()
    };
    let there: BTreeSet<&str> = items.iter().flat_map(splits).collect();
    if there.contains(wanted) {
        let (kept, others): (Vec<T>, Vec<T>) =
            items.into_iter().partition(|item| splits(item).contains(&wanted));
        let mut counts = BTreeMap::new();
        for item in &others {
            *counts
                .entry(splits(item).first().copied().unwrap_or(""))
                .or_default() += 1;
        }
        left_out.extend(left_out::splits(wanted, &counts));
        return Ok(kept);
    }
    let none_is_another = wanted == split::TRAIN && items.iter().any(|item| splits(item).is_empty());
    if items.is_empty() || none_is_another {
        if !there.is_empty() {
            let called: Vec<&str> = there.into_iter().collect();
            left_out.push(format!(
                "there is no folder of the split `train`, so those called {} are part of it",
                called.join(", ")
            ));
        }
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
