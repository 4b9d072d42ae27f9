//! Painting in a picture by RePaint (Lugmayr et al. 2022), for models that denoise pictures.

use burn::tensor::Tensor;

use super::Start;
use crate::{
    Result,
    data::ImageInput,
    guidance::GuideMaker,
    pipelines::Inpainting,
    schedulers::{AnyScheduler, Scheduler},
};

/// Noise, which becomes the unknown part of a picture; the mask is 1 where it is known.
#[derive(Debug)]
pub(super) struct Repaint {
    picture: Tensor<4>,
    mask: Tensor<4>,
}

impl Repaint {
    pub(super) fn new(image: &ImageInput, maker: &GuideMaker) -> Result<Self> {
        let (picture, mask) = maker.masked(image)?;
        Ok(Self { picture, mask })
    }
}

impl Start for Repaint {
    fn scheduler(&self, scheduler: &AnyScheduler) -> Result<Box<dyn Scheduler>> {
        Ok(Box::new(Inpainting::new(
            scheduler,
            self.picture.clone(),
            self.mask.clone(),
        )?))
    }
}
