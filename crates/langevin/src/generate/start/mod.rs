//! What a loop begins with besides noise, and what its model is shown beside the sample: a file per use of a picture.
//!
//! What is encoded is so once per request; what is drawn is drawn for every batch, in the order of diffusers' calls: the picture, the
//! noise, the masked picture.

mod depth;
mod edit;
mod enlarged;
mod images;
mod inpaint;
mod picture;
mod repaint;
mod sound;
mod upscale;

use std::ops::Range;

use burn::tensor::Tensor;

use self::{
    depth::Depth, edit::Edit, images::Images, inpaint::Inpaint, picture::InitialPicture, repaint::Repaint,
    sound::InitialSound, upscale::Upscale,
};
use crate::{
    Error, Request, Result, Size,
    codec::Codec,
    conditioning::Pair,
    guidance::GuideMaker,
    models::Conditioning,
    pipelines::{PictureUse, Pipeline, Sampling},
    random::Generator,
    schedulers::{AnyScheduler, LoopOptions, Scheduler},
};

/// One use of a picture.
pub(super) trait Start: std::fmt::Debug + Send + Sync {
    /// What is drawn before the noise.
    fn draw_first(&self, batch: &Rows, generator: &mut Generator, pipeline: &Pipeline) -> Option<Tensor<4>> {
        let _ = (batch, generator, pipeline);
        None
    }

    /// What the model is shown; whatever is drawn for it comes after the noise.
    ///
    /// # Errors
    /// If it does not fit the model.
    fn show(&self, parts: Parts<'_>, pair: &mut Pair) -> Result<()> {
        let _ = (parts, pair);
        Ok(())
    }

    /// The scheduler of the loop.
    ///
    /// # Errors
    /// If it does not fit.
    fn scheduler(&self, scheduler: &AnyScheduler) -> Result<Box<dyn Scheduler>> {
        Ok(Box::new(scheduler.clone()))
    }

    /// What is said about the loop, besides its steps.
    fn set_loop(&self, options: &mut LoopOptions) {
        let _ = options;
    }

    /// Where the loop begins.
    ///
    /// # Errors
    /// If no step is left.
    fn begin<'a>(
        &self,
        sampling: Sampling<'a>,
        first: Option<Tensor<4>>,
        noise: Tensor<4>,
        batch: &Rows,
    ) -> Result<Sampling<'a>> {
        let _ = (first, noise, batch);
        Ok(sampling)
    }

    /// How many columns at the beginning of the pictures stay as they are known.
    fn keeps(&self) -> usize {
        0
    }

    /// The part of the steps that is walked, where that is not all.
    fn strength(&self) -> Option<f64> {
        None
    }
}

/// Noise alone.
#[derive(Debug)]
struct Noise;

impl Start for Noise {}

/// What a start may draw from and look at while it shows the model something.
pub(super) struct Parts<'a> {
    pub batch: &'a Rows,
    /// What was drawn before the noise.
    pub first: Option<Tensor<4>>,
    pub generator: &'a mut Generator,
    pub pipeline: &'a Pipeline,
}

/// The pictures of a batch, by their numbers in the request.
#[derive(Clone, Debug)]
pub(super) struct Rows(Range<usize>);

