//! The loss of a run, read as its file grows and held in bounded memory.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::METRICS;
use crate::{Error, Result, files};

/// Stretches of steps that are held at most; with one more, neighbours become one.
const STRETCHES: usize = 2400;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 16;
/// A longer line is no line of metrics, and is passed over.
const LONGEST_LINE: usize = 1 << 16;
/// Bytes before the place that was read up to, by which the file is known again.
const KNOWN: usize = 256;

/// What is read of a line of [`METRICS`].
#[derive(Deserialize)]
struct Line {
    step: Option<u64>,
    loss: Option<f64>,
}

/// Steps that follow each other, as one.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// The last of the steps.
    step: u64,
    sum: f64,
    count: usize,
}

impl Stretch {
    fn add(&mut self, other: Self) {
        self.step = other.step;
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// The loss by step of one run. Each look reads what its file has gained since the last one; a run of any length takes the same memory.
#[derive(Debug)]
pub struct LossCurve {
    path: PathBuf,
    /// How many bytes were read.
    read: u64,
    /// The last of them: a file that has others there was written anew.
    known: Vec<u8>,
    /// The line that was not whole yet.
    rest: Vec<u8>,
    /// Whether that line is too long to be one.
    is_too_long: bool,
    stretches: Vec<Stretch>,
    /// Steps of a whole stretch.
    length: usize,
}

impl LossCurve {
    /// The curve of the run in `folder`, of which nothing is read yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(METRICS),
            read: 0,
            known: Vec::new(),
            rest: Vec::new(),
            is_too_long: false,
            stretches: Vec::new(),
            length: 1,
        }
    }

    /// Reads what is new since the last look, or all of a file that was written anew. A run that has no file yet has an empty curve.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn update(&mut self) -> Result<()> {
        if !self.path.exists() {
            self.forget();
            return Ok(());
        }
        let mut file = files::open(&self.path)?;
        let path = self.path.clone();
        let fail = |e| Error::io("read", &path, e);
        let length = file.metadata().map_err(fail)?.len();
        if !self.is_known(&mut file, length).map_err(fail)? {
            self.forget();
        }
        file.seek(SeekFrom::Start(self.read)).map_err(fail)?;
        // A file that grows faster than it is read is read up to its present end.
        let mut news = file.take(length.saturating_sub(self.read));
        let mut piece = vec![0; PIECE];
        loop {
            let count = news.read(&mut piece).map_err(fail)?;
            if count == 0 {
                return Ok(());
            }
            self.take(&piece[..count]);
        }
    }

    /// Step and mean loss of stretches of equal length, `points` of them at most.
    pub fn points(&self, points: usize) -> Vec<(u64, f64)> {
        let together = self.stretches.len().div_ceil(points.max(1)).max(1);
        let mean = |stretches: &[Stretch]| {
            let mut whole = stretches[0];
            stretches[1..].iter().for_each(|next| whole.add(*next));
            (whole.step, whole.sum / whole.count as f64)
        };
        self.stretches.chunks(together).map(mean).collect()
    }

    fn forget(&mut self) {
        let folder = self.path.parent().unwrap_or(Path::new("")).to_path_buf();
        *self = Self::new(&folder);
    }

    /// Whether the file begins with what was read.
    fn is_known(&self, file: &mut File, length: u64) -> std::io::Result<bool> {
        if length < self.read {
            return Ok(false);
        }
        let mut there = vec![0; self.known.len()];
        file.seek(SeekFrom::Start(self.read - there.len() as u64))?;
        file.read_exact(&mut there)?;
        Ok(there == self.known)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        let new = &bytes[bytes.len().saturating_sub(KNOWN)..];
        let kept = self.known.len().saturating_sub(KNOWN - new.len());
        self.known.drain(..kept);
        self.known.extend(new);
        let mut lines = bytes.split(|&byte| byte == b'\n').peekable();
        while let Some(part) = lines.next() {
            if self.rest.len() + part.len() > LONGEST_LINE {
                self.is_too_long = true;
                self.rest.clear();
            }
            if lines.peek().is_none() {
                // It may go on in the next piece.
                if !self.is_too_long {
                    self.rest.extend(part);
                }
                return;
            }
            let is_too_long = std::mem::take(&mut self.is_too_long);
            let read = match self.rest.is_empty() {
                true => serde_json::from_slice::<Line>(part),
                false => {
                    self.rest.extend(part);
                    serde_json::from_slice::<Line>(&std::mem::take(&mut self.rest))
                }
            };
            if let (
                false,
                Ok(Line {
                    step: Some(step),
                    loss: Some(loss),
                }),
            ) = (is_too_long, read)
            {
                self.add(step, loss);
            }
        }
    }

    fn add(&mut self, step: u64, loss: f64) {
        let new = Stretch {
            step,
            sum: loss,
            count: 1,
        };
        match self.stretches.last_mut() {
            Some(last) if last.count < self.length => last.add(new),
            _ => self.stretches.push(new),
        }
        if self.stretches.len() > STRETCHES {
            let pairs = self.stretches.chunks(2).map(|pair| {
                let mut whole = pair[0];
                pair[1..].iter().for_each(|next| whole.add(*next));
                whole
            });
            self.stretches = pairs.collect();
            self.length *= 2;
        }
    }
}

