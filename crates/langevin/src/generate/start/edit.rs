//! Editing a picture by what a text says (InstructPix2Pix, Brooks et al. 2023): the model is shown the picture.

use burn::tensor::Tensor;

use super::{Begin, Parts, Start, images::Images};
use crate::{Error, Result, codec::Codec, conditioning::Pair, data::ImageInput};

/// How closely an edited picture follows the one that is edited, where nobody says: diffusers'.
const USUAL_SCALE: f64 = 1.5;

/// The likeliest latents of the picture, unscaled.
#[derive(Debug)]
pub(super) struct Edit {
    shown: Tensor<4>,
}

impl Edit {
    pub(super) fn begin(image: &ImageInput, images: &Images<'_>) -> Result<Begin> {
        let size = images.size_or_own(image)?;
        let pictures = images.pictures(image, size)?;
        let scale = images.request.image_guidance_scale.unwrap_or(USUAL_SCALE);
        if !scale.is_finite() {
            return Err(Error::option(
                &["image_guidance_scale"],
                format!("`image_guidance_scale` is {scale}: it must be a number"),
            ));
        }
        Ok(Begin {
            start: Box::new(Self {
                shown: images.pipeline.codec().encode(pictures)?.mode(),
            }),
            size,
            crop: None,
            image_guidance_scale: Some(scale),
        })
    }
}

impl Start for Edit {
    /// Towards: text and picture; between: the picture; away: neither.
    fn show(&self, parts: Parts<'_>, pair: &mut Pair) -> Result<()> {
        let shown = parts.batch.of(&self.shown);
        let mut between = pair.away.clone();
        between.channels = Some(shown.clone());
        pair.between = Some(between);
        pair.away.channels = Some(shown.zeros_like());
        pair.towards.channels = Some(shown);
        Ok(())
    }
}
