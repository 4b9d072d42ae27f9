//! The rows of a parquet file, a row group at a time.

use std::{fs::File, path::Path};

use parquet::{
    basic::Compression,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        reader::{FileReader, RowGroupReader, SerializedFileReader},
    },
};

use super::{columns::Columns, delta, pages};
use crate::data::{OpenOptions, contain::contain};

/// One row, its picture not yet decoded.
///
/// Values are slices of the row group's pages: a million rows that share one long caption share its memory too.
#[derive(Debug)]
pub(super) struct Row {
    /// The picture's file.
    pub bytes: Option<ByteArray>,
    /// What the file was called.
    pub path: Option<ByteArray>,
    /// The file of the conditioning picture, where one is asked for.
    pub conditioning: Option<ByteArray>,
    /// What the columns of attributes say, where any are asked for.
    pub attributes: Vec<Option<f64>>,
    /// The caption.
    pub caption: Option<ByteArray>,
    /// The class.
    pub label: Option<Label>,
}

/// A class, by number or by name.
#[derive(Clone, Debug)]
pub(super) enum Label {
    Index(i64),
    Name(ByteArray),
}

/// What a file's footer says of one of its row groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupInfo {
    /// How many rows it has.
    pub rows: usize,
    /// What the columns that are read take once decompressed, in bytes.
    pub bytes: u64,
}

/// An open parquet file. Errors are the part of a sentence that follows its name.
pub(super) struct ParquetFile {
    file: File,
    reader: SerializedFileReader<File>,
    /// The columns that are read.
    pub columns: Columns,
    /// What is left out, as sentences about the file.
    pub left_out: Vec<String>,
}

/// Why a column cannot be read, as the end of a sentence about it, by what the footer says: how it is compressed and encoded.
fn unsupported(metadata: &ParquetMetaData, leaf: usize) -> Option<String> {
    let chunks = metadata
        .row_groups()
        .iter()
        .filter_map(|group| group.columns().get(leaf));
    chunks.into_iter().find_map(|chunk| {
        let name = chunk.column_path();
        let compression = chunk.compression();
        let is_read = matches!(
            compression,
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)
        ) || cfg!(feature = "brotli") && matches!(compression, Compression::BROTLI(_))
            || cfg!(feature = "lz4") && compression == Compression::LZ4_RAW;
        if !is_read {
            let also = [(cfg!(feature = "brotli"), ", Brotli"), (cfg!(feature = "lz4"), ", LZ4_RAW")];
            let also: String = also.into_iter().filter(|(built, _)| *built).map(|(_, name)| name).collect();
            return Some(format!(
                "a column {name} that is compressed by {}, which is not supported: Snappy, gzip, Zstandard{also} are",
                chunk.compression()
            ));
        }
        let encoding = chunk.encodings().find(|encoding| !pages::is_read(*encoding))?;
        Some(format!(
            "a column {name} that is encoded as {encoding}, which is not supported: plain values, dictionaries and differences are"
        ))
    })
}

impl ParquetFile {
    /// Reads a file's footer.
    pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Self, String> {
        let io = |e: std::io::Error| format!("cannot be read: {e}");
        // Opening a pipe would wait for whoever writes into it.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err("is not a regular file".into());
        }
        let file = File::open(path).map_err(io)?;
        contain(|| {
            let second = file.try_clone().map_err(io)?;
            let reader = SerializedFileReader::new(second)
                .map_err(|e| format!("is a damaged parquet file: {}", reason(&e)))?;
            let mut columns = Columns::of(reader.metadata(), options)?;
            let why = |leaf| unsupported(reader.metadata(), leaf);
            let needed = [Some(columns.bytes), columns.conditioning];
            let attributes = columns.attributes.iter().map(|(_, leaf)| *leaf);
            if let Some(why) = needed.into_iter().flatten().chain(attributes).find_map(why) {
                return Err(format!("has {why}"));
            }
            let mut left_out = Vec::new();
            for (column, what) in [
                (&mut columns.caption, "captions"),
                (&mut columns.label, "classes"),
                (&mut columns.path, "names"),
            ] {
                if let Some(why) = column.and_then(why) {
                    *column = None;
                    left_out.push(format!("its {what} are left out: they are in {why}"));
                }
            }
            if columns.label.is_none() {
                columns.class_names = None;
            }
            Ok(Self {
                file,
                reader,
                columns,
                left_out,
            })
        })
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    /// The names of the columns that are not read, of very many the first.
    pub(super) fn unused(&self) -> Vec<String> {
        const MOST: usize = 1000;
        let schema = self.metadata().file_metadata().schema_descr();
        let root = |leaf: usize| {
            schema
                .column(leaf)
                .path()
                .parts()
                .first()
                .cloned()
                .unwrap_or_default()
        };
        let used: Vec<String> = self.leaves().map(root).collect();
        let all = (0..schema.num_columns()).map(root);
        all.filter(|name| !used.contains(name)).take(MOST).collect()
    }

