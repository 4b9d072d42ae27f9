//! The columns of a tar archive's pictures, as WebDataset has them: files that are called as a picture up to their first dot, a column for
//! each ending.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    decode::is_picture_name,
    metadata::{self, CAPTIONS, Label, Row, captions},
    store::Store,
};
use crate::{Error, Result, files};

/// The endings of classes' files.
const CLASS: &str = "cls";
/// The fields of a `.json` that classes are in.
const LABELS: [&str; 2] = ["label", "cls"];
/// More than this of a picture's `.json` are not read.
const MAX_NAMES: usize = 1000;

/// Pictures with what stands beside them.
pub(super) struct Columns {
    /// The pictures, in order.
    pub pictures: Vec<PathBuf>,
    /// Other pictures of the column that is asked for, one for each.
    pub conditioning: Option<Vec<PathBuf>>,
    /// Their classes, if every one has one, and the classes' names.
    pub classes: Option<(Vec<usize>, Vec<String>)>,
    /// The endings, and fields of `.json`, that are not used.
    pub unused: BTreeSet<String>,
}

/// A file's path up to the first dot of its name, and the rest of it in lower case.
fn key(path: &Path) -> (PathBuf, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (key, ending) = name.split_once('.').unwrap_or((&name, ""));
    (path.with_file_name(key), ending.to_lowercase())
}

impl Columns {
    /// What stands beside an archive's pictures, which are sorted. `column` is the ending of the conditioning pictures.
    ///
    /// # Errors
    /// If a picture has none of these, or a class cannot be read.
    pub(super) fn of(store: &Store, pictures: Vec<PathBuf>, column: Option<&str>) -> Result<Self> {
        let plain: HashMap<PathBuf, PathBuf> = pictures
            .iter()
            .filter(|path| !key(path).1.contains('.'))
            .map(|path| (key(path).0, path.clone()))
            .collect();
        let mut unused = BTreeSet::new();
        // `000.seg.png` is a column of `000.jpg`, where that is there; a picture that has dots in its name is one else.
        let pictures: Vec<PathBuf> = pictures
            .into_iter()
            .filter(|path| {
                let (key, ending) = key(path);
                let is_column = plain.get(&key).is_some_and(|first| first != path);
                if is_column && column != Some(&ending) && unused.len() < MAX_NAMES {
                    unused.insert(ending);
                }
                !is_column
            })
            .collect();
        let conditioning = column.map(|column| {
            let beside = |path: &PathBuf| {
                let (key, _) = key(path);
                let name = format!(
                    "{}.{column}",
                    key.file_name().unwrap_or_default().to_string_lossy()
                );
                let beside = key.with_file_name(name);
                match store.has(&beside) {
                    true => Ok(beside),
                    false => Err(Error::file(
                        store.whole(path),
                        format!("has no picture beside it that ends in .{column}"),
                    )),
                }
            };
            pictures.iter().map(beside).collect::<Result<Vec<_>>>()
        });
        let classes = classes(store, &pictures, &mut unused)?;
        Ok(Self {
            pictures,
            conditioning: conditioning.transpose()?,
            classes,
            unused,
        })
    }
}

