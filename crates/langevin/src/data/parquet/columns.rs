//! Which columns of a parquet file hold pictures, captions and classes.

use parquet::{basic::Type, file::metadata::ParquetMetaData, schema::types::ColumnDescriptor};
use serde_json::{Map, Value};

use crate::data::{Medium, OpenOptions, metadata::CAPTIONS};

/// Names that columns of classes have, the preferred first.
const LABELS: [&str; 2] = ["label", "labels"];
/// The same of columns of sounds.
const SOUNDS: [&str; 2] = ["audio", "sound"];
/// Names that columns of pictures have where nothing else says which they are, the preferred first.
const PICTURES: [&str; 2] = ["image", "img"];

/// The types that a column of attributes may have.
const ATTRIBUTES: &[Type] = &[Type::BOOLEAN, Type::INT32, Type::INT64, Type::FLOAT, Type::DOUBLE];

/// The columns of a file, as indices into its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// The pictures' bytes.
    pub bytes: usize,
    /// The pictures' file names, if there are any.
    pub path: Option<usize>,
    /// The bytes of the pictures in another column, where one is asked for.
    pub conditioning: Option<usize>,
    /// Attributes, where any are asked for, with their columns' names.
    pub attributes: Vec<(String, usize)>,
    /// Captions.
    pub caption: Option<usize>,
    /// Classes.
    pub label: Option<usize>,
    /// The classes' names, if the file says them.
    pub class_names: Option<Vec<String>>,
}

impl Columns {
    /// Finds the columns: by the features that `datasets` leaves in the file's metadata, else by their names.
    ///
    /// # Errors
    /// The part of a sentence that follows the file's name, if no column holds pictures, or one that is asked for is not there.
    pub(super) fn of(metadata: &ParquetMetaData, options: &OpenOptions) -> Result<Self, String> {
        let conditioning = options.conditioning_column.as_deref();
        let leaves = metadata.file_metadata().schema_descr().columns();
        let features = features(metadata).unwrap_or_default();
        let leaf = |path: &[&str], types: &[Type]| {
            leaves.iter().position(|leaf| {
                leaf.path()
                    .parts()
                    .iter()
                    .map(String::as_str)
                    .eq(path.iter().copied())
                    && types.contains(&leaf.physical_type())
                    && is_flat(leaf)
            })
        };
        let there = || {
            let names: Vec<String> = leaves.iter().map(|leaf| leaf.path().string()).collect();
            names.join(", ")
        };
        let bytes_of = |column: &str| {
            leaf(&[column, "bytes"], &[Type::BYTE_ARRAY]).or_else(|| leaf(&[column], &[Type::BYTE_ARRAY]))
        };
        let named = |kind: &str| -> Vec<String> {
            let of_kind = features.iter().filter(|(_, feature)| feature["_type"] == kind);
            of_kind.map(|(name, _)| name.clone()).collect()
        };
        let structs = leaves.iter().filter_map(|leaf| match leaf.path().parts() {
            [column, field] if field == "bytes" => Some(column.clone()),
            _ => None,
        });
        let heard = matches!(options.medium, Medium::Sounds(_));
        let (kind, names, others) = match heard {
            true => ("Audio", SOUNDS, named("Image")),
            false => ("Image", PICTURES, named("Audio")),
        };
        let (picture, bytes) = named(kind)
            .into_iter()
            .chain(names.map(String::from))
            .chain(structs)
            .filter(|column| Some(column.as_str()) != conditioning && !others.contains(column))
            .find_map(|column| bytes_of(&column).map(|leaf| (column, leaf)))
            .ok_or_else(|| {
                let (_, several) = options.medium.words();
                let hint = match others.first() {
                    Some(column) if heard => format!("; `{column}` holds pictures: leave `codec` out"),
                    Some(column) => {
                        format!("; `{column}` holds sounds: `codec` mel makes spectrograms of them")
                    }
                    None => String::new(),
                };
                format!(
                    "has no column of {several}: looked for `{}` with `bytes` in it, and there are {}{hint}",
                    names[0],
                    there()
                )
            })?;
        let conditioning = match conditioning {
            None => None,
            Some(column) => Some(bytes_of(column).ok_or_else(|| {
                format!(
                    "has no column `{column}` of conditioning pictures: there are {}; what can be made of the pictures \
                     themselves is grey, blur:SIGMA, downscale:FACTOR, edges and mask",
                    there()
                )
            })?),
        };
        let attribute = |column: &String| match leaf(&[column], ATTRIBUTES) {
            Some(leaf) => Ok((column.clone(), leaf)),
            None => Err(format!(
                "has no column `{column}` of attributes, which are 0 and 1 or false and true: there are {}",
                there()
            )),
        };
        let attributes = options.attribute_columns.iter().map(attribute);
        let text = |column: &str| leaf(&[column], &[Type::BYTE_ARRAY]);
        let caption = match &options.caption_column {
            Some(column) => Some(
                text(column)
                    .filter(|_| *column != picture)
                    .ok_or_else(|| format!("has no column `{column}` of texts: there are {}", there()))?,
            ),
            None => CAPTIONS
                .into_iter()
                .filter(|column| *column != picture)
                .find_map(text),
        };
        let label_types = [Type::INT32, Type::INT64, Type::BYTE_ARRAY];
        let classes = named("ClassLabel");
        let preferred = LABELS.iter().map(|name| (*name).to_string());
        let (known, unknown): (Vec<_>, Vec<_>) = preferred.partition(|name| classes.contains(name));
        let label = known
            .into_iter()
            .chain(classes)
            .chain(unknown)
            .find_map(|column| leaf(&[&column], &label_types).map(|leaf| (column, leaf)));
        let class_names = label.as_ref().and_then(|(column, _)| {
            let names = features.get(column)?.get("names")?.as_array()?;
            names
                .iter()
                .map(|name| Some(name.as_str()?.to_string()))
                .collect()
        });
        Ok(Self {
            bytes,
            conditioning,
            attributes: attributes.collect::<Result<_, _>>()?,
            path: leaf(&[&picture, "path"], &[Type::BYTE_ARRAY]),
            caption,
            label: label.map(|(_, leaf)| leaf),
            class_names,
        })
    }
}

/// Whether a column has one value a row at most.
fn is_flat(leaf: &ColumnDescriptor) -> bool {
    leaf.max_rep_level() == 0
}

/// The features that `datasets` writes into a file's metadata, by column: `{"info": {"features": {…}}}`.
fn features(metadata: &ParquetMetaData) -> Option<Map<String, Value>> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries
        .iter()
        .find(|entry| entry.key == "huggingface")?
        .value
        .as_ref()?;
    match serde_json::from_str::<Value>(text)
        .ok()?
        .get_mut("info")?
        .get_mut("features")?
        .take()
    {
        Value::Object(features) => Some(features),
        _ => None,
    }
}
