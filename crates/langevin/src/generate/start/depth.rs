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
        let Some(depth) = &request.depth else {
            return Err(Error::option(
                &["depth"],
                "this model is shown depths, which cannot be estimated yet: give a picture of them by `depth`, near white and far black",
            ));
        };
        let size = images.size_or_own(image)?;
        let [_, height, width] = images.pipeline.codec().latent_shape(size);
        let depths = match depth {
            ImageInput::Tensor(depths) => depths.clone(),
            pictures => images.grey(pictures)?,
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
                depths: normalised(resize_cubic(depths, [height, width])),
                strength: request.strength.unwrap_or(usage.strength),
            }),
            size,
            crop: None,
            image_guidance_scale: None,
        })
    }
}

impl Images<'_> {
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

/// Each picture's nearest at 1 and its farthest at -1.
fn normalised(depths: Tensor<4>) -> Tensor<4> {
    let [count, _, height, width] = depths.dims();
    let flat = depths.clone().reshape([count, height * width]);
    let (least, most) = (flat.clone().min_dim(1), flat.max_dim(1));
    let shape = [count, 1, 1, 1];
    let (least, most) = (least.reshape(shape), most.reshape(shape));
    (depths - least.clone()) * 2.0 / (most - least).clamp_min(f32::MIN_POSITIVE) - 1.0
}

/// `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`: Keys' cubic with a = -0.75, without antialiasing.
fn resize_cubic(x: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [.., from_height, from_width] = x.dims();
    let device = x.device();
    let matrix = |input: usize, output: usize| {
        let data = TensorData::new(cubic_weights(input, output), [1, 1, output, input]);
        Tensor::<4>::from_data(data, &device)
    };
    let across = x.matmul(matrix(from_width, width).swap_dims(2, 3));
    matrix(from_height, height).matmul(across)
}

/// What each of `output` places takes of each of `input`, `[output, input]`.
fn cubic_weights(input: usize, output: usize) -> Vec<f32> {
    const A: f64 = -0.75;
    let weigh = |distance: f64| {
        let x = distance.abs();
        if x <= 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else {
            ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
        }
    };
    let scale = input as f64 / output as f64;
    let mut rows = vec![0.0; input * output];
    for (at, row) in rows.chunks_exact_mut(input).enumerate() {
        let center = (at as f64 + 0.5) * scale - 0.5;
        let first = center.floor();
        for tap in -1..=2 {
            let place = first + f64::from(tap);
            let within = place.clamp(0.0, (input - 1) as f64) as usize;
            row[within] += weigh(center - place) as f32;
        }
    }
    rows
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
