//! Parquet files as the Hugging Face Hub keeps data sets in them.

mod card;
mod columns;
mod delta;
mod held;
pub(super) mod layout;
mod pages;
mod rows;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use self::{
    card::Card,
    held::Held,
    rows::{Label, ParquetFile, Row, text},
};
use super::{
    Dataset, Example, Fingerprint, Group, Hear, Medium, OpenOptions, Picture, attribute,
    contain::contain,
    decode,
    fingerprint::Fingerprinting,
    left_out,
    medium::heard,
    out_of_range,
    paths::{folder_name, is_file_beside},
    sound::{Bytes, SoundReader},
    split,
    store::Store,
};
use crate::{Error, Result, files, random::Generator};

/// The most bytes that the README of a repository may have.
const MAX_CARD: u64 = 4 << 20;
/// More classes than this are only believed if the file names them.
const MAX_UNNAMED_CLASSES: i64 = 65_536;

/// Pictures in parquet files, as the Hub keeps them: a column of structs of `bytes` and `path` (or of bytes alone),
/// captions in `text`, `caption` or `prompt`, classes in `label`, their names in the metadata that `datasets` leaves in the file.
///
/// Row groups are read when one of their pictures is asked for, and no more of them are kept than take 512 MiB, or two,
/// so that a set may be larger than memory.
pub struct ParquetDataset {
    name: String,
    description: String,
    files: Vec<PathBuf>,
    /// The row groups in order, and where each is: its file, and its number there.
    groups: Vec<Group>,
    places: Vec<(usize, usize)>,
    class_names: Option<Vec<String>>,
    left_out: Vec<String>,
    /// Which columns are asked for, and what becomes of transparency.
    options: OpenOptions,
    held: Mutex<Held<Vec<Row>>>,
}