/// The last step of a run and its last losses, `most` of them, read from the end of its file.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn recent_losses(folder: &Path, most: usize) -> Result<(u64, Vec<f64>)> {
    /// The first look, and how much more the next one takes.
    const LOOK: u64 = 1 << 14;
    const FURTHER: u64 = 8;
    /// Whoever has no loss in so many bytes has none.
    const FARTHEST: u64 = 1 << 20;
    let path = folder.join(METRICS);
    if !path.exists() {
        return Ok((0, Vec::new()));
    }
    let mut file = files::open(&path)?;
    let fail = |e| Error::io("read", &path, e);
    let length = file.metadata().map_err(fail)?.len();
    let mut look = LOOK;
    loop {
        let start = length.saturating_sub(look);
        file.seek(SeekFrom::Start(start)).map_err(fail)?;
        let mut bytes = Vec::new();
        (&file).take(look).read_to_end(&mut bytes).map_err(fail)?;
        // The first line may have begun before, and the last one may be half written.
        let lines = bytes.split(|&byte| byte == b'\n').skip(usize::from(start > 0));
        let mut last = 0;
        let mut losses: Vec<f64> = Vec::new();
        for line in lines {
            if let Ok(Line {
                step: Some(step),
                loss: Some(loss),
            }) = serde_json::from_slice(line)
            {
                last = step;
                losses.push(loss);
            }
        }
        if losses.len() >= most || start == 0 || look >= FARTHEST {
            losses.drain(..losses.len().saturating_sub(most));
            return Ok((last, losses));
        }
        look *= FURTHER;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    fn line(step: u64) -> String {
        format!("{{\"step\":{step},\"epoch\":0,\"loss\":{}}}\n", 1.0 / step as f64)
    }

    #[test]
    fn a_curve_is_read_once_and_then_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS);
        let mut curve = LossCurve::new(folder.path());
        curve.update().unwrap();
        assert!(curve.points(10).is_empty());
        fs::write(&path, (1..=10_000).map(line).collect::<String>()).unwrap();
        curve.update().unwrap();
        let read = curve.read;
        assert_eq!(read, fs::metadata(&path).unwrap().len());

        // A line comes in two halves, and then others.
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let (first, second) = (line(10_001), (10_002..=12_000).map(line).collect::<String>());
        file.write_all(&first.as_bytes()[..9]).unwrap();
        curve.update().unwrap();
        file.write_all(&first.as_bytes()[9..]).unwrap();
        file.write_all(second.as_bytes()).unwrap();
        curve.update().unwrap();
        let points = curve.points(600);
        assert!(points.len() <= 600 && points.len() > 250, "{}", points.len());
        assert_eq!(points.last().unwrap().0, 12_000);
        // The mean of all means is the mean of all losses, however they are held.
        let mean = (1..=12_000).map(|step| 1.0 / f64::from(step)).sum::<f64>() / 12_000.0;
        assert!((curve.points(1)[0].1 - mean).abs() < 1e-12);
        assert_eq!(curve.stretches.iter().map(|one| one.count).sum::<usize>(), 12_000);
        assert!(
            curve.stretches.capacity() <= 2 * STRETCHES,
            "{}",
            curve.stretches.capacity()
        );
    }

    #[test]
    fn a_file_that_was_written_anew_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS);
        let mut curve = LossCurve::new(folder.path());
        fs::write(&path, (1..=100).map(line).collect::<String>()).unwrap();
        curve.update().unwrap();
        // Shorter, as after a resume; and as long as before with other steps.
        fs::write(&path, (1..=50).map(line).collect::<String>()).unwrap();
        curve.update().unwrap();
        assert_eq!(curve.points(600).len(), 50);
        let other: String = (1..=50)
            .map(|step| line(step).replace("\"epoch\":0", "\"epoch\":1"))
            .collect();
        fs::write(&path, other.clone() + &line(51)).unwrap();
        curve.update().unwrap();
        assert_eq!(curve.points(600).len(), 51);
        fs::remove_file(&path).unwrap();
        curve.update().unwrap();
        assert!(curve.points(600).is_empty());
    }

    #[test]
    fn what_is_no_line_is_passed_over_in_bounded_memory() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(5 * LONGEST_LINE);
        let text = format!("{}{long}\n{{\"step\":2}}\n[]\n\n{}", line(1), line(3));
        fs::write(folder.path().join(METRICS), text).unwrap();
        let mut curve = LossCurve::new(folder.path());
        curve.update().unwrap();
        assert_eq!(curve.points(600), [(1, 1.0), (3, 1.0 / 3.0)]);
        assert!(curve.rest.capacity() <= 2 * LONGEST_LINE);
    }

    #[test]
    fn the_end_of_a_run_is_read_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS);
        fs::write(
            &path,
            (1..=100_000).map(line).collect::<String>() + "{\"step\":100001,\"lo",
        )
        .unwrap();
        let (last, losses) = recent_losses(folder.path(), 50).unwrap();
        assert_eq!((last, losses.len()), (100_000, 50));
        assert_eq!(losses[49], 1.0 / 100_000.0);
        assert_eq!(recent_losses(folder.path(), 5000).unwrap().1.len(), 5000);
    }
}