impl Rows {
    pub(super) fn new(pictures: Range<usize>) -> Self {
        Self(pictures)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which of `count` things the batch's pictures take in turn, each once: as many as are drawn together.
    pub(super) fn distinct(&self, count: usize) -> Vec<usize> {
        let used = self.len().min(count);
        (0..used).map(|place| (self.0.start + place) % count).collect()
    }

    /// Of things of which the batch has one each, or fewer that its pictures take in turn.
    pub(super) fn spread(&self, things: &Tensor<4>) -> Tensor<4> {
        let [count, ..] = things.dims();
        if count == self.len() {
            return things.clone();
        }
        let rows = 0..self.len();
        Tensor::cat(
            rows.map(|row| things.clone().narrow(0, row % count, 1)).collect(),
            0,
        )
    }

    /// Which of `count` things of the request the batch's pictures take.
    pub(super) fn numbers(&self, count: usize) -> Vec<usize> {
        self.0.clone().map(|number| number % count.max(1)).collect()
    }

    /// Of all things of the request, those that the batch's pictures take.
    pub(super) fn of(&self, all: &Tensor<4>) -> Tensor<4> {
        let [count, ..] = all.dims();
        let rows = self
            .0
            .clone()
            .map(|number| all.clone().narrow(0, number % count, 1));
        Tensor::cat(rows.collect(), 0)
    }
}

/// Puts channels beside the sample into all of what the model is given.
pub(super) fn show_channels(pair: &mut Pair, towards: Tensor<4>, away: Tensor<4>) {
    let with = |conditioning: &mut Conditioning, channels| conditioning.channels = Some(channels);
    with(&mut pair.towards, towards);
    with(&mut pair.away, away);
}

/// What a request begins with, and the size of its pictures.
pub(super) struct Begin {
    pub start: Box<dyn Start>,
    pub size: Size,
    /// Where a part of a picture is painted by itself: what puts it back.
    pub crop: Option<MaskCrop>,
    /// How closely an edited picture follows the one that is edited.
    pub image_guidance_scale: Option<f64>,
}

pub(crate) use enlarged::Enlarged;
pub(super) use images::MaskCrop;

impl Begin {
    /// What a request means for a pipeline.
    ///
    /// # Errors
    /// If the pipeline cannot begin so, or a picture cannot be read.
    pub(super) fn of(request: &Request, pipeline: &Pipeline, maker: &GuideMaker) -> Result<Self> {
        let noise = |size| Self {
            start: Box::new(Noise),
            size,
            crop: None,
            image_guidance_scale: None,
        };
        if let Some(begin) = InitialSound::begin(request, pipeline, maker.size)? {
            return Ok(begin);
        }
        let usage = pipeline.usage(!request.control.is_empty());
        let Some(latent) = usage.filter(|_| pipeline.codec().is_latent()) else {
            return Ok(Self {
                start: match (&request.init_image, &request.inpaint) {
                    (Some(image), _) => Box::new(InitialPicture::of_pixels(image, request, maker)?),
                    (None, Some(image)) => Box::new(Repaint::new(image, maker)?),
                    (None, None) => Box::new(Noise),
                },
                ..noise(maker.size)
            });
        };
        let images = Images::new(request, pipeline);
        match (&request.init_image, &request.inpaint, latent.picture_use) {
            (None, Some(image), PictureUse::Start) => Inpaint::begin(image, &images, latent.inpaint),
            (_, Some(_), _) => Err(Error::option(
                &["inpaint"],
                format!(
                    "a {} does not paint in a part of a picture",
                    pipeline.class().name
                ),
            )),
            (Some(image), None, PictureUse::Start) => {
                InitialPicture::begin(image, &images, latent.picture, latent.strength_in_loop)
            }
            (Some(image), None, PictureUse::Depth) => Depth::begin(image, &images, latent.picture),
            (Some(image), None, PictureUse::Edit) => Edit::begin(image, &images),
            (Some(image), None, PictureUse::Upscale) => Upscale::begin(image, &images),
            // A condition has looked at it.
            (Some(_), None, PictureUse::Variation) => Ok(noise(images.size_or_usual()?)),
            (None, None, PictureUse::Start) => {
                let (takes, latents) = (pipeline.model.config().in_channels(), pipeline.codec().channels());
                if takes == latents {
                    // As diffusers has it, pictures are as large as those that they follow.
                    return Ok(noise(match request.control.first() {
                        Some(control) => images.size_or_own(&control.picture)?,
                        None => images.size_or_usual()?,
                    }));
                }
                Err(Error::option(
                    &["inpaint", "mask"],
                    "this model paints in a part of a picture: give it a picture with `inpaint` and a `mask`, white where to paint",
                ))
            }
            (None, None, _) => Err(Error::option(
                &["init_image"],
                format!(
                    "a {} begins with a picture: name one by `init_image`",
                    pipeline.class().name
                ),
            )),
        }
    }
}
