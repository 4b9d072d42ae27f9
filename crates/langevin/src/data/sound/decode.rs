//! Sounds that are packed: symphonia's decoders, kept from taking the program down and from taking memory out of proportion.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use symphonia::core::{
    codecs::audio::{AudioDecoder, AudioDecoderOptions},
    errors::Error,
    formats::{FormatOptions, FormatReader, SeekMode, SeekTo, TrackType, probe::Hint},
    io::{MediaSource, MediaSourceStream},
    meta::MetadataOptions,
    packet::Packet,
    units::{Time, TimeBase, Timestamp},
};

use super::{
    EXTENSIONS,
    frames::{Frames, check_rate},
};
use crate::data::contain::contain;

/// What lies before a place that is sought is decoded too, in seconds: MP3's frames lean on those before them.
const BEFORE: f64 = 0.5;
/// How far ahead of its place a decoder goes on to decode, in seconds, rather than to seek.
const AHEAD: f64 = 2.0;
/// How much of what was read stays at hand, in seconds: another rate's samples look back.
const KEPT: f64 = 1.0;
/// Bytes that a second of sound takes at least: silence in FLAC takes a hundred. A header that claims more is not believed.
const LEAST_BYTES: u64 = 32;

/// The samples of a packed file.
pub(super) struct Decoded {
    rate: u32,
    frames: u64,
    /// `None` once a decoder has panicked.
    stream: Option<Stream>,
}

struct Stream {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    time_base: TimeBase,
    /// Decoded samples around those that were asked for last, and the place of their first one.
    window: Vec<f32>,
    place: u64,
    interleaved: Vec<f32>,
    ended: bool,
}

/// A source as symphonia wants it.
struct Source<R> {
    file: R,
    size: u64,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl<R: Seek> Seek for Source<R> {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.file.seek(place)
    }
}

impl<R: Read + Seek + Send + Sync> MediaSource for Source<R> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.size)
    }
}

/// What is said about a file that a decoder refuses.
fn said(error: &Error) -> String {
    match error {
        Error::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => "is cut off".into(),
        Error::IoError(e) => format!("cannot be read: {e}"),
        Error::Unsupported(what) => {
            format!(
                "is of a kind that is not supported here ({what}); {} are read",
                EXTENSIONS.join(", ")
            )
        }
        other => format!("is a damaged sound: {other}"),
    }
}

impl Decoded {
    /// Opens a file; nothing is decoded yet.
    ///
    /// # Errors
    /// If it is no sound that is read here; the part of a sentence that follows its name.
    pub(super) fn open<R: Read + Seek + Send + Sync + 'static>(name: &Path, file: R) -> Result<Self, String> {
        let name = name.to_path_buf();
        contain(move || Self::unguarded(&name, file))
    }

    fn unguarded<R: Read + Seek + Send + Sync + 'static>(name: &Path, mut file: R) -> Result<Self, String> {
        let unreadable = |e: io::Error| format!("cannot be read: {e}");
        let size = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let mut hint = Hint::new();
        if let Some(ending) = name.extension().and_then(|ending| ending.to_str()) {
            hint.with_extension(ending);
        }
        let source = MediaSourceStream::new(Box::new(Source { file, size }), Default::default());
        let format = symphonia::default::get_probe()
            .probe(
                &hint,
                source,
                FormatOptions::default(),
                MetadataOptions::default(),
            )
            .map_err(|e| match e {
                Error::Unsupported(_) => format!("is no sound of a known kind ({})", EXTENSIONS.join(", ")),
                Error::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    format!(
                        "is no sound of a known kind ({}), or is cut off",
                        EXTENSIONS.join(", ")
                    )
                }
                other => said(&other),
            })?;
        let track = format
            .default_track(TrackType::Audio)
            .ok_or("holds no sound that is read here")?;
        let parameters = track
            .codec_params
            .as_ref()
            .and_then(|parameters| parameters.audio());
        let parameters = parameters.ok_or("does not say how its sound is packed")?;
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(parameters, &AudioDecoderOptions::default())
            .map_err(|e| said(&e))?;
        let (id, claimed, stated) = (track.id, track.num_frames, parameters.sample_rate);
        let time_base = track
            .time_base
            .or_else(|| stated.and_then(TimeBase::try_from_recip));
        let mut stream = Stream {
            format,
            decoder,
            track: id,
            time_base: time_base.ok_or("does not say how fast it is")?,
            window: Vec::new(),
            place: 0,
            interleaved: Vec::new(),
            ended: false,
        };
        let rate = match stated {
            Some(rate) => rate,
            None => stream.first_rate()?,
        };
        check_rate(rate)?;
        let most = (size / LEAST_BYTES + 60).saturating_mul(u64::from(rate));
        let frames = match claimed {
            Some(claimed) if claimed <= most => claimed,
            // What is counted are claims, too: those of the packets.
            _ => stream.count(rate)?.min(most),
        };
        Ok(Self {
            rate,
            frames,
            stream: Some(stream),
        })
    }
}

impl Frames for Decoded {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn frames(&self) -> u64 {
        self.frames
    }

