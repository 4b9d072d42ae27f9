//! Picture to picture: the picture is noised, and drawn anew from there (Meng et al. 2022, SDEdit).

use burn::tensor::Tensor;

use super::{
    Begin, Rows, Start,
    images::{Images, InitImage},
};
use crate::{
    Request, Result,
    codec::Encoded,
    data::ImageInput,
    guidance::GuideMaker,
    pipelines::{Pipeline, Sampling, Usage},
    random::Generator,
    schedulers::LoopOptions,
};

/// The pictures, and where the loop begins with them.
#[derive(Debug)]
pub(super) struct InitialPicture {
    pictures: Pictures,
    strength: f64,
    /// Whether the sampler leaves out steps by itself.
    in_loop: bool,
    /// The part of the noise at which another model ended; these are its latents.
    handed_over_at: Option<f64>,
}

#[derive(Debug)]
enum Pictures {
    Latents(InitImage),
    Pixels(Encoded),
}

impl InitialPicture {
    /// For a model that denoises pictures.
    pub(super) fn of_pixels(image: &ImageInput, request: &Request, maker: &GuideMaker) -> Result<Self> {
        Ok(Self {
            pictures: Pictures::Pixels(Encoded::point(maker.image(image)?)),
            strength: request.strength.unwrap_or(Sampling::USUAL_STRENGTH),
            in_loop: false,
            handed_over_at: None,
        })
    }

    /// For a model that denoises latents.
    pub(super) fn begin(
        image: &ImageInput,
        images: &Images<'_>,
        usage: Usage,
        in_loop: bool,
    ) -> Result<Begin> {
        let size = images.size_or_own(image)?;
        Ok(Begin {
            start: Box::new(Self {
                pictures: Pictures::Latents(images.encoded(image, size)?),
                strength: images.request.strength.unwrap_or(usage.strength),
                in_loop,
                handed_over_at: images.request.denoising_start,
            }),
            size,
            crop: None,
            image_guidance_scale: None,
        })
    }
}

impl Start for InitialPicture {
    fn draw_first(&self, batch: &Rows, generator: &mut Generator, pipeline: &Pipeline) -> Option<Tensor<4>> {
        Some(match &self.pictures {
            Pictures::Pixels(pictures) => batch.of(&pictures.mode()),
            Pictures::Latents(images) => {
                let rows = batch.distinct(images.count());
                batch.spread(&images.sample(&rows, generator, pipeline.codec()))
            }
        })
    }

    fn set_loop(&self, options: &mut LoopOptions) {
        if self.in_loop {
            options.strength = Some(self.strength);
        }
    }

    fn begin<'a>(
        &self,
        sampling: Sampling<'a>,
        first: Option<Tensor<4>>,
        _: Tensor<4>,
        _: &Rows,
    ) -> Result<Sampling<'a>> {
        match (first, self.handed_over_at) {
            (None, _) => Ok(sampling),
            (Some(latents), Some(part)) => sampling.going_on_at(part, latents),
            (Some(pictures), None) if self.in_loop => sampling.starting_from(&pictures, 1.0),
            (Some(pictures), None) => sampling.starting_from(&pictures, self.strength),
        }
    }

    fn strength(&self) -> Option<f64> {
        self.handed_over_at.is_none().then_some(self.strength)
    }
}
