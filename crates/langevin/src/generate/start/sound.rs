//! A sound to begin with, or to go on from: its spectrogram is noised, or stays at the margins while the rest is drawn. Mirrors the call
//! of diffusers' `AudioDiffusionPipeline`.

use burn::tensor::{Tensor, TensorData};

use super::{Begin, Rows, Start};
use crate::{
    Error, Request, Result, Size,
    codec::{Codec, Encoded, Mel},
    data::sound::{SoundInput, SoundReader},
    options::SoundOptions,
    pipelines::{Margins, Pipeline, Sampling},
};

/// The picture of the sound, how much of the steps is walked from it, and what of it stays.
#[derive(Debug)]
pub(super) struct InitialSound {
    picture: Encoded,
    step: Step,
    margins: Margins,
    /// How many columns of the picture a column of what is denoised stands for.
    factor: usize,
}

/// Where the loop begins.
#[derive(Clone, Copy, Debug)]
enum Step {
    Number(usize),
    Strength(f64),
}

impl InitialSound {
    /// What a request means, if it brings a sound along.
    pub(super) fn begin(request: &Request, pipeline: &Pipeline, size: Size) -> Result<Option<Begin>> {
        let sound = &request.sound;
        let Some(mel) = pipeline.mel() else {
            return Ok(None);
        };
        let columns = Columns::of(pipeline, mel, size);
        let (samples, margins) = match (&sound.init_audio, &sound.continue_audio) {
            (Some(file), _) => {
                let mut reader = opened(&["init_audio"], file, mel)?;
                let slice = sound.audio_slice.unwrap_or(0);
                let samples = part(&mut reader, slice, mel, columns.samples(mel))?;
                (samples, columns.margins(sound)?)
            }
            (None, Some(file)) => {
                let mut reader = opened(&["continue_audio"], file, mel)?;
                let (samples, kept) = columns.end(&mut reader, sound, mel)?;
                (samples, Margins { start: kept, end: 0 })
            }
            (None, None) => return Ok(None),
        };
        let picture = mel.picture(&samples)?;
        // What is to be drawn is not looked at, but its place is there.
        let picture = picture.crop(0, 0, size.height, size.width);
        let shape = [1, 1, size.height, size.width];
        let tensor = Tensor::from_data(TensorData::new(picture.to_chw(), shape), &pipeline.model.device());
        let usual = match margins == Margins::default() {
            true => Step::Strength(Sampling::USUAL_STRENGTH),
            false => Step::Number(0),
        };
        let step = match (sound.start_step, request.strength) {
            (Some(step), _) => Step::Number(step),
            (None, Some(strength)) if strength > 0.0 && strength <= 1.0 => Step::Strength(strength),
            (None, Some(strength)) => {
                return Err(Error::option(
                    &["strength"],
                    format!("`strength` is {strength}: it must be above 0 and at most 1"),
                ));
            }
            (None, None) => usual,
        };
        Ok(Some(Begin {
            start: Box::new(Self {
                picture: pipeline.codec().encode(tensor)?,
                step,
                margins,
                factor: pipeline.codec().factor(),
            }),
            size,
            crop: None,
            image_guidance_scale: None,
        }))
    }
}

/// The sound of an option.
fn opened(option: &'static [&'static str], file: &SoundInput, mel: &Mel) -> Result<SoundReader> {
    let reader = file.open(mel.config().sample_rate);
    reader.map_err(|error| Error::option(option, format!("`{}`: {error}", option[0])))
}

/// The samples of a part of the initial sound.
fn part(reader: &mut SoundReader, slice: usize, mel: &Mel, count: usize) -> Result<Vec<f32>> {
    let slices = mel.slices(usize::try_from(reader.len()).unwrap_or(usize::MAX));
    if slice >= slices {
        return Err(Error::option(
            &["audio_slice"],
            format!("`audio_slice` is {slice}, and the sound has {slices}, counted from 0"),
        ));
    }
    reader.read(slice as u64 * mel.slice_samples() as u64, count)
}

