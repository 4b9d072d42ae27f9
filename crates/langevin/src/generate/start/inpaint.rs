//! Painting in a picture in latents: by a model that is shown what is known, or by any other, in whose sample what is known is put back
//! after every step. Mirrors diffusers' `StableDiffusionInpaintPipeline`.

use burn::tensor::Tensor;

use super::{
    Begin, Parts, Rows, Start,
    images::{Images, InitImage},
    show_channels,
};
use crate::{
    Error, Result,
    codec::Codec,
    conditioning::Pair,
    data::ImageInput,
    pipelines::{KnownPart, Pipeline, Sampling, Usage},
    random::Generator,
};

/// A picture, what is known of it, and the mask.
#[derive(Debug)]
pub(super) struct Inpaint {
    image: InitImage,
    /// The picture without what the mask covers.
    masked: InitImage,
    /// 1 where to paint, at the size of the latents, `[count, 1, height, width]`.
    mask: Tensor<4>,
    /// Whether the model is shown the mask and the masked picture.
    shown: bool,
    /// `None` where the loop begins with noise alone.
    strength: Option<f64>,
    handed_over_at: Option<f64>,
}

impl Inpaint {
    pub(super) fn begin(image: &ImageInput, images: &Images<'_>, usage: Usage) -> Result<Begin> {
        let (request, pipeline) = (images.request, images.pipeline);
        let Some(mask) = &request.mask else {
            return Err(Error::option(
                &["mask"],
                format!(
                    "a `mask` must say what is to be painted of {image}: a picture, white there and black elsewhere"
                ),
            ));
        };
        let size = images.size_or_usual()?;
        let (pictures, masks, crop) = images.masked(image, mask, size)?;
        let latents = pipeline.codec().channels();
        let takes = pipeline.model.config().in_channels();
        let shown = match takes {
            takes if takes == latents => false,
            takes if takes == 2 * latents + 1 => true,
            takes => {
                return Err(Error::Unsupported(format!(
                    "a model that takes {takes} channels cannot paint in a picture: {latents}, or {} with the masked picture, are needed",
                    2 * latents + 1
                )));
            }
        };
        let strength = request.strength.unwrap_or(usage.strength);
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::option(
                &["strength"],
                format!("`strength` is {strength}: it must be above 0 and at most 1"),
            ));
        }
        let [pictures_count, ..] = pictures.dims();
        let kept = (masks.clone() * -1.0 + 1.0).repeat_dim(1, 3);
        let [masks_count, ..] = kept.dims();
        let masked = if masks_count == pictures_count || masks_count == 1 || pictures_count == 1 {
            pictures.clone() * kept
        } else {
            return Err(Error::option(
                &["inpaint", "mask"],
                format!(
                    "there are {pictures_count} pictures and {masks_count} masks: give one mask, or one for each picture"
                ),
            ));
        };
        Ok(Begin {
            start: Box::new(Self {
                image: images.encoded_tensor(pictures)?,
                masked: images.encoded_tensor(masked)?,
                mask: nearest(masks, pipeline.codec().factor()),
                shown,
                strength: (strength < 1.0).then_some(strength),
                handed_over_at: request.denoising_start,
            }),
            size,
            crop,
            image_guidance_scale: None,
        })
    }
}

/// The upper left of every `factor` by `factor` pixels, as torch's nearest interpolation takes it.
fn nearest(masks: Tensor<4>, factor: usize) -> Tensor<4> {
    let [count, channels, height, width] = masks.dims();
    let (height, width) = (height / factor, width / factor);
    masks
        .narrow(2, 0, height * factor)
        .narrow(3, 0, width * factor)
        .reshape([count * channels, height, factor, width, factor])
        .narrow(2, 0, 1)
        .narrow(4, 0, 1)
        .reshape([count, channels, height, width])
}

impl Start for Inpaint {
    /// A model that is shown the picture looks at it only where it begins with it.
    fn draw_first(&self, batch: &Rows, generator: &mut Generator, pipeline: &Pipeline) -> Option<Tensor<4>> {
        let needed = !self.shown || self.strength.is_some() || self.handed_over_at.is_some();
        needed.then(|| {
            let rows = batch.distinct(self.image.count());
            batch.spread(&self.image.sample(&rows, generator, pipeline.codec()))
        })
    }

    /// The masked picture is drawn even where the model is not shown it, as diffusers draws it.
    fn show(&self, parts: Parts<'_>, pair: &mut Pair) -> Result<()> {
        let rows = parts.batch.distinct(self.masked.count());
        let masked = self.masked.sample(&rows, parts.generator, parts.pipeline.codec());
        if self.shown {
            let channels = Tensor::cat(vec![parts.batch.of(&self.mask), parts.batch.spread(&masked)], 1);
            show_channels(pair, channels.clone(), channels);
        }
        Ok(())
    }

    fn begin<'a>(
        &self,
        sampling: Sampling<'a>,
        first: Option<Tensor<4>>,
        noise: Tensor<4>,
        batch: &Rows,
    ) -> Result<Sampling<'a>> {
        let known = first.clone().filter(|_| !self.shown).map(|samples| KnownPart {
            samples,
            noise,
            mask: batch.of(&self.mask),
            lags: false,
        });
        let sampling = match (first, self.strength, self.handed_over_at) {
            (Some(latents), _, Some(part)) => sampling.going_on_at(part, latents)?,
            (Some(latents), Some(strength), None) => sampling.starting_from(&latents, strength)?,
            _ => sampling,
        };
        Ok(sampling.with_known(known))
    }

    fn strength(&self) -> Option<f64> {
        self.strength
    }
}
