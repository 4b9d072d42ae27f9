//! The second pass of a plan, which draws on at a larger size what the first came to.

use std::ops::Range;

use burn::tensor::Tensor;

use super::{Plan, start::Enlarged};
use crate::{
    Result,
    codec::Codec,
    data::{Fit, Picture},
    nn::{Interpolation, interpolate},
    ops,
    options::UpscaleBy,
    pipelines::{Draws, Pipeline, Sampling, to_pictures},
    random::Generator,
};

/// The second pass: a plan of its own, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Second {
    pub plan: Box<Plan>,
    pub enlarged: Enlarged,
    /// How many steps its loop has.
    pub total: usize,
}

impl Plan {
    /// How many steps its loops have for each picture, over all passes, where the first has so many.
    pub fn steps_of_all_passes(&self, first: usize) -> usize {
        first + self.second.as_ref().map_or(0, |second| second.total)
    }

    /// Whether what a loop comes to is drawn on by a second one, see [`Self::go_on`].
    pub fn has_second_pass(&self) -> bool {
        self.second.is_some()
    }

    /// The loop that draws on a batch of the pictures at a larger size, from what the first came to. As in A1111, and as in a call of its own
    /// in diffusers, the generator is seeded anew.
    ///
    /// # Errors
    /// If there is no second pass, or it cannot begin.
    pub fn go_on<'a>(
        &self,
        pipeline: &'a Pipeline,
        samples: Tensor<4>,
        pictures: Range<usize>,
    ) -> Result<Sampling<'a>> {
        let Some(second) = &self.second else {
            return Err(crate::Error::Config("the plan has no second pass".into()));
        };
        let seed = match self.has_own_seeds() || pictures.len() == 1 {
            true => self.seed_of(pictures.start),
            false => self.seed(),
        };
        let mut generator = Generator::new(seed);
        let plan = &second.plan;
        ops::computing(self.precision(), || {
            let larger = second.enlarged.samples(pipeline, samples, &mut generator)?;
            let draws: Draws<'a> = generator.into();
            let sampling = plan.start(pipeline, pictures, draws, Some(larger))?;
            plan.guided(sampling, seed)
        })
    }
}

impl Enlarged {
    /// What the first pass came to at the size of the second, in the codec's space.
    fn samples(
        &self,
        pipeline: &Pipeline,
        samples: Tensor<4>,
        generator: &mut Generator,
    ) -> Result<Tensor<4>> {
        let codec = pipeline.codec();
        let [_, height, width] = codec.latent_shape(self.size);
        let by = match self.by {
            UpscaleBy::Lanczos => {
                let pictures = to_pictures(&codec.decode(samples)?)?;
                let larger = pictures.into_iter().map(|picture| {
                    let larger = Fit::Stretch.resize(picture, self.size.height, self.size.width)?;
                    Ok(tensor(&larger, pipeline))
                });
                let larger = Tensor::cat(larger.collect::<Result<_>>()?, 0);
                return Ok(codec.scale(codec.encode(larger)?.sample(generator)));
            }
            UpscaleBy::Latent => Interpolation::Bilinear,
            UpscaleBy::LatentBicubic => Interpolation::Bicubic,
            UpscaleBy::LatentNearest => Interpolation::Nearest,
        };
        let larger = interpolate(samples.permute([0, 2, 3, 1]), [height, width], by);
        Ok(larger.permute([0, 3, 1, 2]))
    }
}

/// A picture in -1..1, `[1, 3, height, width]`.
fn tensor(picture: &Picture, pipeline: &Pipeline) -> Tensor<4> {
    let shape = [1, picture.channels().count(), picture.height(), picture.width()];
    let data = burn::tensor::TensorData::new(picture.to_chw(), shape);
    Tensor::from_data(data, &pipeline.model.device())
}
