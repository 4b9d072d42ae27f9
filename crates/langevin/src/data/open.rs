//! From a name or a path to a data set.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use super::{
    Alpha, ClassSubset, Dataset, IdxDataset, ImageFolder, Medium, SoundFolder, digits, idx, named,
    paths::is_file_beside, repository::CARD, sound::is_sound_name, sounds, split, store::Store, tar, zip,
};
use crate::{Error, Result};

/// How a data set is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Which of several configurations that are kept together, as the second argument of Hugging Face's
    /// `load_dataset`; only repositories of parquet files have any.
    pub config: Option<String>,
    /// The part of the data set: `train`, `test`, `validation`, or a name of its own.
    pub split: String,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// The column of pictures that [`Example::conditioning`](super::Example) is read from: of parquet files, or
    /// `COLUMN_file_name` in the metadata of a folder.
    pub conditioning_column: Option<String>,
    /// The column that [`Example::caption`](super::Example) is read from; `None` is the first that there is of `text`, `caption` and
    /// `prompt`.
    pub caption_column: Option<String>,
    /// The columns that [`Example::attributes`](super::Example) are read from: 1 or true where a picture has the attribute, 0, -1 or
    /// false where it has not.
    pub attribute_columns: Vec<String>,
    /// Whether pictures are read, or sounds.
    pub medium: Medium,
    /// The classes whose pictures are kept, by names or numbers, each or several with commas between them; empty keeps all.
    pub only_classes: Vec<String>,
}

impl Default for OpenOptions {
    /// The part to train on, transparency laid onto white.
    fn default() -> Self {
        Self {
            config: None,
            split: split::TRAIN.into(),
            alpha: Alpha::default(),
            conditioning_column: None,
            caption_column: None,
            attribute_columns: vec![],
            medium: Medium::default(),
            only_classes: vec![],
        }
    }
}

/// [`open_with`] the default options: the split `train`, transparency laid onto white.
///
/// # Errors
/// As [`open_with`].
pub fn open(name_or_path: &str) -> Result<Box<dyn Dataset>> {
    open_with(name_or_path, &OpenOptions::default())
}

/// Opens a data set by name or path. In this order:
///
/// * `digits` is the built-in one; a folder that is itself called so is opened as `./digits`;
/// * a folder with IDX files named as MNIST's is an [`IdxDataset`];
/// * a folder with parquet files is read as a repository of the Hugging Face Hub, where the library is built with the
///   feature `parquet`;
/// * a folder of tar archives without pictures beside them is a data set in shards, as WebDataset has it;
/// * any other folder is an [`ImageFolder`];
/// * a file is one of these by its first bytes: a parquet file, a zip or tar archive of a folder of pictures, an IDX file,
///   gzipped or not.
///
/// # Errors
/// If there is no such data set (the error says what was looked for, and where), or what is there cannot be read as
/// one, or has not the configuration, the split or the classes that are asked for.
pub fn open_with(name_or_path: &str, options: &OpenOptions) -> Result<Box<dyn Dataset>> {
    let whole = open_whole(name_or_path, options)?;
    Ok(if options.only_classes.is_empty() {
        whole
    } else {
        Box::new(ClassSubset::new(whole, &options.only_classes)?)
    })
}