    fn read(&mut self, from: u64, mono: &mut Vec<f32>, count: usize) -> Result<(), String> {
        let count = self.frames.saturating_sub(from).min(count as u64) as usize;
        let rate = self.rate;
        let stream = self.stream.take().ok_or("failed its decoder before")?;
        // What a panic leaves behind is not looked at again.
        let (stream, samples) = contain(move || {
            let mut stream = stream;
            let samples = stream.read(rate, from, count);
            Ok((stream, samples))
        })?;
        self.stream = Some(stream);
        mono.extend(samples?);
        Ok(())
    }
}

impl Stream {
    fn next_packet(&mut self) -> Result<Option<Packet>, String> {
        loop {
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                // Another stream begins, in a chain of them, or what there is is cut off.
                Err(Error::ResetRequired) => return Ok(None),
                Err(Error::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(said(&e)),
            }
        }
    }

    /// The rate of the first packet, where the file does not say it.
    fn first_rate(&mut self) -> Result<u32, String> {
        let packet = self.next_packet()?.ok_or("holds no samples")?;
        let rate = self.decoder.decode(&packet).map_err(|e| said(&e))?.spec().rate();
        self.seek(rate, 0)?;
        Ok(rate)
    }

    /// How many frames there are, of a file that does not say it: its packets are gone through and not decoded.
    fn count(&mut self, rate: u32) -> Result<u64, String> {
        let mut ticks: u64 = 0;
        while let Some(packet) = self.next_packet()? {
            ticks = ticks.saturating_add(packet.dur.get());
        }
        let frames = self.frames_at(rate, Timestamp::new(i64::try_from(ticks).unwrap_or(i64::MAX)));
        self.seek(rate, 0)?;
        Ok(frames)
    }

    /// The frame at a time.
    fn frames_at(&self, rate: u32, time: Timestamp) -> u64 {
        let nanos = self.time_base.calc_time_saturating(time).as_nanos().max(0) as u128;
        let frames = (nanos * u128::from(rate) + 500_000_000) / 1_000_000_000;
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    /// Goes to a frame or one before it.
    fn seek(&mut self, rate: u32, frame: u64) -> Result<(), String> {
        self.decoder.reset();
        self.window.clear();
        self.ended = false;
        let nanos = u128::from(frame) * 1_000_000_000 / u128::from(rate);
        let time = Time::try_from_nanos_u128(nanos).ok_or("is longer than anything")?;
        let to = SeekTo::Time {
            time,
            track_id: Some(self.track),
        };
        let sought = self.format.seek(SeekMode::Accurate, to).map_err(|e| said(&e))?;
        self.place = self.frames_at(rate, sought.actual_ts);
        Ok(())
    }

    /// Decodes another packet. The first after a seek says where it is.
    fn decode(&mut self, rate: u32, tolerant: bool, sought: &mut bool) -> Result<(), String> {
        let Some(packet) = self.next_packet()? else {
            self.ended = true;
            return Ok(());
        };
        if std::mem::take(sought) {
            let begin = packet.pts.saturating_add(packet.trim_start);
            self.place = self.frames_at(rate, begin);
        }
        let length = self.frames_at(rate, Timestamp::new(i64::try_from(packet.dur.get()).unwrap_or(0)));
        match self.decoder.decode(&packet) {
            Ok(decoded) => {
                if decoded.spec().rate() != rate {
                    return Err("changes its rate on the way".into());
                }
                let channels = decoded.spec().channels().count().max(1);
                decoded.copy_to_vec_interleaved(&mut self.interleaved);
                let mix = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
                self.window
                    .extend(self.interleaved.chunks_exact(channels).map(mix));
                Ok(())
            }
            Err(e) => {
                let end = self.end();
                self.window
                    .extend(std::iter::repeat_n(0.0, length.min(1 << 16) as usize));
                match tolerant {
                    true => Ok(()),
                    false => Err(format!("{}, at {:.1} s", said(&e), end as f64 / f64::from(rate))),
                }
            }
        }
    }

    /// The place behind what is decoded.
    fn end(&self) -> u64 {
        self.place + self.window.len() as u64
    }

    fn read(&mut self, rate: u32, from: u64, count: usize) -> Result<Vec<f32>, String> {
        let seconds = |seconds: f64| (f64::from(rate) * seconds) as u64;
        let mut sought = false;
        if from < self.place || from > self.end() + seconds(AHEAD) {
            self.seek(rate, from.saturating_sub(seconds(BEFORE)))?;
            sought = true;
        }
        let wanted = from + count as u64;
        while !self.ended && self.end() < wanted {
            // What is long past is let go of; what comes next begins a little before the end of this.
            let passed = from
                .saturating_sub(self.place)
                .saturating_sub(seconds(KEPT))
                .min(self.window.len() as u64);
            self.window.drain(..passed as usize);
            self.place += passed;
            let tolerant = self.end() < from;
            self.decode(rate, tolerant, &mut sought)?;
        }
        if self.place > from {
            return Err("cannot be sought in".into());
        }
        let begin = (from - self.place).min(self.window.len() as u64) as usize;
        let samples = &self.window[begin..self.window.len().min(begin + count)];
        if samples.is_empty() && count > 0 {
            return Err(format!(
                "is cut off: it ends at {:.1} s, before it says that it does",
                self.end() as f64 / f64::from(rate)
            ));
        }
        match samples.iter().position(|sample| !sample.is_finite()) {
            Some(number) => Err(format!(
                "has a sample that is not a number, number {}",
                from + number as u64
            )),
            None => Ok(samples.to_vec()),
        }
    }
}
