//! A sound that a request brings along.

use std::{
    convert::Infallible,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Bytes, Sound, SoundReader};
use crate::{Error, Result};

/// A sound that a request brings along, in whichever form.
///
/// As text, on a command line, it is a file. In JSON it is the file's bytes in base64, or a `data:` URL of them, and never a file.
#[derive(Clone, Debug)]
pub enum SoundInput {
    /// A file of this machine.
    File(PathBuf),
    /// An encoded sound in base64, or a `data:` URL.
    Base64(String),
    /// An encoded sound.
    Bytes(Bytes),
    /// Samples.
    Sound(Arc<Sound>),
}

impl SoundInput {
    /// The sound, to be read in parts at `rate`.
    ///
    /// # Errors
    /// If it cannot be read, or is still in base64: that is decoded by whoever received it, who knows how large it may be.
    pub fn open(&self, rate: u32) -> Result<SoundReader> {
        let name = Path::new("the sound");
        match self {
            Self::File(path) => SoundReader::open(path, Some(rate)),
            Self::Bytes(bytes) => SoundReader::of_bytes(name, bytes.clone(), Some(rate)),
            Self::Sound(sound) => SoundReader::of_sound(name, Arc::clone(sound), rate),
            Self::Base64(_) => Err(Error::Config("the sound is still encoded in base64".into())),
        }
    }
}

impl FromStr for SoundInput {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(Self::File(text.into()))
    }
}

impl From<Sound> for SoundInput {
    fn from(sound: Sound) -> Self {
        Self::Sound(Arc::new(sound))
    }
}

impl fmt::Display for SoundInput {
    /// What messages call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            _ => f.write_str("the sound"),
        }
    }
}

impl<'de> Deserialize<'de> for SoundInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::Base64)
    }
}

impl Serialize for SoundInput {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Base64(text) => text.serialize(serializer),
            _ => Err(serde::ser::Error::custom(
                "only a sound that is in base64 already is written as JSON",
            )),
        }
    }
}