fn open_whole(name_or_path: &str, options: &OpenOptions) -> Result<Box<dyn Dataset>> {
    let path = Path::new(name_or_path);
    if name_or_path == "digits" {
        no_config(name_or_path, options)?;
        no_column(name_or_path, options)?;
        only_train(name_or_path, options)?;
        no_sounds(name_or_path, options)?;
        return Ok(Box::new(digits()?));
    }
    if path.is_dir() {
        return open_folder(path, options);
    }
    if path.exists() {
        return open_file(path, options);
    }
    let here = std::env::current_dir()
        .map(|d| d.display().to_string())
        .unwrap_or_else(|_| ".".into());
    let looked = format!(
        "there is no data set \"{name_or_path}\": it is neither the built-in one (\"digits\") nor a folder or file \
         (looked for in {here})"
    );
    Err(if looks_like_hub_name(name_or_path) {
        Error::Unsupported(format!(
            "{looked}; if it is a repository of the Hugging Face Hub, pull it and name the folder"
        ))
    } else {
        Error::Config(looked)
    })
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Box<dyn Dataset>> {
    if let Some(idx) = IdxDataset::find(path, &options.split)? {
        no_config(path.display(), options)?;
        no_column(path.display(), options)?;
        no_sounds(path.display(), options)?;
        return Ok(Box::new(idx));
    }
    let store = Store::folder(path)?;
    let mut listing = store.list()?;
    options.medium.choose(path, &mut listing)?;
    if !listing.parquet.is_empty() {
        return parquet::open_repository(path, listing.parquet, options);
    }
    let card = path.join(CARD);
    let named = match is_file_beside(&card) {
        true => {
            let text = store.read_text(Path::new(CARD)).unwrap_or_default();
            named::keep_named(&mut listing, &text, options).map_err(|message| Error::file(path, message))?
        }
        false => None,
    };
    listing.is_split = named == Some(true);
    if named.is_none() {
        no_config(path.display(), options)?;
    }
    if listing.pictures.is_empty() && !listing.tars.is_empty() {
        return Ok(of_medium(
            ImageFolder::of_shards(path, &listing.tars, options)?,
            options,
        ));
    }
    Ok(of_medium(ImageFolder::of(store, listing, options)?, options))
}

/// The files of a folder or archive as what they are read as.
fn of_medium(folder: ImageFolder, options: &OpenOptions) -> Box<dyn Dataset> {
    match &options.medium {
        Medium::Sounds(hear) => Box::new(SoundFolder::new(folder, Arc::clone(hear))),
        _ => Box::new(folder),
    }
}

/// Refuses sounds where there can only be pictures.
fn no_sounds(name: impl std::fmt::Display, options: &OpenOptions) -> Result<()> {
    match options.medium {
        Medium::Sounds(_) => Err(Error::option(
            &["codec"],
            format!("the data set {name} holds pictures, and no sounds: leave `codec` out"),
        )),
        _ => Ok(()),
    }
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<Box<dyn Dataset>> {
    no_config(path.display(), options)?;
    // A pipe or a device must not keep the program waiting.
    if !std::fs::metadata(path)
        .map_err(|e| Error::io("read", path, e))?
        .is_file()
    {
        return Err(Error::file(path, "is neither a folder nor a regular file"));
    }
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(512).read_to_end(&mut start))
        .map_err(|e| Error::io("read", path, e))?;
    let first = start.get(..4).unwrap_or(&start);
    if zip::MAGIC.contains(&first) {
        Ok(of_medium(ImageFolder::open_zip(path, options)?, options))
    } else if tar::is_tar(&start) {
        Ok(of_medium(ImageFolder::open_tar(path, options)?, options))
    } else if first == b"PAR1" {
        only_train(path.display(), options)?;
        parquet::open(path, options)
    } else if first.starts_with(idx::GZIP) || first == idx::IDX_PICTURES {
        let name = path.to_string_lossy().to_ascii_lowercase();
        if [".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending)) {
            return Err(Error::file(
                path,
                "is a compressed tar archive, which is not supported: unpack it with gunzip",
            ));
        }
        only_train(path.display(), options)?;
        no_column(path.display(), options)?;
        no_sounds(path.display(), options)?;
        Ok(Box::new(IdxDataset::open(path)?))
    } else if let (Medium::Sounds(hear), true) = (&options.medium, is_sound_name(path)) {
        only_train(path.display(), options)?;
        no_column(path.display(), options)?;
        Ok(Box::new(sounds::of_file(path, hear)?))
    } else {
        Err(Error::file(
            path,
            "is a file, but no data set: a parquet file, a zip or tar archive of a folder of pictures, or an IDX file of \
             pictures, gzipped or not, is one; a folder of pictures is named itself",
        ))
    }
}

/// Refuses a configuration where there can be none.
fn no_config(name: impl std::fmt::Display, options: &OpenOptions) -> Result<()> {
    match options.config.as_deref() {
        None | Some("default") => Ok(()),
        Some(config) => Err(Error::Config(format!(
            "the data set {name} has no configurations, so there is none called `{config}`"
        ))),
    }
}

/// Refuses columns of attributes where there are none.
pub(super) fn no_attributes(name: impl std::fmt::Display, options: &OpenOptions) -> Result<()> {
    let Some(column) = options.attribute_columns.first() else {
        return Ok(());
    };
    Err(Error::option(
        &["attribute_columns"],
        format!(
            "the data set {name} has no columns, so there is no `{column}` (`attribute_columns`): attributes are columns of a \
             metadata.csv or metadata.jsonl beside the pictures, or of parquet files"
        ),
    ))
}

/// Refuses columns where there are only pictures and classes.
pub(super) fn no_column(name: impl std::fmt::Display, options: &OpenOptions) -> Result<()> {
    no_attributes(&name, options)?;
    if let Some(column) = &options.caption_column {
        return Err(Error::option(
            &["caption_column"],
            format!(
                "the data set {name} has no columns, so there are no captions in `{column}` (`caption_column`): captions are a \
                 column of a metadata.csv or metadata.jsonl beside the pictures, or of parquet files"
            ),
        ));
    }
    match &options.conditioning_column {
        None => Ok(()),
        Some(column) => Err(Error::Config(format!(
            "the data set {name} has no columns, so there are no conditioning pictures in `{column}`; what can be made of \
             the pictures themselves is grey, blur:SIGMA, downscale:FACTOR, edges and mask"
        ))),
    }
}

/// Refuses another split where there can be only one.
fn only_train(name: impl std::fmt::Display, options: &OpenOptions) -> Result<()> {
    if split::canonical(&options.split) == split::TRAIN {
        return Ok(());
    }
    Err(Error::Config(format!(
        "the data set {name} has no splits: all of it is `{}`, and there is no `{}`",
        split::TRAIN,
        options.split
    )))
}

#[cfg(feature = "parquet")]
mod parquet {
    use std::path::PathBuf;

    use super::{Dataset, OpenOptions, Path, Result};
    use crate::data::ParquetDataset;

    pub(super) fn open_repository(
        folder: &Path,
        files: Vec<PathBuf>,
        options: &OpenOptions,
    ) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(ParquetDataset::of_repository(folder, files, options)?))
    }

    pub(super) fn open(file: &Path, options: &OpenOptions) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(ParquetDataset::open(file, options)?))
    }
}

