//! `metadata.jsonl`, `metadata.csv` and `metadata.json`: captions and labels beside the pictures, as Hugging Face's ImageFolder and
//! those who write such files by hand have them; and `labels.json`, which names the classes.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    fmt,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
};

use serde_json::{Map, Value};

use super::{OpenOptions, attribute};
use crate::{Error, Result};

/// The column that names a picture, relative to the metadata file.
const FILE_NAME: &str = "file_name";
/// The columns of captions, the preferred first: as diffusers' scripts, and as others call them.
pub(super) const CAPTIONS: [&str; 3] = ["text", "caption", "prompt"];
/// The column of classes.
const LABEL: &str = "label";
/// The label that `datasets` writes where a class is not known.
const UNKNOWN: i64 = -1;
/// More classes than this are only believed if `labels.json` names them.
const MAX_UNNAMED_CLASSES: usize = 65_536;
/// The most bytes of a line, or of a record of several lines.
const MAX_RECORD: usize = 16 << 20;
/// The most fields that are named as not used.
const MAX_NAMES: usize = 1000;
/// The most bytes of a file that is read as a whole.
const MAX_WHOLE: u64 = 64 << 20;

/// A class, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// An index into the names.
    Index(i64),
    /// A name.
    Name(String),
}

/// One line of a metadata file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it stands, counted from 1; in `metadata.json`, which of the entries it is.
    pub line: u64,
    /// The picture, relative to the metadata file.
    pub file_name: String,
    /// Its caption.
    pub caption: Option<String>,
    /// Its class, where it is known.
    pub label: Option<Label>,
    /// The picture in the column of conditioning pictures, relative to the metadata file.
    pub conditioning: Option<String>,
    /// Whether it has each attribute that is asked for.
    pub attributes: Vec<bool>,
}

/// What a metadata file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// A row for each picture.
    pub rows: Vec<Row>,
    /// The names of the fields that are not read.
    pub unused: BTreeSet<String>,
}

/// A row's number and what is wrong with it, as the end of a sentence.
type Wrong = (u64, String);

/// The columns that are asked for besides those that are always read.
#[derive(Clone, Debug, Default)]
struct Asked<'a> {
    /// Pictures, as Hugging Face's ImageFolder reads them: their names stand in `COLUMN_file_name`.
    conditioning: Option<String>,
    caption: Option<&'a str>,
    attributes: &'a [String],
}

/// The columns that captions may be in: the one that is asked for, or the usual ones, of which the first counts.
pub(super) fn captions(asked: Option<&str>) -> impl Iterator<Item = &str> {
    let usual = CAPTIONS.into_iter().filter(move |_| asked.is_none());
    asked.into_iter().chain(usual)
}

/// What the file `path` says, by its ending: `.jsonl`, `.json`, or else `.csv`. `None` where it is JSON, but not of pictures.
///
/// # Errors
/// [`Error::File`] with the line that is wrong.
pub(super) fn rows(path: &Path, source: impl Read, options: &OpenOptions) -> Result<Option<Rows>> {
    let conditioning = options.conditioning_column.as_ref();
    let asked = Asked {
        conditioning: conditioning.map(|column| format!("{column}_{FILE_NAME}")),
        caption: options.caption_column.as_deref(),
        attributes: &options.attribute_columns,
    };
    let rows = match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl") => parse_jsonl(source, &asked).map(Some),
        Some("json") => parse_json(path, source, &asked)?,
        _ => parse_csv(source, &asked).map(Some),
    };
    rows.map_err(|(line, message)| Error::file(path, format!("line {line} {message}")))
}

