//! Picture to picture that keeps the depths: the model is shown them. Mirrors diffusers' `StableDiffusionDepth2ImgPipeline`.

use burn::tensor::{Tensor, TensorData};

use super::{
    Begin, Parts, Rows, Start,
    images::{Images, InitImage},
    show_channels,
};
use crate::{
    Error, Result,
    codec::Codec,
    conditioning::Pair,
    data::{Channels, ImageInput},
    nn::{Interpolation, interpolate},
    pipelines::{Pipeline, Sampling, Usage},
    random::Generator,
};

/// A picture, and its depths at the size of the latents, `[count, 1, height, width]` in -1..1.
#[derive(Debug)]
pub(super) struct Depth {
    image: InitImage,
    depths: Tensor<4>,
    strength: f64,
}

impl Depth {
    pub(super) fn begin(image: &ImageInput, images: &Images<'_>, usage: Usage) -> Result<Begin> {
        let request = images.request;
        let size = images.size_or_own(image)?;
        let [_, height, width] = images.pipeline.codec().latent_shape(size);
        let depths = match &request.depth {
            Some(ImageInput::Tensor(depths)) => depths.clone(),
            Some(pictures) => images.grey(pictures)?,
            None => images.estimated_depths(image)?,
        };
        if depths.dims()[1] != 1 {
            return Err(Error::Shape(format!(
                "depths have one channel, and these have {}",
                depths.dims()[1]
            )));
        }
        Ok(Begin {
            start: Box::new(Self {
                image: images.encoded(image, size)?,
                depths: normalised(resized(depths, [height, width])),
                strength: request.strength.unwrap_or(usage.strength),
            }),
            size,
            crop: None,
            image_guidance_scale: None,
        })
    }
}

impl Images<'_> {
    /// What the pipeline's own estimator makes of pictures, `[count, 1, height, width]`.
    fn estimated_depths(&self, image: &ImageInput) -> Result<Tensor<4>> {
        let Some(estimation) = self.pipeline.depth_estimation() else {
            return Err(Error::option(
                &["depth"],
                "this model is shown depths, and the pipeline has nothing that estimates them: give a picture of them by `depth`, near \
                 white and far black",
            ));
        };
        if let ImageInput::Tensor(_) = image {
            return Err(Error::option(
                &["depth"],
                "depths are estimated from pictures, and this is a tensor: give them by `depth`",
            ));
        }
        estimation.depths(&image.read_all()?)
    }

    /// Pictures in shades of grey, `[count, 1, height, width]`.
    fn grey(&self, image: &ImageInput) -> Result<Tensor<4>> {
        let device = self.pipeline.model.device();
        let each = image.read_all()?.into_iter().map(|picture| {
            let grey = picture.into_channels(Channels::Grey);
            let shape = [1, 1, grey.height(), grey.width()];
            Tensor::<4>::from_data(TensorData::new(grey.to_chw(), shape), &device)
        });
        Ok(Tensor::cat(each.collect(), 0))
    }
}

/// Depths at another size, `[count, 1, height, width]`.
fn resized(depths: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    interpolate(depths.permute([0, 2, 3, 1]), size, Interpolation::Bicubic).permute([0, 3, 1, 2])
}

/// Each picture's nearest at 1 and its farthest at -1.
fn normalised(depths: Tensor<4>) -> Tensor<4> {
    let [count, _, height, width] = depths.dims();
    let flat = depths.clone().reshape([count, height * width]);
    let (least, most) = (flat.clone().min_dim(1), flat.max_dim(1));
    let shape = [count, 1, 1, 1];
    let (least, most) = (least.reshape(shape), most.reshape(shape));
    (depths - least.clone()) * 2.0 / (most - least).clamp_min(f32::MIN_POSITIVE) - 1.0
}

impl Start for Depth {
    fn draw_first(&self, batch: &Rows, generator: &mut Generator, pipeline: &Pipeline) -> Option<Tensor<4>> {
        let rows = batch.distinct(self.image.count());
        Some(batch.spread(&self.image.sample(&rows, generator, pipeline.codec())))
    }

    fn show(&self, parts: Parts<'_>, pair: &mut Pair) -> Result<()> {
        let depths = parts.batch.of(&self.depths);
        show_channels(pair, depths.clone(), depths);
        Ok(())
    }

    fn begin<'a>(
        &self,
        sampling: Sampling<'a>,
        first: Option<Tensor<4>>,
        _: Tensor<4>,
        _: &Rows,
    ) -> Result<Sampling<'a>> {
        match first {
            Some(pictures) => sampling.starting_from(&pictures, self.strength),
            None => Ok(sampling),
        }
    }

    fn strength(&self) -> Option<f64> {
        Some(self.strength)
    }
}