#[cfg(not(feature = "parquet"))]
mod parquet {
    use std::path::PathBuf;

    use super::{Dataset, Error, OpenOptions, Path, Result};

    pub fn open_repository(folder: &Path, _: Vec<PathBuf>, _: &OpenOptions) -> Result<Box<dyn Dataset>> {
        Err(not_built(folder, "holds parquet files"))
    }

    pub fn open(file: &Path, _: &OpenOptions) -> Result<Box<dyn Dataset>> {
        Err(not_built(file, "is a parquet file"))
    }

    fn not_built(path: &Path, what: &str) -> Error {
        Error::Unsupported(format!(
            "{}: {what}, and this build reads none: build with the feature `parquet`",
            path.display()
        ))
    }
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

    fn error(name: &str, options: &OpenOptions) -> String {
        open_with(name, options)
            .err()
            .expect("no such data set")
            .to_string()
    }

    fn plain(name: &str) -> String {
        error(name, &OpenOptions::default())
    }

    #[test]
    fn names_that_are_not_there_say_what_was_looked_for() {
        assert!(plain("no-such-folder").contains("\"digits\""));
        assert!(!plain("no-such-folder").contains("Hub"));
        assert!(plain("huggan/smithsonian_butterflies_subset").contains("of the Hugging Face Hub, pull it"));
        assert!(!plain("/no/such/folder").contains("Hub"));
        assert!(!plain("./no/such").contains("Hub"));
    }

    #[test]
    fn a_file_that_is_no_data_set_is_told_what_would_be_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        assert!(plain(name).contains("is a file, but no data set"));
        std::fs::write(name, b"\x89PNG\r\n").unwrap();
        assert!(plain(name).contains("a folder of pictures is named itself"));
        std::fs::write(name, b"PK\x03\x04").unwrap();
        assert!(plain(name).contains("zip archive"));
        std::fs::write(name, b"\x1F\x8B\0\0").unwrap();
        assert!(plain(name).contains("IDX"));
    }

    #[test]
    fn splits_and_configurations_that_are_not_there_are_refused() {
        let with = |config: Option<&str>, split: &str| OpenOptions {
            config: config.map(String::from),
            split: split.into(),
            ..OpenOptions::default()
        };
        assert!(error("digits", &with(None, "test")).contains("has no splits"));
        assert!(error("digits", &with(Some("large"), "train")).contains("none called `large`"));
        assert!(open_with("digits", &with(Some("default"), "train")).is_ok());
    }
}