/// The lines of a text, without what ends them and without a byte order mark before the first.
struct Lines<R> {
    reader: R,
    /// How many lines were read.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader, number: 0 }
    }

    fn next(&mut self) -> Result<Option<String>, Wrong> {
        let mut bytes = Vec::new();
        let most = MAX_RECORD as u64 + 1;
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut bytes);
        let number = self.number + 1;
        if read.map_err(|e| (number, format!("cannot be read: {e}")))? == 0 {
            return Ok(None);
        }
        self.number = number;
        if bytes.len() > MAX_RECORD {
            return Err((number, too_long()));
        }
        for end in [b'\n', b'\r'] {
            bytes.pop_if(|byte| *byte == end);
        }
        let line = String::from_utf8(bytes).map_err(|_| (number, "is not text in UTF-8".into()))?;
        Ok(Some(match line.strip_prefix('\u{FEFF}') {
            Some(rest) if number == 1 => rest.to_string(),
            _ => line,
        }))
    }
}

fn too_long() -> String {
    format!("is longer than the {} MiB that a line may be", MAX_RECORD >> 20)
}

/// One JSON object a line; blank lines are skipped.
fn parse_jsonl(source: impl Read, asked: &Asked<'_>) -> Result<Rows, Wrong> {
    let mut lines = Lines::new(BufReader::new(source));
    let mut rows = Rows::default();
    while let Some(line) = lines.next()? {
        if !line.trim().is_empty() {
            from_json(&line)
                .map_err(|e| format!("is not a JSON object: {e}"))
                .and_then(|fields| rows.add(&fields, lines.number, asked))
                .map_err(|message| (lines.number, message))?;
        }
    }
    Ok(rows)
}

/// JSON as Python writes it: numbers that are none are taken for nothing.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| {
        if ["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
            serde_json::from_str(&without_nan(text)).map_err(|_| error)
        } else {
            Err(error)
        }
    })
}

/// A text of JSON with `null` for `NaN`, `Infinity` and `-Infinity`, where these are no part of a string.
fn without_nan(text: &str) -> String {
    let mut rest = text;
    let mut with_null = String::with_capacity(text.len());
    let (mut in_string, mut is_escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            with_null.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        in_string ^= c == '"' && !is_escaped;
        is_escaped = in_string && c == '\\' && !is_escaped;
        with_null.push(c);
        rest = &rest[c.len_utf8()..];
    }
    with_null
}

