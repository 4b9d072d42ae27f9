//! WAV files: RIFF with whole or floating numbers, of any number of channels.

use std::io::{self, Read, Seek, SeekFrom};

use super::{
    Sound,
    frames::{Frames, check_rate},
};

/// What the format chunk calls the kinds of numbers.
const WHOLE: u16 = 1;
const FLOATING: u16 = 3;
const EXTENSIBLE: u16 = 0xFFFE;
/// A file of this size or more says elsewhere how large it is.
const UNKNOWN: u64 = 0xFFFF_FFFF;

/// The samples of a WAV file, read where they are wanted.
pub(super) struct Wav<R> {
    file: R,
    header: Header,
}

/// What a file says before its samples.
pub(super) struct Header {
    format: Format,
    /// Where the samples begin, and how many frames there are.
    start: u64,
    frames: u64,
}

/// How a sample is written.
#[derive(Clone, Copy)]
enum Number {
    /// Eight bits are not signed.
    Byte,
    /// Of two to four bytes.
    Whole(usize),
    Single,
    Double,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Whole(bytes) => bytes,
            Self::Single => 4,
            Self::Double => 8,
        }
    }

    fn value(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Self::Single, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            (Self::Double, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (Self::Byte, &[byte, ..]) => (f64::from(byte) - 128.0) / 128.0,
            (_, bytes) => {
                // At the upper end of 32 bits, so that the sign is.
                let mut whole = [0; 4];
                let missing = 4 - bytes.len().min(4);
                whole[missing..].copy_from_slice(&bytes[..4 - missing]);
                f64::from(i32::from_le_bytes(whole)) / 2_147_483_648.0
            }
        }
    }
}

/// What stands in a chunk of the format.
#[derive(Clone, Copy)]
struct Format {
    rate: u32,
    channels: usize,
    number: Number,
}

/// Whether a file begins as WAV files do.
pub(super) fn is_wav(start: &[u8]) -> bool {
    let of = |name: &[u8]| start.get(..4) == Some(name) && start.get(8..12) == Some(b"WAVE");
    of(b"RIFF") || of(b"RF64")
}

impl Header {
    /// Reads a file's chunks up to its samples. `None` where its numbers are of a kind that is not read here.
    ///
    /// # Errors
    /// If it is damaged; the part of a sentence that follows the file's name.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Option<Self>, String> {
        let size = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        let mut place = 12;
        let mut format = None;
        let mut long_size = None;
        while place + 8 <= size {
            file.seek(SeekFrom::Start(place)).map_err(unreadable)?;
            let mut head = [0; 8];
            file.read_exact(&mut head).map_err(unreadable)?;
            let [a, b, c, d, e, f, g, h] = head;
            let said = u64::from(u32::from_le_bytes([e, f, g, h]));
            let begin = place + 8;
            match &[a, b, c, d] {
                b"fmt " => match read_format(file, said.min(size - begin))? {
                    Some(read) => format = Some(read),
                    None => return Ok(None),
                },
                b"ds64" if said >= 16 => {
                    let mut sizes = [0; 16];
                    file.read_exact(&mut sizes).map_err(unreadable)?;
                    let mut data = [0; 8];
                    data.copy_from_slice(&sizes[8..]);
                    long_size = Some(u64::from_le_bytes(data));
                }
                b"data" => {
                    let Some(format) = format else {
                        return Err("is a WAV file whose samples come before it says what they are".into());
                    };
                    // Of a file that is cut off, or was written as it came, what is there.
                    let said = match long_size {
                        Some(long) if said == UNKNOWN => long,
                        _ => said,
                    };
                    let there = (size - begin).min(if said == 0 && size > begin { UNKNOWN } else { said });
                    let frame = (format.channels * format.number.bytes()) as u64;
                    return Ok(Some(Self {
                        format,
                        start: begin,
                        frames: there / frame,
                    }));
                }
                _ => {}
            }
            place = begin.saturating_add(said).saturating_add(said % 2);
        }
        Err("is a WAV file without samples".into())
    }
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

