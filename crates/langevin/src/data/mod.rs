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

mod attribute;
mod buckets;
mod columns;
mod contain;
mod crop;
mod decode;
mod digits;
pub mod evaluate;
mod fingerprint;
mod fit;
mod folder;
mod idx;
mod image_input;
mod left_out;
mod loader;
mod medium;
mod memory;
mod metadata;
mod named;
mod open;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod paths;
mod picture;
mod preprocess;
mod repeats;
mod repository;
mod resample;
pub mod sound;
mod sounds;
pub mod split;
mod store;
mod subset;
mod summary;
mod tar;
mod transform;
mod zip;

pub use buckets::{BucketRule, Buckets, Target};
pub use contain::panics_are_contained;
pub use crop::Part;
pub use decode::{Alpha, EXTENSIONS, decode_picture, is_picture_name, read_picture, read_picture_with};
pub use digits::digits;
pub use fingerprint::Fingerprint;
pub use fit::{Fit, binary};
pub use folder::ImageFolder;
pub use idx::IdxDataset;
pub use image_input::ImageInput;
pub use loader::{Batch, Epoch, Loader, LoaderConfig};
pub use medium::{Hear, Medium};
pub(crate) use memory::{bytes_in_words, of_this_process};
pub use memory::{cache_limit, free_memory, machine_memory};
pub(crate) use open::looks_like_hub_name;
pub use open::{OpenOptions, open, open_with};
pub use order::{Group, epoch_order};
#[cfg(feature = "parquet")]
pub use parquet::ParquetDataset;
pub use picture::{Channels, Picture};
pub use preprocess::Preprocess;
pub use repeats::Repeated;
pub use repository::{RepositoryFiles, Unread, repository_files};
pub use resample::{Arithmetic, Filter, resized};
pub use sounds::SoundFolder;
pub use subset::ClassSubset;
pub use summary::DatasetSummary;
pub use transform::{Crop, Cut, Resize, Transform};

use crate::{Error, Result, random::Generator};

/// One picture of a data set with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The decoded picture, as large as it came.
    pub picture: Picture,
    /// Its class: an index into [`Dataset::class_names`].
    pub class: Option<usize>,
    /// What it shows, in words.
    pub caption: Option<String>,
    /// Another picture that belongs to it, where [`OpenOptions::conditioning_column`] asks for one: what a model is shown
    /// while it draws this one.
    pub conditioning: Option<Picture>,
    /// Whether it has each of the attributes in [`OpenOptions::attribute_columns`], in their order.
    pub attributes: Vec<bool>,
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

    /// The example at `index` as it is cut anew from something longer, where that is what it was cut from; the place is drawn from
    /// `generator`. `None` where there is nothing longer.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn cut(&self, index: usize, generator: &mut Generator) -> Option<Result<Example>> {
        let _ = (index, generator);
        None
    }

    /// The class of the picture at `index`, as [`Dataset::get`] has it; where that is known without the picture, without
    /// decoding it.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn class(&self, index: usize) -> Result<Option<usize>> {
        Ok(self.get(index)?.class)
    }

    /// The caption of the picture at `index`, as [`Dataset::get`] has it; where that is known without the picture, without decoding it.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn caption(&self, index: usize) -> Result<Option<String>> {
        Ok(self.get(index)?.caption)
    }

    /// Height and width of the picture at `index`, as [`Dataset::get`] has it; where a file's header tells, without decoding it.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn size(&self, index: usize) -> Result<[usize; 2]> {
        let picture = self.get(index)?.picture;
        Ok([picture.height(), picture.width()])
    }

    /// The name of the folder that the picture at `index` lies in, where it lies in one.
    fn folder(&self, index: usize) -> Option<String> {
        let _ = index;
        None
    }

    /// The number of the picture that the one at `index` is again, or `index` where it is a picture of its own.
    fn original(&self, index: usize) -> usize {
        index
    }

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

    /// The stretches that the pictures are read in, if reading one picture means reading others with it. They follow
    /// each other and cover the whole.
    fn groups(&self) -> Option<&[Group]> {
        None
    }

    /// What is there beside the pictures and is not used, and what they lack, each as a sentence: files that are passed over, other
    /// splits, columns, pictures without a class.
    fn left_out(&self) -> Vec<String> {
        vec![]
    }

    /// What it consists of, in short, so that a run that goes on can say whether its pictures are still the same. Made without decoding.
    /// Where a data set says nothing else, the number of its pictures and the names of its classes are all that counts.
    ///
    /// # Errors
    /// If something of it cannot be read.
    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(fingerprint::Fingerprinting::default().finish(self.len(), self.class_names()))
    }
}

/// The error for an index past a data set's end.
fn out_of_range(name: &str, index: usize, len: usize) -> Error {
    Error::Config(format!(
        "picture {index} was asked of the data set {name}, which has {len}"
    ))
}
