//! Sounds as pictures: mel spectrograms of one channel, time from left to right and pitch from the first row on.
//!
//! Mirrors `Mel` of diffusers' `AudioDiffusionPipeline`, byte for byte; a second kind is Riffusion's.

mod config;
mod filterbank;
mod fourier;
mod griffin_lim;

use std::{fmt, path::Path, sync::Arc};

use rayon::prelude::*;
use realfft::num_complex::Complex;

pub use self::config::{MEL_CONFIG, MelConfig, Spectrogram};
use self::{
    filterbank::{FilterBank, MelScale},
    fourier::{Fourier, Padding},
};
use crate::{
    Error, Result,
    data::{Channels, Hear, Picture, sound::Sound},
    random::Generator,
};

/// Below this, powers are taken for it: librosa's `amin`.
const LEAST_POWER: f64 = 1e-10;
/// Riffusion's exponent from magnitudes to brightness.
const ROOT: f64 = 0.25;
/// The loudest magnitude that a Riffusion picture is taken to have had where it does not say.
const USUAL_LOUDEST: f64 = 30e6;

/// The way between sounds and their mel spectrograms.
///
/// ```
/// use langevin::{codec::{Mel, MelConfig}, data::sound::Sound, random::Generator};
///
/// let mel = Mel::new(MelConfig { x_res: 64, y_res: 64, ..MelConfig::default() })?;
/// let wave = |i: usize| (i as f32 * 0.1).sin();
/// let sound = Sound { rate: 22_050, samples: (0..mel.slice_samples()).map(wave).collect() };
/// let picture = mel.picture(&sound.samples)?;
/// assert_eq!((picture.height(), picture.width()), (64, 64));
/// let again = mel.sound(&picture, &mut Generator::new(0))?;
/// assert_eq!(again.samples.len(), 63 * 512);
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone)]
pub struct Mel {
    config: MelConfig,
    // Tables that pipelines and data sets share.
    tables: Arc<Tables>,
}

struct Tables {
    fourier: Fourier,
    filters: FilterBank,
}

impl fmt::Debug for Mel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mel").field(&self.config).finish()
    }
}

impl Mel {
    /// The way of a configuration.
    ///
    /// # Errors
    /// If one of its numbers makes no sense.
    pub fn new(config: MelConfig) -> Result<Self> {
        config.check()?;
        let (window, padding) = match config.spectrogram {
            Spectrogram::Decibels => (config.n_fft, Padding::Silence),
            // A quarter of what is transformed, which is padded for a finer spectrum.
            Spectrogram::Riffusion => (config.n_fft / 4, Padding::Mirror),
        };
        let (scale, highest) = match config.spectrogram {
            Spectrogram::Decibels => (MelScale::Slaney, f64::from(config.sample_rate) / 2.0),
            Spectrogram::Riffusion => (MelScale::Htk, (f64::from(config.sample_rate) / 2.0).min(10_000.0)),
        };
        let tables = Tables {
            fourier: Fourier::new(config.n_fft, window, config.hop_length, padding),
            filters: FilterBank::new(scale, config.y_res, config.n_fft, config.sample_rate, highest),
        };
        Ok(Self {
            config,
            tables: Arc::new(tables),
        })
    }