/// The format chunk; `None` where the numbers are of another kind.
fn read_format(file: &mut impl Read, size: u64) -> Result<Option<Format>, String> {
    let mut bytes = Vec::new();
    file.take(size.min(64))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let short = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let cut = || String::from("is a WAV file whose format is cut off");
    let (kind, channels) = (short(0).ok_or_else(cut)?, short(2).ok_or_else(cut)?);
    let [low, high] = [short(4).ok_or_else(cut)?, short(6).ok_or_else(cut)?];
    let (block, bits) = (short(12).ok_or_else(cut)?, short(14).ok_or_else(cut)?);
    let kind = match kind {
        EXTENSIBLE => short(24).ok_or_else(cut)?,
        kind => kind,
    };
    let rate = u32::from(high) << 16 | u32::from(low);
    if channels == 0 || channels > 256 {
        return Err(format!("is a WAV file of {channels} channels: 1 to 256 are read"));
    }
    check_rate(rate)?;
    // A sample of 20 bits lies in 24.
    let bytes = usize::from(block / channels).max(usize::from(bits.div_ceil(8)));
    let number = match (kind, bytes) {
        (WHOLE, 1) => Number::Byte,
        (WHOLE, 2..=4) => Number::Whole(bytes),
        (FLOATING, 4) => Number::Single,
        (FLOATING, 8) => Number::Double,
        _ => return Ok(None),
    };
    Ok(Some(Format {
        rate,
        channels: usize::from(channels),
        number,
    }))
}

impl<R> Wav<R> {
    /// The samples of a file with this header.
    pub(super) fn new(file: R, header: Header) -> Self {
        Self { file, header }
    }
}

/// Frames that are read at a time.
const PIECE: usize = 1 << 14;

impl<R: Read + Seek + Send> Frames for Wav<R> {
    fn rate(&self) -> u32 {
        self.header.format.rate
    }

    fn frames(&self) -> u64 {
        self.header.frames
    }

    fn read(&mut self, from: u64, mono: &mut Vec<f32>, count: usize) -> Result<(), String> {
        let Header {
            format,
            start,
            frames,
        } = &self.header;
        let Format { channels, number, .. } = *format;
        let count = frames.saturating_sub(from).min(count as u64) as usize;
        let frame = channels * number.bytes();
        if count == 0 {
            return Ok(());
        }
        self.file
            .seek(SeekFrom::Start(start + from * frame as u64))
            .map_err(unreadable)?;
        let mut bytes = vec![0; count.min(PIECE) * frame];
        let mut read = 0;
        while read < count {
            let piece = PIECE.min(count - read);
            let bytes = &mut bytes[..piece * frame];
            self.file.read_exact(bytes).map_err(unreadable)?;
            for (place, frame) in bytes.chunks_exact(frame).enumerate() {
                let sum: f64 = frame
                    .chunks_exact(number.bytes())
                    .map(|sample| number.value(sample))
                    .sum();
                let value = (sum / channels as f64) as f32;
                if !value.is_finite() {
                    return Err(format!(
                        "has a sample that is not a number, number {}",
                        from + (read + place) as u64
                    ));
                }
                mono.push(value);
            }
            read += piece;
        }
        Ok(())
    }
}