impl ParquetDataset {
    /// Opens one file.
    ///
    /// # Errors
    /// [`Error::File`] if it is no parquet file, is damaged, or has no column of pictures.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let name = path
            .file_stem()
            .map_or_else(|| "pictures".into(), |name| name.to_string_lossy().into_owned());
        let description = format!("parquet file {}", path.display());
        Self::of(name, description, vec![path.to_path_buf()], options)
    }

    /// Opens a repository of the Hub, downloaded into a folder: the files of the split that is asked for, as
    /// `data/SPLIT-*.parquet`, as `CONFIG/SPLIT-*.parquet`, or as the card in its README.md names them.
    ///
    /// # Errors
    /// As [`ParquetDataset::open`], and if there is no such configuration or split; the error says which there are.
    pub fn open_folder(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let files = Store::folder(folder)?.list()?.parquet;
        Self::of_repository(folder, files, options)
    }

    /// Opens a repository of which the parquet files are known, relative to it.
    pub(super) fn of_repository(folder: &Path, files: Vec<PathBuf>, options: &OpenOptions) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::file(folder, "holds no parquet file (looked at any depth)"));
        }
        let chosen = layout::choose(
            &files,
            read_card(folder)?,
            options.config.as_deref(),
            &options.split,
        )
        .map_err(|message| Error::file(folder, message))?;
        let config = chosen
            .config
            .map_or_else(String::new, |config| format!(", configuration {config}"));
        let description = format!(
            "parquet files in {}{config}, split {}",
            folder.display(),
            options.split
        );
        let others = files.len() - chosen.files.len();
        let files = chosen.files.iter().map(|file| folder.join(file)).collect();
        let mut data = Self::of(folder_name(folder), description, files, options)?;
        if others > 0 {
            let of = "of other splits or configurations, and left out";
            data.left_out.push(match others {
                1 => format!("1 parquet file is {of}"),
                _ => format!("{others} parquet files are {of}"),
            });
        }
        Ok(data)
    }

    fn of(name: String, description: String, files: Vec<PathBuf>, options: &OpenOptions) -> Result<Self> {
        let (mut groups, mut places) = (Vec::new(), Vec::new());
        let mut classes = Classes::default();
        let mut count = 0;
        let mut unused = BTreeSet::new();
        for (number, path) in files.iter().enumerate() {
            let wrong = |message: String| Error::file(path, message);
            let file = ParquetFile::open(path, options).map_err(wrong)?;
            for left_out in &file.left_out {
                tracing::warn!("{}: {left_out}", path.display());
            }
            for (place, info) in file.groups().map_err(wrong)?.into_iter().enumerate() {
                if info.rows == 0 {
                    continue;
                }
                groups.push(Group {
                    pictures: count..count + info.rows,
                    bytes: info.bytes,
                });
                places.push((number, place));
                count += info.rows;
            }
            unused.extend(file.unused());
            classes.add(&file).map_err(wrong)?;
        }
        if count == 0 {
            let first = files.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
            return Err(Error::file(first, "holds no picture: it has no rows"));
        }
        Ok(Self {
            name,
            description,
            files,
            groups,
            places,
            class_names: classes.names(),
            left_out: left_out::columns("columns that are", &unused)
                .into_iter()
                .collect(),
            options: options.clone(),
            held: Mutex::default(),
        })
    }

    /// The rows of a row group, from memory if they are there.
    fn rows(&self, group: usize) -> Result<Arc<Vec<Row>>> {
        let (file, place) = self.places[group];
        let path = &self.files[file];
        let read = || {
            let rows = ParquetFile::open(path, &self.options)?.rows(place)?;
            if rows.len() == self.groups[group].pictures.len() {
                Ok(rows)
            } else {
                Err("has changed since it was opened".to_string())
            }
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(group, self.groups[group].bytes, read)
            .map_err(|message| Error::file(path, message))
    }

    /// What a row shows and says. Errors are the part of a sentence that follows the row's name.
    fn class_of(&self, row: &Row) -> Result<Option<usize>, String> {
        Ok(match (&self.class_names, &row.label) {
            // `datasets` writes -1 where a class is not known.
            (None, _) | (_, None | Some(Label::Index(-1))) => None,
            (Some(names), Some(Label::Index(index))) => Some(
                usize::try_from(*index)
                    .ok()
                    .filter(|&index| index < names.len())
                    .ok_or_else(|| format!("has the class {index}, and there are {}", names.len()))?,
            ),
            (Some(names), Some(Label::Name(name))) => Some(
                names
                    .binary_search(&text(name))
                    .map_err(|_| format!("has the class {}, which was not there before", text(name)))?,
            ),
        })
    }

    fn example(&self, row: &Row, generator: Option<&mut Generator>) -> Result<Example, String> {
        let class = self.class_of(row)?;
        let (one, _) = self.options.medium.words();
        let bytes = row.bytes.as_ref().ok_or_else(|| format!("holds no {one}"))?;
        let picture = match &self.options.medium {
            Medium::Sounds(hear) => hear_row(hear.as_ref(), row, bytes.data(), generator)?,
            _ => decode::decode(bytes.data(), self.options.alpha)?,
        };
        let conditioning = match (&self.options.conditioning_column, &row.conditioning) {
            (None, _) => None,
            (Some(column), None) => return Err(format!("holds no picture in `{column}`")),
            (Some(_), Some(bytes)) => Some(decode::decode(bytes.data(), self.options.alpha)?),
        };
        Ok(Example {
            picture,
            class,
            caption: row.caption.as_ref().map(text),
            conditioning,
            attributes: self.attributes(row)?,
        })
    }

    fn attributes(&self, row: &Row) -> Result<Vec<bool>, String> {
        let columns = self.options.attribute_columns.iter().zip(&row.attributes);
        columns
            .map(|(column, number)| {
                let has = number.and_then(attribute::of_number);
                has.ok_or_else(|| attribute::wrong(column, number.map(|number| number.to_string())))
            })
            .collect()
    }

    /// What `read` takes from a row; its errors are told with the row's place.
    fn of_row<T>(&self, index: usize, read: impl FnOnce(&Row) -> Result<T, String>) -> Result<T> {
        let group = self.groups.partition_point(|group| group.pictures.end <= index);
        let Some(Group { pictures, .. }) = self.groups.get(group) else {
            return Err(out_of_range(&self.name, index, self.len()));
        };
        let rows = self.rows(group)?;
        let row = &rows[index - pictures.start];
        contain(|| read(row)).map_err(|message| {
            let (file, _) = self.places[group];
            let first_of_file = self.places.partition_point(|&(other, _)| other < file);
            let number = index - self.groups[first_of_file].pictures.start;
            let called = contain(|| Ok(row.path.as_ref().map(text)))
                .ok()
                .flatten()
                .map_or_else(String::new, |path| format!(" ({path})"));
            Error::file(&self.files[file], format!("row {number}{called} {message}"))
        })
    }
}

impl Dataset for ParquetDataset {
    fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.pictures.end)
    }

    fn get(&self, index: usize) -> Result<Example> {
        self.of_row(index, |row| self.example(row, None))
    }

    fn cut(&self, index: usize, generator: &mut Generator) -> Option<Result<Example>> {
        let heard = matches!(self.options.medium, Medium::Sounds(_));
        heard.then(|| self.of_row(index, |row| self.example(row, Some(generator))))
    }

    fn class(&self, index: usize) -> Result<Option<usize>> {
        self.of_row(index, |row| self.class_of(row))
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn groups(&self) -> Option<&[Group]> {
        Some(&self.groups)
    }

    fn left_out(&self) -> Vec<String> {
        self.left_out.clone()
    }

    /// Of the files' footers, which say where each column's values lie and how many bytes they take.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut taking = Fingerprinting::default();
        for path in &self.files {
            let (size, footer) = footer(path).map_err(|e| Error::io("read", path, e))?;
            let name = path.file_name().unwrap_or_default();
            taking.file(&name.to_string_lossy(), size, &footer);
        }
        Ok(taking.finish(self.len(), self.class_names()))
    }
}