    /// Reads the configuration in a folder, [`MEL_CONFIG`].
    ///
    /// # Errors
    /// If it cannot be read, or makes no sense.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::new(MelConfig::load(folder)?)
    }

    /// The configuration.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// How many samples a slice has, which one picture shows.
    pub fn slice_samples(&self) -> usize {
        self.config.x_res * self.config.hop_length - 1
    }

    /// How many slices so many samples have; what is too short for one is filled up with silence, and what is left after the last is not
    /// shown.
    pub fn slices(&self, samples: usize) -> usize {
        self.padded(samples) / self.slice_samples()
    }

    /// How long so many samples are once they are filled up with silence.
    fn padded(&self, samples: usize) -> usize {
        samples.max(self.config.x_res * self.config.hop_length)
    }

    /// The samples of the slice at `number`, from the whole sound's: fewer where it ends before the slice does, which silence fills up.
    pub fn slice<'a>(&self, samples: &'a [f32], number: usize) -> &'a [f32] {
        let size = self.slice_samples();
        let from = (number * size).min(samples.len());
        &samples[from..samples.len().min(from + size)]
    }

    /// The filters of the bands, each with its first bin and its weights from there on.
    pub fn filters(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.tables.filters.filters()
    }

    /// How many columns of a picture a second is.
    pub fn columns_per_second(&self) -> f64 {
        f64::from(self.config.sample_rate) / self.config.hop_length as f64
    }

    /// How long the sound of a picture of so many columns is, in seconds.
    pub fn seconds(&self, columns: usize) -> f64 {
        self.tables.fourier.samples(columns) as f64 / f64::from(self.config.sample_rate)
    }

    /// The spectrogram of samples at the configuration's rate, all of them: a column for every `hop_length`, and one more. What is shorter
    /// than a slice is filled up with silence.
    ///
    /// # Errors
    /// If one of them is not a number.
    pub fn picture(&self, samples: &[f32]) -> Result<Picture> {
        if let Some(place) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(Error::NotFinite(format!(
                "sample {place} of the sound is not a number"
            )));
        }
        let mut samples: Vec<f64> = samples.iter().map(|&sample| f64::from(sample)).collect();
        samples.resize(samples.len().max(self.slice_samples()), 0.0);
        let (bands, frames) = (self.config.y_res, self.tables.fourier.frames(samples.len()));
        let columns = self.bands(&samples);
        let byte = self.bytes(&columns);
        let flipped = self.config.spectrogram == Spectrogram::Riffusion;
        let mut pixels = Vec::with_capacity(bands * frames);
        for row in 0..bands {
            let band = if flipped { bands - 1 - row } else { row };
            pixels.extend((0..frames).map(|frame| byte(columns[frame * bands + band])));
        }
        Picture::new(bands, frames, Channels::Grey, pixels)
    }

    /// What the bands hold of samples, `[frames, bands]`.
    fn bands(&self, samples: &[f64]) -> Vec<f64> {
        let Tables { fourier, filters } = self.tables.as_ref();
        let (bands, bins) = (self.config.y_res, fourier.bins());
        let mut columns = vec![0.0; bands * fourier.frames(samples.len())];
        columns.par_chunks_mut(bands).enumerate().for_each_init(
            || {
                (
                    fourier.scratch(),
                    vec![Complex::new(0.0, 0.0); bins],
                    vec![0.0; bins],
                )
            },
            |(scratch, spectrum, strength), (frame, column)| {
                fourier.spectrum(samples, frame, scratch, spectrum);
                for (strength, value) in strength.iter_mut().zip(spectrum.iter()) {
                    *strength = match self.config.spectrogram {
                        Spectrogram::Decibels => value.norm_sqr(),
                        Spectrogram::Riffusion => value.norm(),
                    };
                }
                filters.gather(strength, column);
            },
        );
        columns
    }

    /// How bright a band is, among these.
    fn bytes(&self, columns: &[f64]) -> impl Fn(f64) -> u8 {
        let loudest = columns.iter().copied().fold(0.0, f64::max);
        let (kind, top) = (self.config.spectrogram, self.config.top_db);
        let decibels = |power: f64| 10.0 * power.max(LEAST_POWER).log10();
        let reference = decibels(loudest);
        move |value| match kind {
            // What lies below the lowest is clipped to it.
            Spectrogram::Decibels => {
                (((decibels(value) - reference + top) * 255.0 / top).clamp(0.0, 255.0) + 0.5) as u8
            }
            Spectrogram::Riffusion if loudest > 0.0 => (255.0 - 255.0 * (value / loudest).powf(ROOT)) as u8,
            Spectrogram::Riffusion => 255,
        }
    }

    /// The magnitudes of a picture's spectra, `[frames, bins]`: those of the bands, spread over the bins, where the picture is grey and
    /// as high as the bands are many.
    ///
    /// # Errors
    /// If it is of another height.
    pub fn magnitudes(&self, picture: &Picture) -> Result<Vec<f32>> {
        let (bands, frames) = (self.config.y_res, picture.width());
        if picture.height() != bands {
            return Err(Error::Shape(format!(
                "a picture that is {} pixels high is no spectrogram of {bands} bands",
                picture.height()
            )));
        }
        let picture = picture.clone().into_channels(Channels::Grey);
        let pixels = picture.pixels();
        let strength: Vec<f64> = (0..=255).map(|byte| self.strength(byte)).collect();
        let flipped = self.config.spectrogram == Spectrogram::Riffusion;
        let filters = &self.tables.filters;
        let mut magnitudes = vec![0.0; frames * filters.bins()];
        magnitudes
            .par_chunks_mut(filters.bins())
            .enumerate()
            .for_each_init(
                || (vec![0.0; bands], vec![0.0; filters.bins()]),
                |(column, spectrum), (frame, magnitudes)| {
                    for (band, value) in column.iter_mut().enumerate() {
                        let row = if flipped { bands - 1 - band } else { band };
                        *value = strength[usize::from(pixels[row * frames + frame])];
                    }
                    filters.spread(column, spectrum);
                    for (magnitude, value) in magnitudes.iter_mut().zip(spectrum.iter()) {
                        *magnitude = match self.config.spectrogram {
                            Spectrogram::Decibels => value.sqrt() as f32,
                            Spectrogram::Riffusion => *value as f32,
                        };
                    }
                },
            );
        Ok(magnitudes)
    }

    /// What a band holds that is so bright.
    fn strength(&self, byte: usize) -> f64 {
        let (byte, top) = (byte as f64, self.config.top_db);
        match self.config.spectrogram {
            Spectrogram::Decibels => 10_f64.powf((byte * top / 255.0 - top) / 10.0),
            Spectrogram::Riffusion => USUAL_LOUDEST * ((255.0 - byte) / 255.0).powf(1.0 / ROOT),
        }
    }

    /// The sound of a spectrogram of any width, by Griffin and Lim's rounds from phases that are drawn: `hop_length` samples for every
    /// column but one. How loud it was is lost.
    ///
    /// # Errors
    /// If the picture is of another height than the bands are many.
    pub fn sound(&self, picture: &Picture, generator: &mut Generator) -> Result<Sound> {
        let magnitudes = self.magnitudes(picture)?;
        let phases = generator.rand(magnitudes.len());
        Ok(self.sound_of(&magnitudes, &phases, self.config.n_iter))
    }

    /// The same from magnitudes, `[frames, bins]`, and phases in turns, after so many rounds.
    pub fn sound_of(&self, magnitudes: &[f32], phases: &[f32], rounds: usize) -> Sound {
        Sound {
            rate: self.config.sample_rate,
            samples: griffin_lim::griffin_lim(&self.tables.fourier, magnitudes, phases, rounds),
        }
    }

    /// How far the magnitudes of samples' spectra are from these, relative to their norm: librosa's spectral convergence.
    pub fn convergence(&self, samples: &[f32], magnitudes: &[f32]) -> f64 {
        let found = self.spectra(samples);
        let square = |x: f64| x * x;
        let difference: f64 = found
            .iter()
            .zip(magnitudes)
            .map(|(a, b)| square(a.norm() - f64::from(*b)))
            .sum();
        let norm: f64 = magnitudes.iter().map(|&b| square(f64::from(b))).sum();
        (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
    }

    /// The spectra of samples, `[frames, bins]`.
    pub fn spectra(&self, samples: &[f32]) -> Vec<Complex<f64>> {
        let fourier = &self.tables.fourier;
        let samples: Vec<f64> = samples.iter().map(|&sample| f64::from(sample)).collect();
        let mut spectra = vec![Complex::new(0.0, 0.0); fourier.frames(samples.len()) * fourier.bins()];
        let mut scratch = fourier.scratch();
        for (frame, spectrum) in spectra.chunks_mut(fourier.bins()).enumerate() {
            fourier.spectrum(&samples, frame, &mut scratch, spectrum);
        }
        spectra
    }

    /// The power, or magnitude, of the bands of samples, `[frames, bands]`, before they become bytes.
    pub fn band_strengths(&self, samples: &[f32]) -> Vec<f64> {
        let samples: Vec<f64> = samples.iter().map(|&sample| f64::from(sample)).collect();
        self.bands(&samples)
    }
}

