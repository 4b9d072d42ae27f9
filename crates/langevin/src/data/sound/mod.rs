//! Sounds: samples at a rate, from files and into files.
//!
//! WAV files are read and written by this library itself; with the feature `sound`, FLAC, MP3, OGG and M4A files are read too.

#[cfg(feature = "sound")]
mod decode;
mod flac;
mod frames;
mod input;
mod resample;
mod source;
mod wav;

use std::{io::Write, path::Path};

pub use self::{
    input::SoundInput,
    resample::Resampler,
    source::{Bytes, SoundReader},
};
use crate::{Error, Result, files};

/// The endings of files that are taken for sounds, in lower case. What a file is, its first bytes say.
pub const EXTENSIONS: [&str; 8] = ["wav", "wave", "flac", "mp3", "ogg", "oga", "m4a", "aac"];

/// The endings of sounds of kinds that are not read.
const UNREAD: [&str; 11] = [
    "opus", "wma", "aif", "aiff", "au", "mid", "midi", "ape", "wv", "amr", "caf",
];

/// One channel of samples, from -1 to 1 where nothing is too loud for a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// Samples a second.
    pub rate: u32,
    /// The samples, in order.
    pub samples: Vec<f32>,
}

/// Whether `path` ends as sounds' names do, in small or capital letters.
pub fn is_sound_name(path: impl AsRef<Path>) -> bool {
    ends_as(path.as_ref(), &EXTENSIONS)
}

/// Whether files that end so, in lower case, are sounds of a kind that is not read.
pub(super) fn is_unread_sound(ending: &str) -> bool {
    UNREAD.contains(&ending)
}

fn ends_as(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.contains(&ending.to_ascii_lowercase().as_str()))
}

impl Sound {
    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// The loudest sample's distance from silence.
    pub fn peak(&self) -> f32 {
        self.samples
            .iter()
            .fold(0.0, |peak, sample| peak.max(sample.abs()))
    }

    /// The same as loud as a file holds without clipping, with a little room: how loud a spectrogram's sound was is not known. Silence
    /// stays silent.
    pub fn normalized(mut self) -> Self {
        const LOUDEST: f32 = 0.89;
        let peak = self.peak();
        if peak > 0.0 && peak.is_finite() {
            let scale = LOUDEST / peak;
            self.samples.iter_mut().for_each(|sample| *sample *= scale);
        }
        self
    }

    /// Reads a file as one channel, at another rate than its own where one is named. The file is decoded in pieces; what is kept is at most
    /// `most` seconds of it.
    ///
    /// # Errors
    /// If it cannot be read, is no sound or damaged, or is longer.
    pub fn read(path: impl AsRef<Path>, rate: Option<u32>, most: f64) -> Result<Self> {
        let path = path.as_ref();
        let mut reader = SoundReader::open(path, rate)?;
        let samples = reader.len();
        if samples as f64 > most * f64::from(reader.rate()) {
            return Err(Error::file(
                path,
                format!(
                    "is {:.0} s long, and {most:.0} s are read at most: cut it",
                    reader.seconds()
                ),
            ));
        }
        Ok(Self {
            rate: reader.rate(),
            samples: reader.read(0, samples as usize)?,
        })
    }

    /// The bytes of a WAV file of 16 bits a sample. What is louder than such a file can hold is clipped.
    pub fn wav(&self) -> Vec<u8> {
        wav::bytes(self)
    }

    /// The bytes of a file of the kind that its name's ending says: .flac, or a WAV file.
    pub fn encoded(&self, path: &Path) -> Vec<u8> {
        match ends_as(path, &["flac"]) {
            true => flac::bytes(self),
            false => self.wav(),
        }
    }

    /// Writes it as [`Self::encoded`] has it, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = self.encoded(path.as_ref());
        files::write_atomically(path, |file: &mut dyn Write| file.write_all(&bytes))
    }

    /// The samples as 16-bit numbers.
    fn sixteen_bits(&self) -> impl Iterator<Item = i16> + '_ {
        self.samples
            .iter()
            .map(|sample| (sample * 32_768.0).round_ties_even() as i16)
    }
}