/// A list of objects, or an object from the names of files to captions, or to objects; `None` where it is neither, as JSON of that name
/// may be about anything.
///
/// # Errors
/// If it is too large, or no JSON; within, the number of an entry and what is wrong with it.
fn parse_json(path: &Path, source: impl Read, asked: &Asked<'_>) -> Result<Result<Option<Rows>, Wrong>> {
    let mut bytes = Vec::new();
    source
        .take(MAX_WHOLE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > MAX_WHOLE {
        let message = format!(
            "is larger than the {} MiB that are read at once: metadata.jsonl, a line for a picture, may be of any size",
            MAX_WHOLE >> 20
        );
        return Err(Error::file(path, message));
    }
    let text = String::from_utf8_lossy(&bytes);
    let value = from_json(text.strip_prefix('\u{FEFF}').unwrap_or(&text))
        .map_err(|e| Error::file(path, format!("is not the JSON expected: {e}")))?;
    let with_name = |(name, value): (String, Value)| match value {
        Value::Object(mut fields) => {
            fields.insert(FILE_NAME.into(), name.into());
            Some(fields)
        }
        Value::String(caption) => Some(Map::from_iter([
            (FILE_NAME.into(), name.into()),
            (CAPTIONS[0].into(), caption.into()),
        ])),
        _ => None,
    };
    let named = |value: Value| match value {
        Value::Object(fields) if fields.contains_key(FILE_NAME) => Some(fields),
        _ => None,
    };
    let entries: Option<Vec<Map<String, Value>>> = match value {
        Value::Array(entries) => entries.into_iter().map(named).collect(),
        Value::Object(entries) => {
            let is_picture = |name: &String| super::decode::is_picture_name(name);
            let names_pictures = entries.keys().all(is_picture) && !entries.is_empty();
            names_pictures
                .then(|| entries.into_iter().map(with_name).collect())
                .flatten()
        }
        _ => None,
    };
    let Some(entries) = entries else {
        return Ok(Ok(None));
    };
    let mut rows = Rows::default();
    let added = entries.iter().zip(1..).try_for_each(|(fields, number)| {
        rows.add(fields, number, asked)
            .map_err(|message| (number, message))
    });
    Ok(added.map(|()| Some(rows)))
}

impl Rows {
    fn add(&mut self, fields: &Map<String, Value>, line: u64, asked: &Asked<'_>) -> Result<(), String> {
        let caption =
            captions(asked.caption).find(|column| fields.get(*column).is_some_and(|value| !value.is_null()));
        let used = [
            Some(FILE_NAME),
            Some(LABEL),
            asked.conditioning.as_deref(),
            caption,
        ];
        let is_used = |name: &String| used.contains(&Some(name.as_str())) || asked.attributes.contains(name);
        for name in fields.keys().filter(|name| !is_used(name)) {
            if !self.unused.contains(name) && self.unused.len() < MAX_NAMES {
                self.unused.insert(name.clone());
            }
        }
        self.rows.push(json_row(fields, line, asked)?);
        Ok(())
    }
}

fn json_row(fields: &Map<String, Value>, line: u64, asked: &Asked<'_>) -> Result<Row, String> {
    let file = |column: &str| match fields.get(column) {
        Some(Value::String(name)) if !name.is_empty() => Ok(name.clone()),
        Some(other) => Err(format!("has a `{column}` that is no file's name: {other}")),
        None => Err(format!("has no `{column}`")),
    };
    let file_name = file(FILE_NAME)?;
    let conditioning = asked.conditioning.as_deref().map(file).transpose()?;
    let attribute = |column: &String| {
        let value = fields.get(column);
        let has = value.and_then(attribute::of_json);
        has.ok_or_else(|| attribute::wrong(column, value.map(Value::to_string)))
    };
    let attributes = asked.attributes.iter().map(attribute).collect::<Result<_, _>>()?;
    if let Some(column) = asked.caption
        && !fields.contains_key(column)
    {
        return Err(format!("has no `{column}`"));
    }
    let caption = captions(asked.caption).find_map(|column| match fields.get(column) {
        None | Some(Value::Null) => None,
        Some(value) => Some((column, value)),
    });
    let caption = match caption {
        None => None,
        Some((_, Value::String(text))) => Some(text.clone()),
        Some((_, Value::Number(number))) => Some(number.to_string()),
        Some((column, other)) => return Err(format!("has a `{column}` that is no text: {other}")),
    };
    let label = fields.get(LABEL).map_or(Ok(None), label)?;
    Ok(Row {
        line,
        file_name,
        caption,
        label: label.filter(|label| *label != Label::Index(UNKNOWN)),
        conditioning,
        attributes,
    })
}

/// A class as JSON says it.
///
/// # Errors
/// The part of a sentence that follows what has it, if it is neither a whole number nor a name.
pub(super) fn label(value: &Value) -> Result<Option<Label>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) => Ok(Some(Label::Name(name.clone()))),
        Value::Number(number) => match number.as_i64().or(whole(number.as_f64())) {
            Some(index) => Ok(Some(Label::Index(index))),
            None => Err(no_label(number)),
        },
        other => Err(no_label(other)),
    }
}

fn no_label(value: &dyn fmt::Display) -> String {
    format!("has a `{LABEL}` that is neither a whole number nor a name: {value}")
}

/// The whole number that a number is, as pandas writes whole numbers where some are missing.
fn whole(number: Option<f64>) -> Option<i64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    number
        .filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)
        .map(|number| number as i64)
}

/// The text of a CSV file for its parser: lines that end in one way, all of them ended, and no record of unbounded length.
struct Records<R> {
    lines: Lines<R>,
    line: Vec<u8>,
    at: usize,
    /// What the record that is being read may still take.
    left: Rc<Cell<usize>>,
}

