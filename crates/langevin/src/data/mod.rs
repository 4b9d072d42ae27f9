//! Where pictures come from: data sets, transforms, the loader.
//!
//! A [`Dataset`] hands out decoded [`Example`]s by index, a [`Transform`] turns a picture into the floats that a
//! model trains on, and a [`Loader`] does both on threads of its own and delivers batches in order.
//!
//! ```
//! use std::sync::Arc;
//! use langevin::data::{self, Channels, Loader, LoaderConfig, Transform};
//!
//! let digits = Arc::from(data::open("digits")?);
//! let transform = Transform { channels: Channels::Grey, ..Transform::new(8) };
//! let loader = Loader::new(digits, transform, LoaderConfig { batch_size: 64, ..LoaderConfig::default() })?;
//! let batch = loader.epoch(0).next().expect("the digits are not empty")?;
//! assert_eq!(batch.shape, [64, 1, 8, 8]);
//! # Ok::<(), langevin::Error>(())
//! ```

mod decode;
mod digits;
pub mod evaluate;
mod folder;
mod idx;
mod loader;
mod metadata;
mod picture;
mod resample;
mod summary;
mod transform;

use std::path::Path;

pub use decode::{EXTENSIONS, is_picture_name, read_picture};
pub use digits::digits;
pub use folder::ImageFolder;
pub use idx::IdxDataset;
pub use loader::{Batch, Epoch, Loader, LoaderConfig};
pub use picture::{Channels, Picture};
pub use summary::DatasetSummary;
pub use transform::{Crop, Resize, Transform};

use crate::{Error, Result};

/// One picture of a data set with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The decoded picture, as large as it came.
    pub picture: Picture,
    /// Its class: an index into [`Dataset::class_names`].
    pub class: Option<usize>,
    /// What it shows, in words.
    pub caption: Option<String>,
}

/// A finite, ordered collection of pictures, read by index from any thread.
///
/// The order is the same on every machine: training draws its batches by index.
pub trait Dataset: Send + Sync {
    /// The number of pictures.
    fn len(&self) -> usize;

    /// Whether there is no picture at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads and decodes the picture at `index`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] naming the file that could not be read or decoded; [`Error::Config`] if
    /// `index` is not below [`Dataset::len`].
    fn get(&self, index: usize) -> Result<Example>;

    /// The names of the classes, if the pictures have classes.
    fn class_names(&self) -> Option<&[String]>;

    /// A short name, fit for a run's folder: `digits`, or the folder's own.
    fn name(&self) -> &str;

    /// What and where it is, in a few words for a person: `folder of pictures /data/emoji`.
    fn description(&self) -> String;

    /// Whether decoding is so cheap that the whole is best kept in memory, decoded.
    fn is_small(&self) -> bool {
        false
    }
}

/// The error for an index past a data set's end.
fn out_of_range(name: &str, index: usize, len: usize) -> Error {
    Error::Config(format!(
        "picture {index} was asked of the data set {name}, which has {len}"
    ))
}

/// Opens a data set by name or path: `digits` is the built-in one, a folder is read as IDX files if it holds
/// `train-images-idx3-ubyte` (or `.gz`), else as pictures ([`ImageFolder`]).
///
/// A folder that is itself called `digits` is opened as `./digits`.
///
/// # Errors
/// If there is no such data set (the error says what was looked for), or what is there cannot be read as one.
pub fn open(name_or_path: &str) -> Result<Box<dyn Dataset>> {
    if name_or_path == "digits" {
        return Ok(Box::new(digits()?));
    }
    let path = Path::new(name_or_path);
    if path.is_dir() {
        return Ok(match IdxDataset::find(path)? {
            Some(idx) => Box::new(idx),
            None => Box::new(ImageFolder::open(path)?),
        });
    }
    if path.exists() {
        return Err(Error::file(
            path,
            "is a file, where a data set is a folder of pictures (or of IDX files), or the name \"digits\"",
        ));
    }
    let here = std::env::current_dir()
        .map(|d| d.display().to_string())
        .unwrap_or_else(|_| ".".into());
    let looked = format!(
        "there is no data set \"{name_or_path}\": it is neither the built-in one (\"digits\") nor a folder \
         (looked for in {here})"
    );
    Err(if looks_like_hub_name(name_or_path) {
        Error::Unsupported(format!(
            "{looked}; reading data sets from the Hugging Face Hub is not there yet: download its pictures into \
             a folder and name that folder"
        ))
    } else {
        Error::Config(looked)
    })
}

/// Whether `name` has the form of a Hub repository, `ORG/NAME`.
pub(crate) fn looks_like_hub_name(name: &str) -> bool {
    let is_word = |s: &str| {
        !s.is_empty()
            && !s.starts_with('.')
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    name.split_once('/')
        .is_some_and(|(org, name)| is_word(org) && is_word(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str) -> String {
        open(name).err().expect("no such data set").to_string()
    }

    #[test]
    fn names_that_are_not_there_say_what_was_looked_for() {
        assert!(error("no-such-folder").contains("\"digits\""));
        assert!(!error("no-such-folder").contains("Hub"));
        assert!(error("huggan/smithsonian_butterflies_subset").contains("Hub is not there yet"));
        assert!(!error("/no/such/folder").contains("Hub"));
        assert!(!error("./no/such").contains("Hub"));
    }

    #[test]
    fn a_file_is_not_a_data_set() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(error(file.path().to_str().unwrap()).contains("is a file"));
    }
}
