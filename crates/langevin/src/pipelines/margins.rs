//! Sounds to begin with: a spectrogram under noise, or margins of it that stay while the rest is drawn.

use burn::tensor::{Tensor, TensorData};

use super::{KnownPart, Sampling};
use crate::{
    Error, Result,
    codec::{Codec, Encoded},
    schedulers::same_shape,
};

/// Columns of the samples that stay as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Margins {
    /// At the beginning.
    pub start: usize,
    /// At the end.
    pub end: usize,
}

impl Sampling<'_> {
    /// Begins with step `step` and a picture under noise where that is not 0, and keeps margins of the picture. Mirrors the call of
    /// diffusers' `AudioDiffusionPipeline`: the noised picture takes the noise's place, also under the margins. What is random in the
    /// picture is drawn now, after the noise. There the picture begins the first of a batch alone, here all.
    ///
    /// # Errors
    /// If there is no such step, or the picture has another shape than the noise.
    pub(crate) fn beginning_with(
        mut self,
        picture: &Encoded,
        mut noise: Tensor<4>,
        step: usize,
        margins: Margins,
    ) -> Result<Self> {
        let drawn = picture.sample(self.generator.get_mut());
        let drawn = match self.codec {
            Some(codec) => codec.scale(drawn),
            None => drawn,
        };
        let [batch, _, _, width] = noise.dims();
        let known = drawn.repeat_dim(0, batch);
        same_shape("the picture", &known, "the noise", &noise)?;
        if step > 0 {
            let missing = || {
                Error::Config(format!(
                    "`start_step` is {step}, and there are {} steps",
                    self.timesteps.len()
                ))
            };
            if step >= self.timesteps.len() {
                return Err(missing());
            }
            let timestep = self.timesteps[step - 1];
            noise = self.scheduler.add_noise_at(known.clone(), noise, timestep)?;
            self = self.starting_at(noise.clone(), step)?;
        }
        if margins == Margins::default() {
            return Ok(self);
        }
        let painted = margins.start..width.saturating_sub(margins.end);
        let mask: Vec<f32> = (0..width)
            .map(|x| if painted.contains(&x) { 1.0 } else { 0.0 })
            .collect();
        let mask = Tensor::from_data(TensorData::new(mask, [1, 1, 1, width]), &noise.device());
        Ok(self.with_known(Some(KnownPart {
            samples: known,
            noise,
            mask,
            lags: true,
        })))
    }
}