impl<R: BufRead> Read for Records<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.line.len() {
            let line = self
                .lines
                .next()
                .map_err(|(_, message)| io::Error::other(message))?;
            let Some(line) = line else { return Ok(0) };
            (self.line, self.at) = (line.into_bytes(), 0);
            self.line.push(b'\n');
        }
        let count = buffer.len().min(self.line.len() - self.at);
        let left = self
            .left
            .get()
            .checked_sub(count)
            .ok_or_else(|| io::Error::other(too_long()))?;
        self.left.set(left);
        buffer[..count].copy_from_slice(&self.line[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Values with a header line, set apart by commas, or as spreadsheets have them where a comma stands in numbers, by semicolons; or by
/// tabs. If all labels are whole numbers, they are indices.
fn parse_csv(source: impl Read, asked: &Asked<'_>) -> Result<Rows, Wrong> {
    let mut lines = Lines::new(BufReader::new(source));
    let mut first = lines.next()?.unwrap_or_default();
    while first.trim().is_empty() {
        match lines.next()? {
            Some(line) => first = line,
            None => break,
        }
    }
    let before = lines.number.saturating_sub(1);
    let delimiter = [b',', b';', b'\t']
        .into_iter()
        .find(|delimiter| first.as_bytes().contains(delimiter));
    let left = Rc::new(Cell::new(MAX_RECORD));
    let records = Records {
        lines,
        line: (first + "\n").into_bytes(),
        at: 0,
        left: left.clone(),
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter.unwrap_or(b','))
        .from_reader(records);
    let told = |e: csv::Error| match e.kind() {
        csv::ErrorKind::Io(e) => e.to_string(),
        _ => format!("does not fit the header: {e}"),
    };
    let headers = reader
        .headers()
        .map_err(|e| (before + 1, format!("is not a header of CSV: {e}")))?;
    let headers: Vec<String> = headers.iter().map(|name| name.trim().to_string()).collect();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let needed = |name: &str| column(name).ok_or_else(|| (before + 1, format!("names no column `{name}`")));
    let file_name = needed(FILE_NAME)?;
    let shown = asked.conditioning.as_deref().map(needed).transpose()?;
    let attributes = asked.attributes.iter().map(|name| Ok((needed(name)?, name)));
    let attributes: Vec<(usize, &String)> = attributes.collect::<Result<_, _>>()?;
    let caption = match asked.caption {
        Some(name) => Some(needed(name)?),
        None => CAPTIONS.into_iter().find_map(column),
    };
    let label = column(LABEL);
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        left.set(MAX_RECORD);
        let read = reader.read_record(&mut record);
        // Where the record began: every line of it is ended, and blank lines before it are none of it.
        let within = record
            .iter()
            .map(|field| field.matches('\n').count() as u64)
            .sum::<u64>();
        let line = (before + reader.position().line()).saturating_sub(1 + within);
        if !read.map_err(|e| (line, told(e)))? {
            break;
        }
        let cell = |column: Option<usize>| column.and_then(|c| record.get(c)).filter(|text| !text.is_empty());
        let Some(file_name) = cell(Some(file_name)) else {
            return Err((line, format!("has no `{FILE_NAME}`")));
        };
        let conditioning = match (&asked.conditioning, cell(shown)) {
            (Some(column), None) => return Err((line, format!("has no `{column}`"))),
            (_, name) => name.map(str::to_string),
        };
        let attribute = |&(column, name): &(usize, &String)| {
            let value = cell(Some(column));
            let has = value.and_then(attribute::of_text);
            has.ok_or_else(|| (line, attribute::wrong(name, value.map(str::to_string))))
        };
        rows.push(Row {
            line,
            file_name: file_name.to_string(),
            conditioning,
            attributes: attributes.iter().map(attribute).collect::<Result<_, _>>()?,
            caption: cell(caption).map(str::to_string),
            label: cell(label).map(|name| Label::Name(name.to_string())),
        });
    }
    let number = |name: &str| name.parse().ok().or_else(|| whole(name.parse().ok()));
    let numbers: Option<Vec<Option<i64>>> = rows
        .iter()
        .map(|row| match &row.label {
            Some(Label::Name(name)) => number(name).map(Some),
            _ => Some(None),
        })
        .collect();
    if let Some(numbers) = numbers {
        for (row, number) in rows.iter_mut().zip(numbers) {
            row.label = number.filter(|number| *number != UNKNOWN).map(Label::Index);
        }
    }
    let used = [Some(file_name), shown, caption, label];
    let is_used = |at: usize| used.contains(&Some(at)) || attributes.iter().any(|(column, _)| *column == at);
    let others = headers
        .into_iter()
        .enumerate()
        .filter(|(at, name)| !is_used(*at) && !name.is_empty());
    let unused = others.map(|(_, name)| name).take(MAX_NAMES).collect();
    Ok(Rows { rows, unused })
}

/// The classes' names in the text of a `labels.json`: a list, or an object from index to name or from name to index.
///
/// # Errors
/// If it is neither, or its indices are not 0, 1, 2 … without a gap.
pub(super) fn names(path: &Path, text: &str) -> Result<Vec<String>> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| Error::file(path, format!("is not the JSON expected: {e}")))?;
    parse_names(value).ok_or_else(|| {
        Error::file(
            path,
            "should hold the classes' names: a list, or an object from index to name or from name to index, \
             with the indices 0, 1, 2 … without a gap",
        )
    })
}