    /// The leaves that are read.
    fn leaves(&self) -> impl Iterator<Item = usize> {
        let Columns {
            bytes,
            path,
            conditioning,
            caption,
            label,
            attributes,
            ..
        } = &self.columns;
        [Some(*bytes), *path, *conditioning, *caption, *label]
            .into_iter()
            .flatten()
            .chain(attributes.iter().map(|(_, leaf)| *leaf))
    }

    /// What the footer says of the row groups. A row takes at least a byte in the file, so a file of N bytes that
    /// claims more than N rows lies.
    pub(super) fn groups(&self) -> Result<Vec<GroupInfo>, String> {
        let size = self
            .file
            .metadata()
            .map_err(|e| format!("cannot be read: {e}"))?
            .len();
        let mut all_rows = 0u64;
        let mut group = |(number, group): (usize, &RowGroupMetaData)| {
            let rows = u64::try_from(group.num_rows()).ok();
            all_rows = all_rows.saturating_add(rows.unwrap_or(u64::MAX));
            let claimed = || {
                self.leaves().try_fold(0u64, |sum, leaf| {
                    sum.checked_add(u64::try_from(group.columns().get(leaf)?.uncompressed_size()).ok()?)
                })
            };
            match (rows.and_then(|rows| usize::try_from(rows).ok()), claimed()) {
                (Some(rows), Some(bytes)) if all_rows <= size => Ok(GroupInfo { rows, bytes }),
                _ => Err(format!(
                    "claims {} rows in its row group {number}, which cannot be in a file of {size} bytes",
                    group.num_rows()
                )),
            }
        };
        self.metadata()
            .row_groups()
            .iter()
            .enumerate()
            .map(&mut group)
            .collect()
    }

    /// Reads a row group.
    pub(super) fn rows(&self, group: usize) -> Result<Vec<Row>, String> {
        let leaves: Vec<usize> = self.leaves().collect();
        let (reader, rows) = self.group(group, &leaves)?;
        let read = |leaf: usize| read_texts(reader.as_ref(), leaf, rows);
        let bytes = read(self.columns.bytes)?;
        let texts = |leaf: Option<usize>| leaf.map_or_else(|| Ok(vec![None; rows]), read);
        let paths = texts(self.columns.path)?;
        let shown = texts(self.columns.conditioning)?;
        let captions = texts(self.columns.caption)?;
        let labels = match self.columns.label {
            Some(leaf) => read_labels(reader.as_ref(), leaf, rows)?,
            None => vec![None; rows],
        };
        let mut attributes = vec![Vec::new(); rows];
        for (_, leaf) in &self.columns.attributes {
            let column = read_numbers(reader.as_ref(), *leaf, rows)?;
            attributes
                .iter_mut()
                .zip(column)
                .for_each(|(row, number)| row.push(number));
        }
        let columns = bytes
            .into_iter()
            .zip(paths)
            .zip(shown)
            .zip(captions)
            .zip(labels)
            .zip(attributes);
        Ok(columns
            .map(
                |(((((bytes, path), conditioning), caption), label), attributes)| Row {
                    bytes,
                    path,
                    conditioning,
                    caption,
                    label,
                    attributes,
                },
            )
            .collect())
    }

    /// Reads the classes of a row group alone.
    pub(super) fn labels(&self, group: usize) -> Result<Vec<Option<Label>>, String> {
        let Some(leaf) = self.columns.label else {
            return Ok(Vec::new());
        };
        let (reader, rows) = self.group(group, &[leaf])?;
        read_labels(reader.as_ref(), leaf, rows)
    }

    /// A row group whose pages claim nothing that cannot be, and how many rows it has.
    fn group(&self, group: usize, leaves: &[usize]) -> Result<(Box<dyn RowGroupReader + '_>, usize), String> {
        let infos = self.groups()?;
        let rows = infos.get(group).ok_or("has fewer row groups than it had")?.rows;
        contain(|| {
            let reader = self
                .reader
                .get_row_group(group)
                .map_err(|e| format!("has a damaged row group: {}", reason(&e)))?;
            let size = self
                .file
                .metadata()
                .map_err(|e| format!("cannot be read: {e}"))?
                .len();
            let mut budget = pages::budget(size);
            for &leaf in leaves {
                let column = reader.metadata().column(leaf);
                pages::check(&self.file, column, rows as u64, &mut budget)
                    .and_then(|()| check_values(reader.as_ref(), leaf, &mut budget))
                    .map_err(|message| format!("has a column {} that {message}", column.column_path()))?;
            }
            Ok((reader, rows))
        })
    }
}