/// The classes that `.cls` or `.json` files beside the pictures say.
fn classes(
    store: &Store,
    pictures: &[PathBuf],
    unused: &mut BTreeSet<String>,
) -> Result<Option<(Vec<usize>, Vec<String>)>> {
    let Some(first) = pictures.first() else {
        return Ok(None);
    };
    let in_file = pictures.iter().any(|path| store.has(&beside(path, CLASS)));
    let mut in_json = || -> Result<bool> {
        let json = beside(first, "json");
        if !store.has(&json) {
            return Ok(false);
        }
        let fields = fields(store, &json)?;
        let known = |name: &&String| CAPTIONS.contains(&name.as_str()) || LABELS.contains(&name.as_str());
        let others = fields.keys().filter(|name| !known(name)).take(MAX_NAMES);
        unused.extend(others.map(|name| format!("{name} in json")));
        Ok(LABELS.iter().any(|label| fields.contains_key(*label)))
    };
    if !in_file && !in_json()? {
        return Ok(None);
    }
    let mut rows = Vec::with_capacity(pictures.len());
    for (line, path) in (1..).zip(pictures) {
        let label = match in_file {
            true => {
                let file = beside(path, CLASS);
                let text = if store.has(&file) {
                    store.read_text(&file)?
                } else {
                    String::new()
                };
                metadata::label(&text.trim().into())
            }
            false => {
                let file = beside(path, "json");
                let fields = if store.has(&file) {
                    fields(store, &file)?
                } else {
                    BTreeMap::new()
                };
                let value = LABELS.iter().find_map(|label| fields.get(*label));
                value.map_or(Ok(None), metadata::label)
            }
        };
        let label = label.map_err(|message| Error::file(store.whole(path), message))?;
        // A class in a file is text, which a number is written as.
        let label = label.map(|label| match label {
            Label::Name(name) => name.parse().map_or(Label::Name(name), Label::Index),
            number => number,
        });
        rows.push(Row {
            line,
            file_name: String::new(),
            caption: None,
            label,
            conditioning: None,
            attributes: Vec::new(),
        });
    }
    let known = |label: &Label| !matches!(label, Label::Index(-1)) && *label != Label::Name(String::new());
    rows.iter_mut()
        .for_each(|row| row.label = row.label.take().filter(known));
    let names = Path::new("labels.json");
    let whole = store.whole(names);
    let names = match (store.has(names), whole.is_file()) {
        (true, _) => Some(metadata::names(&whole, &store.read_text(names)?)?),
        // Beside several archives.
        (false, true) => Some(metadata::names(&whole, &files::read_text(&whole)?)?),
        (false, false) => None,
    };
    let whole: Vec<PathBuf> = pictures.iter().map(|path| store.whole(path)).collect();
    let rows: Vec<(&Path, &Row)> = whole.iter().map(PathBuf::as_path).zip(&rows).collect();
    metadata::resolve_labels(&rows, names)
}

/// What a picture's column of texts is called.
fn beside(picture: &Path, ending: &str) -> PathBuf {
    picture.with_extension(ending)
}

/// The caption's file of a picture: `.txt` before `.json`, if there is one; of a column that is asked for its own, or the `.json` that it is a field
/// of.
pub(super) fn caption_beside(store: &Store, picture: &Path, column: Option<&str>) -> Option<PathBuf> {
    ["txt", "json"]
        .iter()
        .filter(|ending| column.is_none_or(|column| (column == "txt") == (**ending == "txt")))
        .map(|ending| beside(picture, ending))
        .find(|path| store.has(path))
}

/// Whether an ending is one of a column that is read.
pub(super) fn is_read(path: &Path) -> bool {
    is_picture_name(path)
        || path
            .extension()
            .is_some_and(|ending| [CLASS, "json", "txt"].iter().any(|known| ending == *known))
}

/// The caption in a picture's `.json`, in the column that is asked for.
///
/// # Errors
/// If it is no JSON object, or has no such column.
pub(super) fn caption_in(store: &Store, json: &Path, column: Option<&str>) -> Result<Option<String>> {
    let fields = fields(store, json)?;
    if let Some(column) = column
        && !fields.contains_key(column)
    {
        return Err(Error::file(store.whole(json), format!("has no `{column}`")));
    }
    let caption = captions(column).find_map(|name| fields.get(name)?.as_str());
    Ok(caption.map(String::from))
}

fn fields(store: &Store, json: &Path) -> Result<BTreeMap<String, Value>> {
    let text = store.read_text(json)?;
    metadata::from_json(&text)
        .map_err(|e| Error::file(store.whole(json), format!("is not a JSON object: {e}")))
}