/// The picture of a row's sound: of its first slice, or of a stretch anywhere in it.
fn hear_row(
    hear: &dyn Hear,
    row: &Row,
    bytes: &[u8],
    generator: Option<&mut Generator>,
) -> Result<Picture, String> {
    // What it is, its bytes say; the name helps where they do not.
    let name = row.path.as_ref().map_or_else(|| "sound".into(), text);
    let name = Path::new(&name);
    let mut reader =
        SoundReader::of_bytes(name, Bytes(bytes.into()), Some(hear.rate())).map_err(|e| inner(&e))?;
    heard(hear, &mut reader, 0, generator, name).map_err(|e| inner(&e))
}

/// What is wrong with a row's sound, without the name that it has there.
fn inner(error: &Error) -> String {
    match error {
        Error::File { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// A parquet file's size and the end of it, which describes all of its columns.
fn footer(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    /// Of files with very many row groups, the last ones' descriptions are enough beside the size.
    const MOST: u64 = 1 << 20;
    /// The footer's length, and the four letters that files end with.
    const LENGTH: u64 = 8;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut end = [0; LENGTH as usize];
    file.seek(SeekFrom::Start(size.saturating_sub(LENGTH)))?;
    file.read_exact(&mut end)?;
    let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    let from = size.saturating_sub(LENGTH + length.min(MOST));
    file.seek(SeekFrom::Start(from))?;
    let mut footer = Vec::new();
    file.take(MOST + LENGTH).read_to_end(&mut footer)?;
    Ok((size, footer))
}

/// The files of a repository that hold what is asked for, of all its parquet files, which are sorted, and with the text of its card.
///
/// # Errors
/// The part of a sentence that follows the repository's name, if there is no such configuration or split, or the card is broken.
pub(super) fn files_of(
    files: &[PathBuf],
    card: Option<&str>,
    options: &OpenOptions,
) -> Result<Vec<PathBuf>, String> {
    let card =
        Card::parse(card.unwrap_or_default()).map_err(|message| format!("has a README.md that {message}"))?;
    layout::choose(files, card, options.config.as_deref(), &options.split).map(|chosen| chosen.files)
}

/// What a repository's card says of files that are not parquet, with the text of the card; as [`layout::named`].
pub(super) fn named_by(
    files: &[PathBuf],
    card: &str,
    options: &OpenOptions,
) -> Result<Option<layout::Named>, String> {
    let Ok(card) = Card::parse(card) else {
        // Of pictures, a card need not say anything.
        return Ok(None);
    };
    layout::named(files, card, options.config.as_deref(), &options.split)
}

fn read_card(folder: &Path) -> Result<Card> {
    let path = folder.join("README.md");
    match std::fs::metadata(&path) {
        Ok(metadata) if is_file_beside(&path) && metadata.len() <= MAX_CARD => {
            Card::parse(&files::read_text(&path)?).map_err(|message| Error::file(path, message))
        }
        _ => Ok(Card::default()),
    }
}

/// The classes that files have together.
#[derive(Default)]
struct Classes {
    /// As the files name them.
    named: Option<Vec<String>>,
    /// Whether any row has one of those.
    is_labelled: bool,
    /// The highest number, and all names, in files that do not name them.
    last: Option<i64>,
    found: BTreeSet<String>,
}

/// Whether any row of a file has a class: those of a split that nobody labelled have -1 in that column. A broken column is named when a
/// row of it is read.
fn is_labelled(file: &ParquetFile) -> bool {
    let is_known = |label: &Label| !matches!(label, Label::Index(-1));
    let has_known = |group| {
        file.labels(group)
            .map_or(true, |labels| labels.iter().flatten().any(is_known))
    };
    let groups = file.groups().map_or(0, |groups| groups.len());
    (0..groups).any(has_known)
}

impl Classes {
    /// Looks at a file's classes: at their names if it says them, else at every row's.
    fn add(&mut self, file: &ParquetFile) -> Result<(), String> {
        if let Some(names) = &file.columns.class_names {
            return match &self.named {
                Some(known) if known != names => Err("names other classes than the files before it".into()),
                _ => {
                    self.named = Some(names.clone());
                    self.is_labelled = self.is_labelled || is_labelled(file);
                    Ok(())
                }
            };
        }
        for group in 0..file.groups()?.len() {
            for label in file.labels(group)?.into_iter().flatten() {
                match label {
                    Label::Index(index) => self.last = self.last.max(Some(index)),
                    Label::Name(name) => {
                        let name = contain(|| Ok(text(&name)))?;
                        self.found.insert(name);
                    }
                }
            }
        }
        if self.last > Some(MAX_UNNAMED_CLASSES) {
            return Err(format!(
                "has classes up to {}, which are too many to be classes without names",
                self.last.unwrap_or_default()
            ));
        }
        Ok(())
    }

    fn names(self) -> Option<Vec<String>> {
        if self.named.is_some() {
            return self.named.filter(|_| self.is_labelled);
        }
        let numbered = || {
            Some(
                (0..=self.last.filter(|last| *last >= 0)?)
                    .map(|class| class.to_string())
                    .collect(),
            )
        };
        if self.found.is_empty() {
            numbered()
        } else {
            Some(self.found.into_iter().collect())
        }
    }
}

#[cfg(test)]
mod tests;