impl Hear for Mel {
    fn rate(&self) -> u32 {
        self.config.sample_rate
    }

    fn slice_samples(&self) -> usize {
        Self::slice_samples(self)
    }

    fn slices(&self, samples: u64) -> u64 {
        Self::slices(self, usize::try_from(samples).unwrap_or(usize::MAX)) as u64
    }

    fn hear(&self, samples: &[f32]) -> Result<Picture> {
        self.picture(samples)
    }

    fn described(&self) -> String {
        // How the way back goes says nothing of the pictures.
        let config = MelConfig {
            n_iter: 0,
            ..self.config.clone()
        };
        format!("{config:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mel(config: MelConfig) -> Mel {
        Mel::new(config).unwrap()
    }

    fn sine(hertz: f64, samples: usize) -> Vec<f32> {
        let turn = 2.0 * std::f64::consts::PI * hertz / 22_050.0;
        (0..samples)
            .map(|i| (0.5 * (turn * i as f64).sin()) as f32)
            .collect()
    }

    #[test]
    fn a_sine_is_where_librosa_sees_it() {
        // librosa 0.11 through diffusers' Mel, whose slice leaves out the last sample of these.
        let mel = mel(MelConfig::default());
        let sound = sine(440.0, 131_072);
        let picture = mel.picture(mel.slice(&sound, 0)).unwrap();
        let column: Vec<u8> = (24..30).map(|row| picture.row(row)[128]).collect();
        assert_eq!(column, [5, 14, 25, 38, 55, 77]);
        let row = picture.row(24);
        assert_eq!([0, 1, 2, 127, 254, 255].map(|x| row[x]), [165, 146, 5, 5, 5, 146]);
    }

    #[test]
    fn silence_is_white_as_it_is_there() {
        let mel = mel(MelConfig {
            x_res: 16,
            y_res: 32,
            ..MelConfig::default()
        });
        assert_eq!(mel.slices(10), 1);
        assert!(
            mel.picture(&[0.0; 10])
                .unwrap()
                .pixels()
                .iter()
                .all(|&byte| byte == 255)
        );
        assert!(mel.picture(&[f32::NAN]).is_err());
    }

    #[test]
    fn a_sound_comes_back_from_its_picture() {
        // Of Riffusion's bands, which reach to 10 kHz, one is some 26 Hz wide here.
        for (spectrogram, apart) in [(Spectrogram::Decibels, 12.0), (Spectrogram::Riffusion, 27.0)] {
            let mel = mel(MelConfig {
                x_res: 64,
                y_res: 128,
                spectrogram,
                ..MelConfig::default()
            });
            let picture = mel.picture(&sine(440.0, mel.slice_samples())).unwrap();
            let sound = mel.sound(&picture, &mut Generator::new(1)).unwrap();
            assert_eq!(sound.samples.len(), 63 * 512);
            let same = mel.sound(&picture, &mut Generator::new(1)).unwrap();
            assert_eq!(sound.samples, same.samples);
            // Where it crosses zero, in a second.
            let middle = &sound.samples[8_000..19_025];
            let crossings = middle
                .windows(2)
                .filter(|pair| (pair[0] < 0.0) != (pair[1] < 0.0))
                .count();
            assert!(
                (crossings as f64 - 440.0).abs() < apart,
                "{crossings} {spectrogram}"
            );
        }
    }

    #[test]
    fn a_picture_of_another_height_is_refused() {
        let picture = Picture::new(3, 4, Channels::Grey, vec![0; 12]).unwrap();
        assert!(
            mel(MelConfig::default())
                .sound(&picture, &mut Generator::new(0))
                .is_err()
        );
    }
}
