//! A picture that a request brings along.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use burn::tensor::Tensor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Picture, read_picture};
use crate::{Error, Result};

/// A picture that a request brings along, in whichever form.
///
/// As text, on a command line, it is a file. In JSON it is the file's bytes in base64, or a `data:` URL of them, and never a file: a
/// request that comes over a network names nothing of this machine.
#[derive(Clone, Debug)]
// A request holds a handful.
#[allow(clippy::large_enum_variant)]
pub enum ImageInput {
    /// A file of this machine.
    File(PathBuf),
    /// An encoded picture in base64, or a `data:` URL.
    Base64(String),
    /// A decoded picture.
    Picture(Picture),
    /// Pictures of the model's size already: `[1 or count, channels, height, width]` in -1..1.
    Tensor(Tensor<4>),
    /// Several, which a request's pictures take in turn.
    Several(Vec<Self>),
}

impl ImageInput {
    /// The decoded pictures, one or several.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_all(&self) -> Result<Vec<Picture>> {
        match self {
            Self::Several(all) if all.is_empty() => {
                Err(Error::Config("an empty list of pictures was given".into()))
            }
            Self::Several(all) => all.iter().map(Self::read).collect(),
            one => Ok(vec![one.read()?]),
        }
    }

    /// Each of the pictures, for whoever brings them into another form.
    pub fn each_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Several(all) => all.iter_mut().flat_map(Self::each_mut).collect(),
            one => vec![one],
        }
    }

    /// The decoded picture.
    ///
    /// # Errors
    /// If the file cannot be read or decoded, or this is none: what is in base64 is decoded by whoever received it, who knows how large
    /// it may be.
    pub fn read(&self) -> Result<Picture> {
        match self {
            Self::File(path) => read_picture(path),
            Self::Picture(picture) => Ok(picture.clone()),
            Self::Base64(_) => Err(Error::Config("the picture is still encoded in base64".into())),
            Self::Several(all) => match all.as_slice() {
                [one] => one.read(),
                all => Err(Error::Config(format!(
                    "{} pictures were given where one is needed",
                    all.len()
                ))),
            },
            Self::Tensor(_) => Err(Error::Config(
                "a tensor was given where a picture's file is needed".into(),
            )),
        }
    }
}

impl FromStr for ImageInput {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(Self::File(text.into()))
    }
}

impl From<Picture> for ImageInput {
    fn from(picture: Picture) -> Self {
        Self::Picture(picture)
    }
}

impl From<Tensor<4>> for ImageInput {
    fn from(pictures: Tensor<4>) -> Self {
        Self::Tensor(pictures)
    }
}

impl fmt::Display for ImageInput {
    /// What messages call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            _ => f.write_str("the picture"),
        }
    }
}

impl<'de> Deserialize<'de> for ImageInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => Self::Base64(text),
            OneOrMany::Many(all) => Self::Several(all.into_iter().map(Self::Base64).collect()),
        })
    }
}

impl Serialize for ImageInput {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Base64(text) => text.serialize(serializer),
            Self::Several(all) => all.serialize(serializer),
            _ => Err(serde::ser::Error::custom(
                "only a picture that is encoded already is written as JSON",
            )),
        }
    }
}
