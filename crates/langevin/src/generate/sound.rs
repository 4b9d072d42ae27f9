//! From drawn spectrograms to sounds.

use std::sync::Arc;

use super::Plan;
use crate::{
    Error, Request, Result,
    codec::Mel,
    data::{Picture, sound::Sound},
    ops::in_pool,
    pipelines::Pipeline,
    random::Generator,
};

/// No data set has this epoch, so that no sound's phases are numbers of anything else.
const PHASES: u64 = u64::MAX - 1;
/// Of a sound that is gone on from, so many seconds are kept in memory at most.
const LONGEST: f64 = 3600.0;
/// How long the end of such a sound and what follows it sound together, in seconds, where there is so much of both.
const FADE: f64 = 0.1;

/// What makes sounds of a plan's spectrograms.
#[derive(Clone, Debug)]
pub struct Sounding {
    mel: Mel,
    seed: u64,
    /// How many samples of each are asked for.
    samples: Option<usize>,
    before: Option<Before>,
}

/// A sound that is gone on from, and how many samples of its end the drawn one begins with.
#[derive(Clone, Debug)]
struct Before {
    sound: Arc<Sound>,
    kept: usize,
}

impl Plan {
    /// What makes sounds of its spectrograms; `None` where the pipeline draws pictures.
    ///
    /// # Errors
    /// If the sound that is to be gone on from cannot be read as a whole.
    pub fn sounding(&self, pipeline: &Pipeline) -> Result<Option<Sounding>> {
        let Some(mel) = pipeline.mel() else {
            return Ok(None);
        };
        let rate = mel.config().sample_rate;
        let options = &self.request().sound;
        let before = match &options.continue_audio {
            Some(file) => {
                let mut reader = file.open(rate)?;
                if reader.seconds() > LONGEST {
                    return Err(Error::option(
                        &["continue_audio"],
                        format!("`continue_audio` {file} is longer than an hour: cut it"),
                    ));
                }
                let samples = reader.read(0, usize::try_from(reader.len()).unwrap_or(usize::MAX))?;
                Some(Before {
                    kept: (self.keeps() * mel.config().hop_length).min(samples.len()),
                    sound: Arc::new(Sound { rate, samples }),
                })
            }
            None => None,
        };
        Ok(Some(Sounding {
            mel: mel.clone(),
            seed: self.seed(),
            samples: options
                .seconds
                .map(|seconds| (seconds * f64::from(rate)).round().max(1.0) as usize),
            before,
        }))
    }

    /// The sounds of drawn spectrograms, see [`Sounding::sounds`].
    ///
    /// # Errors
    /// If the pipeline draws no sounds, or the pictures are none of its.
    pub fn sounds(&self, pipeline: &Pipeline, pictures: &[Picture]) -> Result<Vec<Sound>> {
        let sounding = self.sounding(pipeline)?.ok_or_else(|| {
            Error::Unsupported(format!(
                "a {} draws pictures, and no sounds",
                pipeline.class().name
            ))
        })?;
        sounding.sounds(pictures)
    }
}

impl Sounding {
    /// The sound of one spectrogram, whose phases follow from a seed of its own.
    ///
    /// # Errors
    /// If the picture is none of this kind.
    pub fn sound(&self, picture: &Picture, seed: u64) -> Result<Sound> {
        let sounds = sounds(&self.mel, std::slice::from_ref(picture), seed)?;
        let sound = sounds.into_iter().next().map(|sound| self.finished(sound));
        sound.ok_or_else(|| Error::Shape("there is no spectrogram".into()))
    }

    /// The sounds of drawn spectrograms, one after another, as loud as a file holds them: the phases that Griffin and Lim's rounds begin
    /// with follow from the request's seed and the sound's number. Those that go on from another begin with all of it.
    ///
    /// # Errors
    /// If a picture is none of this kind.
    pub fn sounds(&self, pictures: &[Picture]) -> Result<Vec<Sound>> {
        let sounds = sounds(&self.mel, pictures, self.seed)?;
        Ok(sounds.into_iter().map(|sound| self.finished(sound)).collect())
    }

    /// As long as it was asked for, behind what it goes on from.
    fn finished(&self, mut sound: Sound) -> Sound {
        if let Some(samples) = self.samples {
            // What the model needed for its width is cut off.
            sound.samples.truncate(samples);
        }
        match &self.before {
            Some(before) => before.and(sound),
            None => sound,
        }
    }
}

impl Before {
    /// The sound with what follows it, as loud as it is where both are the same.
    fn and(&self, mut drawn: Sound) -> Sound {
        let whole = &self.sound.samples;
        let kept = self.kept.min(drawn.samples.len());
        let strength = |samples: &[f32]| samples.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let (own, its) = (
            strength(&drawn.samples[..kept]),
            strength(&whole[whole.len() - kept..]),
        );
        if own > 0.0 {
            let scale = (its / own).sqrt() as f32;
            drawn.samples.iter_mut().for_each(|sample| *sample *= scale);
        }
        let fade = kept.min((FADE * f64::from(drawn.rate)) as usize);
        let (mut samples, begin) = (whole.clone(), whole.len() - fade);
        for place in 0..fade {
            let part = (place + 1) as f32 / (fade + 1) as f32;
            let (old, new) = (samples[begin + place], drawn.samples[kept - fade + place]);
            samples[begin + place] = old * (1.0 - part) + new * part;
        }
        samples.extend(&drawn.samples[kept..]);
        let sound = Sound { samples, ..drawn };
        if sound.peak() > 1.0 {
            sound.normalized()
        } else {
            sound
        }
    }
}

/// The sounds of spectrograms, numbered from 0.
///
/// # Errors
/// If a picture is none of this kind.
pub fn sounds(mel: &Mel, pictures: &[Picture], seed: u64) -> Result<Vec<Sound>> {
    let sound = |(number, picture)| {
        let mut generator = Generator::for_index(seed, PHASES, number as u64);
        mel.sound(picture, &mut generator).map(Sound::normalized)
    };
    pictures.iter().enumerate().map(sound).collect()
}

impl Pipeline {
    /// Draws what is asked for as sounds, with their spectrograms.
    ///
    /// # Errors
    /// If the request does not fit the pipeline, or it draws no sounds.
    pub fn generate_sounds(&self, request: &Request) -> Result<Vec<(Sound, Picture)>> {
        let plan = Plan::of(self, request)?;
        let drawn = in_pool(|| plan.run(self, &mut ()))?;
        let pictures = drawn.ok_or_else(|| Error::Config("the drawing was ended".into()))?;
        let sounds = plan.sounds(self, &pictures)?;
        Ok(sounds.into_iter().zip(pictures).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_as_loud_as_what_was_there_and_joins_it() {
        let whole = vec![0.5; 1000];
        let before = Before {
            sound: Arc::new(Sound {
                rate: 1000,
                samples: whole,
            }),
            kept: 200,
        };
        let joined = before.and(Sound {
            rate: 1000,
            samples: vec![0.1; 300],
        });
        assert_eq!(joined.samples.len(), 1100);
        assert!(joined.samples.iter().all(|sample| (sample - 0.5).abs() < 1e-4));
    }
}
