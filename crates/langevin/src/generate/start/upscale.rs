//! Enlarging a picture: the model is shown it, with some noise. Mirrors diffusers' `StableDiffusionUpscalePipeline`.

use burn::tensor::{Int, Tensor};
use serde_json::Value;

use super::{Begin, Parts, Rows, Start, images::Images, show_channels};
use crate::{
    Error, Result, Size,
    codec::Codec,
    conditioning::Pair,
    data::{Filter, ImageInput},
    pipelines::Pipeline,
    random::Generator,
    schedulers::{AnyScheduler, Scheduler},
};

/// The noise that a small picture is given where nobody says, and the most that it may be given where the pipeline does not say.
const USUAL_LEVEL: usize = 20;
const MOST_NOISE: u64 = 350;

/// The small pictures, `[count, 3, height, width]` in -1..1, and how they are noised.
#[derive(Debug)]
pub(super) struct Upscale {
    pictures: Tensor<4>,
    level: usize,
    scheduler: AnyScheduler,
}

impl Upscale {
    pub(super) fn begin(image: &ImageInput, images: &Images<'_>) -> Result<Begin> {
        let (request, pipeline) = (images.request, images.pipeline);
        if request.size.is_some() {
            return Err(Error::option(
                &["size"],
                "an upscaling pipeline's pictures are as many times as large as the one they begin with: leave `size` out",
            ));
        }
        let scheduler = pipeline.low_resolution_scheduler().cloned().ok_or_else(|| {
            Error::Config("the pipeline has no `low_res_scheduler`, which noises the small picture".into())
        })?;
        let level = request.noise_level.unwrap_or(USUAL_LEVEL);
        let most = pipeline.settings().get("max_noise_level").and_then(Value::as_u64);
        let most = most.unwrap_or(MOST_NOISE);
        if level as u64 > most {
            return Err(Error::option(
                &["noise_level"],
                format!("`noise_level` is {level}: it may be {most} at most"),
            ));
        }
        let small = images.size_or_own(image)?;
        let factor = pipeline.codec().factor();
        let size = Size {
            height: small.height * factor,
            width: small.width * factor,
        };
        Ok(Begin {
            start: Box::new(Self {
                pictures: images.pictures_by(Filter::Bicubic, image, small)?,
                level,
                scheduler,
            }),
            size,
            crop: None,
            image_guidance_scale: None,
        })
    }
}

impl Start for Upscale {
    /// The small pictures with their noise.
    fn draw_first(&self, batch: &Rows, generator: &mut Generator, _: &Pipeline) -> Option<Tensor<4>> {
        let rows = batch.distinct(self.pictures.dims()[0]);
        let each = rows.iter().map(|&row| self.pictures.clone().narrow(0, row, 1));
        let pictures = Tensor::cat(each.collect(), 0);
        let noise = generator.randn_tensor(pictures.dims(), &pictures.device());
        let levels = vec![self.level; rows.len()];
        // The level is one of the schedule's, and the shapes are one.
        let noised = self.scheduler.add_noise(pictures, noise, &levels).ok()?;
        Some(batch.spread(&noised))
    }

    fn show(&self, parts: Parts<'_>, pair: &mut Pair) -> Result<()> {
        let Some(pictures) = parts.first else {
            return Err(Error::Config(format!(
                "the noise level {} is beyond the schedule",
                self.level
            )));
        };
        let device = pictures.device();
        show_channels(pair, pictures.clone(), pictures);
        let levels = Tensor::<1, Int>::full([parts.batch.len()], self.level as i64, &device);
        pair.towards.classes = Some(levels.clone());
        pair.away.classes = Some(levels);
        Ok(())
    }
}
