//! `metadata.jsonl` and `metadata.csv`: captions and labels beside the pictures, as Hugging Face's ImageFolder
//! reads them; and `labels.json`, which names the classes.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde_json::Value;

use crate::{Error, Result};

/// The column that names a picture, relative to the metadata file.
const FILE_NAME: &str = "file_name";
/// The column of captions, as diffusers' scripts call it by default.
const CAPTION: &str = "text";
/// The column of classes.
const LABEL: &str = "label";
/// More classes than this are only believed if `labels.json` names them.
const MAX_UNNAMED_CLASSES: usize = 65_536;

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
    /// Where it stands, counted from 1.
    pub line: u64,
    /// The picture, relative to the metadata file.
    pub file_name: String,
    /// Its caption.
    pub caption: Option<String>,
    /// Its class.
    pub label: Option<Label>,
    /// The picture in the column of conditioning pictures, relative to the metadata file.
    pub conditioning: Option<String>,
}

/// What the text of the file `path` says, by the file's ending: `.jsonl`, or else `.csv`. `conditioning` names a column of
/// pictures, as Hugging Face's ImageFolder reads them: their names stand in `COLUMN_file_name`.
///
/// # Errors
/// [`Error::File`] with the line that is wrong.
pub(super) fn rows(path: &Path, text: &str, conditioning: Option<&str>) -> Result<Vec<Row>> {
    let conditioning = conditioning.map(|column| format!("{column}_{FILE_NAME}"));
    let conditioning = conditioning.as_deref();
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let rows = if path.extension().is_some_and(|e| e == "jsonl") {
        parse_jsonl(text, conditioning)
    } else {
        parse_csv(text, conditioning)
    };
    rows.map_err(|(line, message)| Error::file(path, format!("line {line} {message}")))
}

/// One JSON object a line; blank lines are skipped. The error is a line's number and what is wrong with it.
fn parse_jsonl(text: &str, conditioning: Option<&str>) -> Result<Vec<Row>, (u64, String)> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| json_row(line, number, conditioning).map_err(|message| (number, message)))
        .collect()
}

fn json_row(text: &str, line: u64, conditioning: Option<&str>) -> Result<Row, String> {
    let fields: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|e| format!("is not a JSON object: {e}"))?;
    let file = |column: &str| match fields.get(column) {
        Some(Value::String(name)) if !name.is_empty() => Ok(name.clone()),
        Some(other) => Err(format!("has a `{column}` that is no file's name: {other}")),
        None => Err(format!("has no `{column}`")),
    };
    let file_name = file(FILE_NAME)?;
    let conditioning = conditioning.map(file).transpose()?;
    let caption = match fields.get(CAPTION) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(other) => return Err(format!("has a `{CAPTION}` that is no text: {other}")),
    };
    let label = match fields.get(LABEL) {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(Label::Name(name.clone())),
        Some(Value::Number(number)) if number.is_i64() => number.as_i64().map(Label::Index),
        Some(other) => {
            return Err(format!(
                "has a `{LABEL}` that is neither a whole number nor a name: {other}"
            ));
        }
    };
    Ok(Row {
        line,
        file_name,
        caption,
        label,
        conditioning,
    })
}

/// Comma-separated values with a header line. If all labels are whole numbers, they are indices.
fn parse_csv(text: &str, conditioning: Option<&str>) -> Result<Vec<Row>, (u64, String)> {
    let line_of = |e: &csv::Error| e.position().map_or(1, csv::Position::line);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader
        .headers()
        .map_err(|e| (1, format!("is not a header of CSV: {e}")))?;
    let column = |name: &str| headers.iter().position(|h| h.trim() == name);
    let needed = |name: &str| column(name).ok_or_else(|| (1, format!("names no column `{name}`")));
    let file_name = needed(FILE_NAME)?;
    let shown = conditioning.map(needed).transpose()?;
    let (caption, label) = (column(CAPTION), column(LABEL));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| (line_of(&e), format!("does not fit the header: {e}")))?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |column: Option<usize>| column.and_then(|c| record.get(c)).filter(|text| !text.is_empty());
        let Some(file_name) = cell(Some(file_name)) else {
            return Err((line, format!("has no `{FILE_NAME}`")));
        };
        let conditioning = match (conditioning, cell(shown)) {
            (Some(column), None) => return Err((line, format!("has no `{column}`"))),
            (_, name) => name.map(str::to_string),
        };
        rows.push(Row {
            line,
            file_name: file_name.to_string(),
            conditioning,
            caption: cell(caption).map(str::to_string),
            label: cell(label).map(|name| Label::Name(name.to_string())),
        });
    }
    let numbers: Option<Vec<Option<i64>>> = rows
        .iter()
        .map(|row| match &row.label {
            Some(Label::Name(name)) => name.parse().ok().map(Some),
            _ => Some(None),
        })
        .collect();
    if let Some(numbers) = numbers {
        for (row, number) in rows.iter_mut().zip(numbers) {
            row.label = number.map(Label::Index);
        }
    }
    Ok(rows)
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

    fn json(lines: &[&str]) -> Result<Vec<Row>, (u64, String)> {
        parse_jsonl(&lines.join("\n"), None)
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
        let rows = parse_csv("label,file_name,text\n3,a.png,\"one, two\"\n0,b.png,\n", None).unwrap();
        assert_eq!(rows[0].caption.as_deref(), Some("one, two"));
        assert_eq!((rows[0].label.clone(), rows[0].line), (Some(Label::Index(3)), 2));
        assert_eq!(rows[1].caption, None);
        let rows = parse_csv("file_name,label\na.png,dog\nb.png,7\n", None).unwrap();
        assert_eq!(
            resolve(&rows, None).unwrap().unwrap(),
            (vec![1, 0], vec!["7".into(), "dog".into()])
        );
        assert_eq!(parse_csv("name\na.png\n", None).unwrap_err().0, 1);
        assert_eq!(
            parse_csv("file_name,text\na.png,x\nb.png\n", None).unwrap_err().0,
            3
        );
        assert_eq!(
            parse_csv("file_name,text\n,x\n", None).unwrap_err(),
            (2, "has no `file_name`".into())
        );
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
        assert!(says(["0", "-1"], None).contains("line 2 has the `label` -1"));
        assert!(says(["0", "4000000000"], None).contains("line 2"));
        assert!(says(["0", "\"x\""], None).contains("line 2 has a `label` of another kind"));
        assert!(says(["\"x\"", "\"z\""], Some(&["x", "y"])).contains("line 2 has the `label` \"z\""));
        assert_eq!(resolve(&rows(["1", "null"]), None).unwrap(), None);
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
            _ = parse_jsonl(&text, Some("x"));
            _ = parse_csv(&text, Some("x"));
            _ = parse_csv(&format!("file_name,label\n{text}"), None);
            if let Ok(value) = serde_json::from_str(&names) {
                _ = parse_names(value);
            }
        }

        #[test]
        fn random_labels_never_panic(labels in proptest::collection::vec(any::<i64>(), 1..9)) {
            let lines: Vec<_> = labels.iter().map(|l| format!(r#"{{"file_name": "a", "label": {l}}}"#)).collect();
            _ = resolve(&parse_jsonl(&lines.join("\n"), None).unwrap(), None);
        }
    }
}