/// Looks at values that are packed as differences, page by page, once the pages claim nothing that cannot be.
fn check_values(group: &dyn RowGroupReader, leaf: usize, budget: &mut u64) -> Result<(), String> {
    let column = group.metadata().column(leaf);
    if !column.encodings().any(delta::is_looked_at) {
        return Ok(());
    }
    let is_optional = column.column_descr().max_def_level() > 0;
    let mut pages = group.get_column_page_reader(leaf).map_err(|e| reason(&e))?;
    while let Some(page) = pages
        .get_next_page()
        .map_err(|e| format!("is damaged: {}", reason(&e)))?
    {
        delta::check(&page, is_optional, budget)?;
    }
    Ok(())
}

/// A text of a file's, as it can be shown.
pub(super) fn text(value: &ByteArray) -> String {
    String::from_utf8_lossy(value.data()).into_owned()
}

/// What a parquet error says, without the kind of error before it.
fn reason(error: &parquet::errors::ParquetError) -> String {
    let text = error.to_string();
    text.split_once(": ")
        .map_or(text.clone(), |(_, reason)| reason.to_string())
}

/// A column of texts or bytes.
fn read_texts(
    group: &dyn RowGroupReader,
    leaf: usize,
    rows: usize,
) -> Result<Vec<Option<ByteArray>>, String> {
    read_column(group, leaf, |reader| match reader {
        ColumnReader::ByteArrayColumnReader(reader) => read_values(reader, group, leaf, rows),
        _ => Err("does not hold texts".into()),
    })
}

/// A column of classes, by number or by name.
fn read_labels(group: &dyn RowGroupReader, leaf: usize, rows: usize) -> Result<Vec<Option<Label>>, String> {
    fn labels<T>(values: Vec<Option<T>>, label: impl Fn(T) -> Label) -> Vec<Option<Label>> {
        values.into_iter().map(|value| value.map(&label)).collect()
    }
    read_column(group, leaf, |reader| {
        Ok(match reader {
            ColumnReader::Int32ColumnReader(reader) => {
                labels(read_values(reader, group, leaf, rows)?, |index| {
                    Label::Index(index.into())
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                labels(read_values(reader, group, leaf, rows)?, Label::Index)
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                labels(read_values(reader, group, leaf, rows)?, Label::Name)
            }
            _ => return Err("holds neither whole numbers nor names".into()),
        })
    })
}

/// A column of numbers, or of truths as 0 and 1.
fn read_numbers(group: &dyn RowGroupReader, leaf: usize, rows: usize) -> Result<Vec<Option<f64>>, String> {
    fn numbers<T>(values: Vec<Option<T>>, number: impl Fn(T) -> f64) -> Vec<Option<f64>> {
        values.into_iter().map(|value| value.map(&number)).collect()
    }
    read_column(group, leaf, |reader| {
        Ok(match reader {
            ColumnReader::BoolColumnReader(reader) => {
                numbers(read_values(reader, group, leaf, rows)?, |has| {
                    f64::from(u8::from(has))
                })
            }
            ColumnReader::Int32ColumnReader(reader) => {
                numbers(read_values(reader, group, leaf, rows)?, f64::from)
            }
            ColumnReader::Int64ColumnReader(reader) => {
                numbers(read_values(reader, group, leaf, rows)?, |number| number as f64)
            }
            ColumnReader::FloatColumnReader(reader) => {
                numbers(read_values(reader, group, leaf, rows)?, f64::from)
            }
            ColumnReader::DoubleColumnReader(reader) => {
                numbers(read_values(reader, group, leaf, rows)?, |number| number)
            }
            _ => return Err("holds no numbers".into()),
        })
    })
}

fn read_column<T>(
    group: &dyn RowGroupReader,
    leaf: usize,
    read: impl FnOnce(ColumnReader) -> Result<T, String>,
) -> Result<T, String> {
    contain(|| {
        let reader = group.get_column_reader(leaf).map_err(|e| reason(&e))?;
        read(reader)
    })
    .map_err(|message| {
        format!(
            "has a column {} that {message}",
            group.metadata().column(leaf).column_path()
        )
    })
}

/// All values of a column that has one per row at most; `None` where a row has none.
fn read_values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    group: &dyn RowGroupReader,
    leaf: usize,
    rows: usize,
) -> Result<Vec<Option<T::T>>, String> {
    let max_level = group.metadata().column(leaf).column_descr().max_def_level();
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (records, ..) = reader
            .read_records(rows - read, Some(&mut levels), None, &mut values)
            .map_err(|e| format!("is damaged: {}", reason(&e)))?;
        if records == 0 {
            return Err(format!("ends after {read} of {rows} rows"));
        }
        read += records;
    }
    if max_level == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    let value = |level: i16| if level == max_level { values.next() } else { None };
    Ok(levels.into_iter().map(value).collect())
}