fn parse_names(value: Value) -> Option<Vec<String>> {
    let map = match value {
        Value::Array(names) => {
            return names
                .iter()
                .map(|name| Some(name.as_str()?.to_string()))
                .collect();
        }
        Value::Object(map) => map,
        _ => return None,
    };
    let mut names = vec![None; map.len()];
    for (key, value) in map {
        let (index, name) = match value {
            Value::String(name) => (key.parse().ok()?, name),
            Value::Number(index) => (usize::try_from(index.as_u64()?).ok()?, key),
            _ => return None,
        };
        let place = names.get_mut(index)?;
        if place.replace(name).is_some() {
            return None;
        }
    }
    names.into_iter().collect()
}

/// What the labels of all rows say together: a class a row, and the classes' names; `None` where no row has a
/// label. Names that no file lists are the labels themselves, sorted, as in Hugging Face's ClassLabel.
///
/// A set of which only some rows have labels counts as one without, after a warning.
///
/// # Errors
/// [`Error::File`] naming the line whose label is out of range, unknown, or of another kind than the first.
pub(super) fn resolve_labels(
    rows: &[(&Path, &Row)],
    names: Option<Vec<String>>,
) -> Result<Option<(Vec<usize>, Vec<String>)>> {
    let labels: Vec<&Label> = rows.iter().filter_map(|(_, row)| row.label.as_ref()).collect();
    let Some(&first) = labels.first() else {
        return Ok(None);
    };
    if let Some((path, row)) = rows.iter().find(|(_, row)| row.label.is_none()) {
        tracing::warn!(
            "{}: line {} has no `{LABEL}`, so the pictures are taken to have no classes",
            path.display(),
            row.line
        );
        return Ok(None);
    }
    let names = match (names, first) {
        (Some(names), _) => names,
        (None, Label::Index(_)) => {
            let last = labels
                .iter()
                .filter_map(|l| if let Label::Index(i) = l { Some(*i) } else { None })
                .max();
            let count = last
                .and_then(|last| usize::try_from(last).ok())
                .map_or(0, |last| last.saturating_add(1));
            (0..count.min(MAX_UNNAMED_CLASSES))
                .map(|class| class.to_string())
                .collect()
        }
        (None, Label::Name(_)) => {
            let sorted: BTreeSet<&String> = labels
                .iter()
                .filter_map(|l| if let Label::Name(n) = l { Some(n) } else { None })
                .collect();
            sorted.into_iter().cloned().collect()
        }
    };
    let by_name: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    let class = |&(path, row): &(&Path, &Row)| {
        let wrong = |message: String| Error::file(path, format!("line {} {message}", row.line));
        match (&row.label, first) {
            (Some(Label::Index(index)), Label::Index(_)) => usize::try_from(*index)
                .ok()
                .filter(|&i| i < names.len())
                .ok_or_else(|| {
                    wrong(format!(
                        "has the `{LABEL}` {index}, but there are {} classes",
                        names.len()
                    ))
                }),
            (Some(Label::Name(name)), Label::Name(_)) => {
                by_name.get(name.as_str()).copied().ok_or_else(|| {
                    wrong(format!(
                        "has the `{LABEL}` \"{name}\", which labels.json does not name"
                    ))
                })
            }
            _ => Err(wrong(format!(
                "has a `{LABEL}` of another kind than the first: keep to numbers or to names"
            ))),
        }
    };
    let classes = rows.iter().map(class).collect::<Result<Vec<usize>>>()?;
    Ok(Some((classes, names)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(rows: &[Row], names: Option<&[&str]>) -> Result<Option<(Vec<usize>, Vec<String>)>> {
        let path = Path::new("metadata.jsonl");
        let rows: Vec<_> = rows.iter().map(|row| (path, row)).collect();
        resolve_labels(
            &rows,
            names.map(|names| names.iter().map(|n| n.to_string()).collect()),
        )
    }

    fn csv(source: impl Read) -> Result<Vec<Row>, Wrong> {
        parse_csv(source, &Asked::default()).map(|rows| rows.rows)
    }

    fn json(lines: &[&str]) -> Result<Vec<Row>, (u64, String)> {
        parse_jsonl(lines.join("\n").as_bytes(), &Asked::default()).map(|rows| rows.rows)
    }

    #[test]
    fn json_lines_hold_names_captions_and_labels() {
        let rows = json(&[
            r#"{"file_name": "a.png", "text": "an a", "label": 1, "other": [1]}"#,
            "",
            r#"{"file_name": "b/b.png", "text": null, "label": 0}"#,
        ])
        .unwrap();
        assert_eq!(rows[0].caption.as_deref(), Some("an a"));
        assert_eq!(
            (rows[1].line, rows[1].file_name.as_str(), &rows[1].caption),
            (3, "b/b.png", &None)
        );
        assert_eq!(
            resolve(&rows, None).unwrap().unwrap(),
            (vec![1, 0], vec!["0".into(), "1".into()])
        );
        let named = resolve(&rows, Some(&["x", "y", "z"])).unwrap().unwrap();
        assert_eq!(named.1, ["x", "y", "z"]);
    }

    #[test]
    fn broken_lines_are_named() {
        let good = r#"{"file_name": "a.png"}"#;
        for (bad, says) in [
            (r#"{"file_name": "a.png""#, "is not a JSON object"),
            ("[1]", "is not a JSON object"),
            (r#"{"text": "x"}"#, "has no `file_name`"),
            (r#"{"file_name": 3}"#, "no file's name: 3"),
            (r#"{"file_name": "a.png", "text": ["x"]}"#, "no text"),
            (r#"{"file_name": "a.png", "label": 1.5}"#, "1.5"),
        ] {
            let (line, message) = json(&[good, good, bad]).unwrap_err();
            assert!(line == 3 && message.contains(says), "{line} {message}");
        }
    }

    #[test]
    fn csv_is_read_with_quotes_and_numbers() {
        let rows = csv(&b"label,file_name,text\n3,a.png,\"one, two\"\n0,b.png,\n"[..]).unwrap();
        assert_eq!(rows[0].caption.as_deref(), Some("one, two"));
        assert_eq!((rows[0].label.clone(), rows[0].line), (Some(Label::Index(3)), 2));
        assert_eq!(rows[1].caption, None);
        let rows = csv(&b"file_name,label\na.png,dog\nb.png,7\n"[..]).unwrap();
        assert_eq!(
            resolve(&rows, None).unwrap().unwrap(),
            (vec![1, 0], vec!["7".into(), "dog".into()])
        );
        assert_eq!(csv(&b"name\na.png\n"[..]).unwrap_err().0, 1);
        assert_eq!(csv(&b"file_name,text\na.png,x\nb.png\n"[..]).unwrap_err().0, 3);
        assert_eq!(
            csv(&b"file_name,text\n,x\n"[..]).unwrap_err(),
            (2, "has no `file_name`".into())
        );
    }

    #[test]
    fn json_is_read_as_python_writes_it() {
        let rows = json(&[
            r#"{"file_name": "a.png", "score": NaN, "low": -Infinity, "caption": "NaN \\\" Infinity", "label": 2.0}"#,
            r#"{"file_name": "b.png", "text": NaN, "caption": null, "prompt": "b"}"#,
        ])
        .unwrap();
        assert_eq!(rows[0].caption.as_deref(), Some("NaN \\\" Infinity"));
        assert_eq!(rows[0].label, Some(Label::Index(2)));
        assert_eq!(rows[1].caption.as_deref(), Some("b"));
        assert!(
            json(&[r#"{"file_name": NaN}"#])
                .unwrap_err()
                .1
                .contains("no file's name")
        );
        assert!(
            json(&[r#"{"file_name": Nan}"#])
                .unwrap_err()
                .1
                .contains("not a JSON object")
        );
    }

    #[test]
    fn csv_is_read_as_spreadsheets_write_it() {
        let csv = |text: &str| csv(text.as_bytes());
        let rows =
            csv("\u{FEFF}file_name;caption;label\r\na\\1.png;\"x; y\r\nz\";1.0\r\n\r\nb.png;5\" plate;-1")
                .unwrap();
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.line, row.file_name.as_str(), row.caption.as_deref()))
            .collect();
        assert_eq!(
            told,
            [(2, "a\\1.png", Some("x; y\nz")), (5, "b.png", Some("5\" plate"))]
        );
        assert_eq!((&rows[0].label, &rows[1].label), (&Some(Label::Index(1)), &None));
        assert_eq!(
            csv("\r\n\r\nfile_name\tprompt\r\na.png\tx, y\r\n").unwrap()[0].line,
            4
        );
        assert_eq!(csv("file_name,x\r\na,1\r\nb\r\n").unwrap_err().0, 3);
        let (line, message) = parse_csv(&b"file_name,text\na.png,\xE4\n"[..], &Asked::default()).unwrap_err();
        assert!(message.contains("UTF-8"), "{line} {message}");
    }

    #[test]
    fn a_line_without_end_is_refused_in_bounded_memory() {
        let endless = || io::repeat(b'x').take(1 << 40);
        assert!(
            parse_jsonl(endless(), &Asked::default())
                .unwrap_err()
                .1
                .contains("longer than the 16 MiB")
        );
        assert!(csv(endless()).unwrap_err().1.contains("longer than"));
        // A quote that is never closed.
        let line = [b"x".repeat(1000), b"\n".to_vec()].concat();
        let text = [b"file_name\n\"".to_vec(), line.repeat(MAX_RECORD / 1000 + 2)].concat();
        assert!(csv(&text[..]).unwrap_err().1.contains("longer than"));
    }

    #[test]
    fn a_whole_file_of_json_lists_or_names_its_pictures() {
        let json = |text: &str| {
            rows(
                Path::new("metadata.json"),
                text.as_bytes(),
                &OpenOptions::default(),
            )
            .map(|found| found.map(|rows| rows.rows))
            .map_err(|e| e.to_string())
        };
        let read = json(r#"[{"file_name": "a.png", "text": "x"}, {"file_name": "b.png", "label": 1}]"#)
            .unwrap()
            .unwrap();
        assert_eq!(
            (read[0].caption.as_deref(), read[1].line, &read[1].label),
            (Some("x"), 2, &Some(Label::Index(1)))
        );
        let read = json(r#"{"a.png": "x", "b/b.jpg": {"caption": "y", "x": NaN}}"#)
            .unwrap()
            .unwrap();
        assert_eq!(
            (read[1].file_name.as_str(), read[1].caption.as_deref()),
            ("b/b.jpg", Some("y"))
        );
        for other in ["{}", r#"{"version": 1}"#, "[1]", "3", r#"{"a.png": 3}"#] {
            assert_eq!(json(other).unwrap(), None, "{other}");
        }
        assert!(
            json(r#"[{"file_name": "a.png", "text": []}]"#)
                .unwrap_err()
                .contains("line 1 has a `text`")
        );
        assert!(json("{").unwrap_err().contains("is not the JSON expected"));
    }

    #[test]
    fn labels_that_do_not_fit_name_their_line() {
        let rows = |labels: [&str; 2]| {
            json(
                &labels
                    .map(|l| format!(r#"{{"file_name": "a.png", "label": {l}}}"#))
                    .each_ref()
                    .map(|s| &**s),
            )
            .unwrap()
        };
        let says = |labels, names: Option<&[&str]>| resolve(&rows(labels), names).unwrap_err().to_string();
        assert_eq!(
            says(["0", "2"], Some(&["x", "y"])),
            "metadata.jsonl: line 2 has the `label` 2, but there are 2 classes"
        );
        assert!(says(["0", "-2"], None).contains("line 2 has the `label` -2"));
        assert!(says(["0", "4000000000"], None).contains("line 2"));
        assert!(says(["0", "\"x\""], None).contains("line 2 has a `label` of another kind"));
        assert!(says(["\"x\"", "\"z\""], Some(&["x", "y"])).contains("line 2 has the `label` \"z\""));
        assert_eq!(resolve(&rows(["1", "null"]), None).unwrap(), None);
        // Nobody knows.
        assert_eq!(resolve(&rows(["-1", "NaN"]), Some(&["x", "y"])).unwrap(), None);
        assert_eq!(resolve(&rows(["1", "-1.0"]), None).unwrap(), None);
    }

    #[test]
    fn names_come_as_a_list_or_as_either_map() {
        let names = |text: &str| parse_names(serde_json::from_str(text).unwrap());
        let expected = Some(vec!["x".to_string(), "y".to_string()]);
        assert_eq!(names(r#"["x", "y"]"#), expected);
        assert_eq!(names(r#"{"1": "y", "0": "x"}"#), expected);
        assert_eq!(names(r#"{"y": 1, "x": 0}"#), expected);
        for bad in [
            r#"{"x": 0, "y": 2}"#,
            r#"{"x": 0, "y": 0}"#,
            "[1]",
            "3",
            r#"{"x": -1}"#,
            r#"{"a": "x"}"#,
        ] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "(?s).{0,200}", names in "[\\[\\]{}0-9a\":, ]{0,40}") {
            let columns = ["x".to_string()];
            let asked = Asked { conditioning: Some("x".into()), caption: None, attributes: &columns };
            _ = parse_jsonl(text.as_bytes(), &asked);
            _ = parse_csv(text.as_bytes(), &asked);
            _ = csv(format!("file_name,label\n{text}").as_bytes());
            if let Ok(value) = serde_json::from_str(&names) {
                _ = parse_names(value);
            }
        }

        #[test]
        fn random_labels_never_panic(labels in proptest::collection::vec(any::<i64>(), 1..9)) {
            let lines: Vec<_> = labels.iter().map(|l| format!(r#"{{"file_name": "a", "label": {l}}}"#)).collect();
            _ = resolve(&json(&lines.iter().map(|line| &**line).collect::<Vec<_>>()).unwrap(), None);
        }
    }
}