/// How seconds and columns of what is denoised go together.
struct Columns {
    width: usize,
    /// Columns of samples, which are latents where the model denoises these.
    denoised: usize,
    per_second: f64,
}

impl Columns {
    fn of(pipeline: &Pipeline, mel: &Mel, size: Size) -> Self {
        let factor = pipeline.codec().factor();
        Self {
            width: size.width,
            denoised: size.width / factor,
            // In diffusers' order: of the model's columns, all of which are a slice.
            per_second: (mel.config().x_res / factor) as f64 * f64::from(mel.config().sample_rate)
                / mel.config().x_res as f64
                / mel.config().hop_length as f64,
        }
    }

    /// The samples that the picture shows.
    fn samples(&self, mel: &Mel) -> usize {
        self.width * mel.config().hop_length - 1
    }

    fn margins(&self, sound: &SoundOptions) -> Result<Margins> {
        let columns = |option: &'static [&'static str], seconds: Option<f64>| -> Result<usize> {
            let columns = (seconds.unwrap_or(0.0) * self.per_second) as usize;
            if columns > self.denoised {
                return Err(Error::option(
                    option,
                    format!("`{}` is longer than what is drawn", option[0]),
                ));
            }
            Ok(columns)
        };
        let margins = Margins {
            start: columns(&["mask_start_secs"], sound.mask_start_secs)?,
            end: columns(&["mask_end_secs"], sound.mask_end_secs)?,
        };
        if margins.start + margins.end >= self.denoised {
            return Err(Error::option(
                &["mask_start_secs", "mask_end_secs"],
                "`mask_start_secs` and `mask_end_secs` leave nothing to draw",
            ));
        }
        Ok(margins)
    }

    /// The end of a sound, and how many columns of it stay.
    fn end(&self, reader: &mut SoundReader, sound: &SoundOptions, mel: &Mel) -> Result<(Vec<f32>, usize)> {
        let hop = mel.config().hop_length as u64;
        let half = self.denoised.min(mel.config().x_res * self.denoised / self.width) / 2;
        let asked = match sound.mask_start_secs {
            Some(_) => self.margins(sound)?.start,
            None => half,
        };
        let factor = (self.width / self.denoised.max(1)).max(1);
        // Of a short sound, what there is.
        let there = (reader.len() / hop) as usize / factor;
        let kept = asked.min(there);
        if kept == 0 || kept >= self.denoised {
            return Err(Error::option(
                &["continue_audio", "mask_start_secs", "seconds"],
                format!(
                    "there is nothing to go on from, or nothing left to draw: of `continue_audio` {:.2} s are there, {:.2} s would stay, and {:.2} s \
                     are drawn in all",
                    reader.seconds(),
                    kept as f64 / self.per_second,
                    mel.seconds(self.width)
                ),
            ));
        }
        let count = (kept * factor) as u64 * hop;
        let samples = reader.read(reader.len() - count, count as usize)?;
        Ok((samples, kept))
    }
}

impl Start for InitialSound {
    fn begin<'a>(
        &self,
        sampling: Sampling<'a>,
        _: Option<Tensor<4>>,
        noise: Tensor<4>,
        _: &Rows,
    ) -> Result<Sampling<'a>> {
        let steps = sampling.total();
        let step = match self.step {
            Step::Number(number) if number >= steps => {
                return Err(Error::option(
                    &["start_step"],
                    format!("`start_step` is {number}, and there are {steps} steps, counted from 0"),
                ));
            }
            Step::Number(number) => number,
            Step::Strength(strength) => match (steps as f64 * strength) as usize {
                0 => {
                    return Err(Error::option(
                        &["strength"],
                        format!(
                            "a `strength` of {strength} leaves none of {steps} steps: give more steps, or a higher one"
                        ),
                    ));
                }
                walked => steps - walked,
            },
        };
        sampling.beginning_with(&self.picture, noise, step, self.margins)
    }

    fn keeps(&self) -> usize {
        self.margins.start * self.factor
    }

    fn strength(&self) -> Option<f64> {
        match self.step {
            Step::Strength(strength) => Some(strength),
            Step::Number(_) => None,
        }
    }
}
