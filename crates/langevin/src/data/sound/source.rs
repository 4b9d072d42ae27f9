//! A sound's file, of which parts are read: whatever its kind and rate, one channel at the rate that is wanted.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Resampler, Sound, frames::Frames, wav};
use crate::{Error, Result};

/// Samples in memory.
struct InMemory(Arc<Sound>);

impl Frames for InMemory {
    fn rate(&self) -> u32 {
        self.0.rate
    }

    fn frames(&self) -> u64 {
        self.0.samples.len() as u64
    }

    fn read(&mut self, from: u64, mono: &mut Vec<f32>, count: usize) -> Result<(), String> {
        let from = self.0.samples.len().min(from as usize);
        let end = self.0.samples.len().min(from + count);
        mono.extend(&self.0.samples[from..end]);
        Ok(())
    }
}

/// Bytes of a sound's file in memory.
#[derive(Clone, Debug)]
pub struct Bytes(pub Arc<[u8]>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads parts of a sound's file.
pub struct SoundReader {
    name: PathBuf,
    frames: Box<dyn Frames>,
    resampler: Resampler,
    rate: u32,
}

impl std::fmt::Debug for SoundReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoundReader")
            .field("name", &self.name)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

/// Most samples that are decoded at a time.
const PIECE: usize = 1 << 18;

impl SoundReader {
    /// Opens a file, to be read at `rate` or its own.
    ///
    /// # Errors
    /// If it cannot be read, or is no sound that is read here.
    pub fn open(path: impl AsRef<Path>, rate: Option<u32>) -> Result<Self> {
        let path = path.as_ref();
        let io = |e| Error::io("read", path, e);
        // A pipe or a device must not keep a loader waiting.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::file(path, "is not a regular file"));
        }
        let file = File::open(path).map_err(io)?;
        Self::of(path, BufReader::with_capacity(1 << 16, file), rate)
    }

    /// Opens a file that is in memory; messages call it `name`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_bytes(name: &Path, bytes: Bytes, rate: Option<u32>) -> Result<Self> {
        Self::of(name, Cursor::new(bytes), rate)
    }

    /// Reads samples that are in memory.
    ///
    /// # Errors
    /// If there are none.
    pub fn of_sound(name: &Path, sound: Arc<Sound>, rate: u32) -> Result<Self> {
        let own = sound.rate;
        if sound.samples.is_empty() {
            return Err(Error::file(name, "holds no samples"));
        }
        Ok(Self {
            name: name.to_path_buf(),
            frames: Box::new(InMemory(sound)),
            resampler: Resampler::new(own, rate),
            rate,
        })
    }

    fn of<R: Read + Seek + Send + Sync + 'static>(
        name: &Path,
        mut file: R,
        rate: Option<u32>,
    ) -> Result<Self> {
        let wrong = |message: String| Error::file(name, message);
        let mut start = Vec::new();
        let begin = (&mut file).take(16).read_to_end(&mut start);
        begin
            .and_then(|_| file.seek(SeekFrom::Start(0)))
            .map_err(|e| Error::io("read", name, e))?;
        if start.is_empty() {
            return Err(wrong("is empty".into()));
        }
        let header = match wav::is_wav(&start) {
            true => wav::Header::read(&mut file).map_err(wrong)?,
            false => None,
        };
        let frames: Box<dyn Frames> = match header {
            Some(header) => Box::new(wav::Wav::new(file, header)),
            None => {
                file.seek(SeekFrom::Start(0))
                    .map_err(|e| Error::io("read", name, e))?;
                other(name, file)?
            }
        };
        if frames.frames() == 0 {
            return Err(wrong("holds no samples".into()));
        }
        let own = frames.rate();
        let rate = rate.unwrap_or(own);
        Ok(Self {
            name: name.to_path_buf(),
            frames,
            resampler: Resampler::new(own, rate),
            rate,
        })
    }

    /// Samples a second, as they are read.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// How many samples there are at that rate.
    pub fn len(&self) -> u64 {
        self.resampler.count(self.frames.frames())
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames.frames() as f64 / f64::from(self.frames.rate())
    }

    /// `count` samples from `from` on, or as many as there are.
    ///
    /// # Errors
    /// If what is there is damaged.
    pub fn read(&mut self, from: u64, count: usize) -> Result<Vec<f32>> {
        let count = self.len().saturating_sub(from).min(count as u64) as usize;
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let piece = PIECE.min(count - all.len());
            all.extend(self.piece(from + all.len() as u64, piece)?);
        }
        Ok(all)
    }

    fn piece(&mut self, from: u64, count: usize) -> Result<Vec<f32>> {
        let (begin, needed) = self.resampler.needed(from, count);
        let mut samples = Vec::with_capacity(needed);
        // There is silence before the first sample and after the last.
        samples.resize(usize::try_from(-begin).unwrap_or(0).min(needed), 0.0);
        let missing = needed - samples.len();
        self.frames
            .read(begin.max(0) as u64, &mut samples, missing)
            .map_err(|message| Error::file(&self.name, message))?;
        samples.resize(needed, 0.0);
        Ok(self.resampler.resample(&samples, from, count))
    }
}

#[cfg(feature = "sound")]
fn other<R: Read + Seek + Send + Sync + 'static>(name: &Path, file: R) -> Result<Box<dyn Frames>> {
    super::decode::Decoded::open(name, file)
        .map(|decoded| Box::new(decoded) as _)
        .map_err(|message| Error::file(name, message))
}

#[cfg(not(feature = "sound"))]
fn other<R>(name: &Path, _: R) -> Result<Box<dyn Frames>> {
    Err(Error::Unsupported(format!(
        "{}: is no WAV file of a usual kind, and this build reads no other sounds: build with the feature `sound`",
        name.display()
    )))
}