/// The bytes of a file of 16 bits a sample and one channel.
pub(super) fn bytes(sound: &Sound) -> Vec<u8> {
    let size = (2 * sound.samples.len()) as u32;
    let mut bytes = Vec::with_capacity(44 + size as usize);
    bytes.extend(b"RIFF");
    bytes.extend((36 + size).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend(WHOLE.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(sound.rate.to_le_bytes());
    bytes.extend((2 * sound.rate).to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(size.to_le_bytes());
    sound
        .sixteen_bits()
        .for_each(|sample| bytes.extend(sample.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(format: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVE".to_vec();
        // A chunk of an odd size before the others, as editors write it.
        bytes.extend(b"LIST\x03\0\0\0abc\0");
        bytes.extend(b"fmt ");
        bytes.extend((format.len() as u32).to_le_bytes());
        bytes.extend(format);
        bytes.extend(b"data");
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes
    }

    fn format(kind: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let block = channels * (bits / 8);
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend((rate * u32::from(block)).to_le_bytes());
        bytes.extend(block.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes
    }

    fn mono(bytes: Vec<u8>) -> Result<Vec<f32>, String> {
        let mut file = Cursor::new(bytes);
        let header = Header::read(&mut file)?.ok_or("of another kind")?;
        let mut wav = Wav::new(file, header);
        let mut mono = Vec::new();
        let frames = wav.frames() as usize;
        wav.read(0, &mut mono, frames)?;
        Ok(mono)
    }

    #[test]
    fn every_kind_of_number_is_read() {
        assert_eq!(
            mono(file(&format(1, 1, 8000, 8), &[0, 128, 255])).unwrap(),
            [-1.0, 0.0, 127.0 / 128.0]
        );
        assert_eq!(
            mono(file(&format(1, 1, 8000, 16), &[0, 128, 0, 64])).unwrap(),
            [-1.0, 0.5]
        );
        assert_eq!(
            mono(file(&format(1, 1, 8000, 24), &[0, 0, 128, 0, 0, 64])).unwrap(),
            [-1.0, 0.5]
        );
        assert_eq!(
            mono(file(&format(1, 1, 192_000, 32), &[0, 0, 0, 64])).unwrap(),
            [0.5]
        );
        assert_eq!(
            mono(file(&format(3, 1, 8000, 32), &0.25_f32.to_le_bytes())).unwrap(),
            [0.25]
        );
        assert_eq!(
            mono(file(&format(3, 1, 8000, 64), &0.25_f64.to_le_bytes())).unwrap(),
            [0.25]
        );
        // Six channels are mixed.
        let six: Vec<u8> = [1, 2, 3, 4, 5, 3]
            .iter()
            .flat_map(|x: &i16| (x * 1024).to_le_bytes())
            .collect();
        assert_eq!(mono(file(&format(1, 6, 48_000, 16), &six)).unwrap(), [3.0 / 32.0]);
        let mut extensible = format(EXTENSIBLE, 1, 44_100, 16);
        extensible.extend([22, 0, 16, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(mono(file(&extensible, &[0, 64])).unwrap(), [0.5]);
    }

    #[test]
    fn what_was_cut_off_or_written_as_it_came_is_read_as_far_as_it_goes() {
        let mut cut = file(&format(1, 1, 8000, 16), &[0, 64, 0, 64, 0, 64]);
        cut.truncate(cut.len() - 3);
        assert_eq!(mono(cut.clone()).unwrap(), [0.5]);
        let size = cut.len() - 3 - 4;
        for unknown in [[0xFF; 4], [0; 4]] {
            cut[size..size + 4].copy_from_slice(&unknown);
            assert_eq!(mono(cut.clone()).unwrap(), [0.5]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(
            mono(b"RIFF\0\0\0\0WAVE".to_vec())
                .unwrap_err()
                .contains("without samples")
        );
        assert!(
            mono(file(&format(3, 1, 8000, 32), &f32::NAN.to_le_bytes()))
                .unwrap_err()
                .contains("not a number")
        );
        assert!(
            mono(file(&format(1, 0, 8000, 16), &[]))
                .unwrap_err()
                .contains("0 channels")
        );
        assert!(
            mono(file(&format(1, 1, 0, 16), &[]))
                .unwrap_err()
                .contains("0 samples")
        );
        assert!(mono(file(&[1, 0], &[])).unwrap_err().contains("cut off"));
        assert!(
            Header::read(&mut Cursor::new(file(&format(7, 1, 8000, 8), &[])))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_written_file_is_read_again() {
        let sound = Sound {
            rate: 22_050,
            samples: vec![0.0, 0.5, -1.0, 7.0],
        };
        assert_eq!(mono(sound.wav()).unwrap(), [0.0, 0.5, -1.0, 32_767.0 / 32_768.0]);
    }
}
