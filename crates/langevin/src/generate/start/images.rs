//! Pictures brought into a latent pipeline's space, as diffusers' image processor brings them.

use burn::tensor::{Tensor, TensorData};

use crate::{
    Error, Request, Result, Size,
    codec::{AnyCodec, Codec, Encoded},
    data::{Arithmetic, Channels, Filter, Fit, ImageInput, Part, Picture, binary, resized},
    pipelines::Pipeline,
};

/// What turns the pictures of one request into tensors.
pub(super) struct Images<'a> {
    pub request: &'a Request,
    pub pipeline: &'a Pipeline,
}

/// What a codec made of pictures, or latents as they were given.
#[derive(Clone, Debug)]
pub(super) struct InitImage {
    encoded: Encoded,
    /// Whether they are of the model's space already.
    as_they_are: bool,
}

impl InitImage {
    /// How many.
    pub(super) fn count(&self) -> usize {
        self.encoded.count()
    }

    /// Points of the model's space, of these pictures.
    pub(super) fn sample(
        &self,
        rows: &[usize],
        generator: &mut crate::random::Generator,
        codec: &AnyCodec,
    ) -> Tensor<4> {
        let drawn = self.encoded.rows(rows).sample(generator);
        if self.as_they_are {
            drawn
        } else {
            codec.scale(drawn)
        }
    }
}

/// The part of a picture that is painted by itself, and what it is put back into.
#[derive(Clone, Debug)]
pub(crate) struct MaskCrop {
    part: Part,
    original: Picture,
    mask: Picture,
}

impl MaskCrop {
    /// The same part of another picture of that size.
    ///
    /// # Errors
    /// If it is of another size.
    pub(crate) fn of(&self, other: &Picture) -> Result<Picture> {
        let size = |picture: &Picture| (picture.height(), picture.width());
        if size(other) == size(&self.original) {
            return Ok(self.part.of(other));
        }
        Err(Error::option(
            &["control", "mask_crop"],
            format!(
                "the control's picture is of {}x{} pixels and the picture that is painted in of {}x{}: to cut out a part they must be of \
                 one size",
                other.width(),
                other.height(),
                self.original.width(),
                self.original.height()
            ),
        ))
    }

    /// The whole picture with the part painted.
    pub(crate) fn put_back(&self, painted: Picture) -> Result<Picture> {
        self.part.put_back(painted, &self.original, &self.mask)
    }
}

impl<'a> Images<'a> {
    pub(super) fn new(request: &'a Request, pipeline: &'a Pipeline) -> Self {
        Self { request, pipeline }
    }

    /// The size that is asked for, or the one that the model is made for.
    pub(super) fn size_or_usual(&self) -> Result<Size> {
        match self.request.size {
            Some(size) => Ok(size),
            None => self.pipeline.size(),
        }
    }

    /// The size that is asked for, or that of the picture, each side cut to what the codec divides.
    pub(super) fn size_or_own(&self, image: &ImageInput) -> Result<Size> {
        let factor = self.pipeline.codec().factor();
        if let Some(size) = self.request.size {
            return Ok(size);
        }
        if let ImageInput::Tensor(tensor) = image {
            let [_, _, height, width] = tensor.dims();
            let by = if self.is_latent(tensor) { factor } else { 1 };
            return Ok([height * by, width * by].into());
        }
        let picture = self.first(image)?;
        let cut = |side: usize| side / factor * factor;
        let size = Size {
            height: cut(picture.height()),
            width: cut(picture.width()),
        };
        if size.height == 0 || size.width == 0 {
            return Err(Error::Shape(format!(
                "{image} is of {}x{} pixels: it must be at least {factor} pixels high and wide",
                picture.width(),
                picture.height()
            )));
        }
        const MOST: usize = 2048 * 2048;
        if size.height.saturating_mul(size.width) > MOST {
            return Err(Error::option(
                &["size"],
                format!(
                    "{image} is of {}x{} pixels, which would take a great deal of memory and time: give the `size` to draw it at, such as \
                     {}",
                    picture.width(),
                    picture.height(),
                    smaller(size, factor)
                ),
            ));
        }
        Ok(size)
    }

    fn first(&self, image: &ImageInput) -> Result<Picture> {
        let mut all = image.read_all()?;
        Ok(all.swap_remove(0))
    }

    /// Whether a tensor is of the model's space and not of pictures.
    fn is_latent(&self, tensor: &Tensor<4>) -> bool {
        tensor.dims()[1] == self.pipeline.codec().channels()
    }

    /// Pictures at a size, `[count, 3, height, width]` in -1..1.
    pub(super) fn pictures(&self, image: &ImageInput, size: Size) -> Result<Tensor<4>> {
        if let ImageInput::Tensor(tensor) = image {
            return Ok(tensor.clone());
        }
        let all = image.read_all()?;
        let fitted = all.into_iter().map(|picture| {
            Fit::Stretch.resize(picture.into_channels(Channels::Rgb), size.height, size.width)
        });
        self.tensor(fitted.collect::<Result<_>>()?)
    }

    /// The same by another filter, each at the size of the first.
    pub(super) fn pictures_by(&self, filter: Filter, image: &ImageInput, size: Size) -> Result<Tensor<4>> {
        if let ImageInput::Tensor(tensor) = image {
            return Ok(tensor.clone());
        }
        let all = image.read_all()?;
        let fitted = all.into_iter().map(|picture| {
            let picture = picture.into_channels(Channels::Rgb);
            resized(picture, size.height, size.width, filter, Arithmetic::Pillow)
        });
        self.tensor(fitted.collect::<Result<_>>()?)
    }

    fn tensor(&self, pictures: Vec<Picture>) -> Result<Tensor<4>> {
        let device = self.pipeline.model.device();
        let each = pictures.iter().map(|picture| {
            let shape = [1, picture.channels().count(), picture.height(), picture.width()];
            Tensor::<4>::from_data(TensorData::new(picture.to_chw(), shape), &device)
        });
        Ok(Tensor::cat(each.collect(), 0))
    }

    /// Pictures in the codec's space; a tensor of as many channels as that has is taken as it is.
    pub(super) fn encoded(&self, image: &ImageInput, size: Size) -> Result<InitImage> {
        if let ImageInput::Tensor(tensor) = image
            && self.is_latent(tensor)
        {
            return Ok(InitImage {
                encoded: Encoded::point(tensor.clone()),
                as_they_are: true,
            });
        }
        Ok(InitImage {
            encoded: self.pipeline.codec().encode(self.pictures(image, size)?)?,
            as_they_are: false,
        })
    }

    /// What a picture of this tensor comes to in the codec's space.
    pub(super) fn encoded_tensor(&self, pictures: Tensor<4>) -> Result<InitImage> {
        Ok(InitImage {
            encoded: self.pipeline.codec().encode(pictures)?,
            as_they_are: false,
        })
    }

    /// Masks at a size, `[count, 1, height, width]`: 1 where to paint.
    pub(super) fn masks(&self, mask: &ImageInput, size: Size) -> Result<Tensor<4>> {
        if let ImageInput::Tensor(tensor) = mask {
            return Ok(tensor.clone().greater_equal_elem(0.5).float());
        }
        let all = mask.read_all()?;
        let fitted = all
            .into_iter()
            .map(|mask| Fit::Stretch.resize(mask, size.height, size.width));
        Ok(self.mask_tensor(fitted.collect::<Result<_>>()?))
    }

    fn mask_tensor(&self, masks: Vec<Picture>) -> Tensor<4> {
        let device = self.pipeline.model.device();
        let each = masks.into_iter().map(|mask| {
            let shape = [1, 1, mask.height(), mask.width()];
            Tensor::<4>::from_data(TensorData::new(binary(mask), shape), &device)
        });
        Tensor::cat(each.collect(), 0)
    }

    /// A picture and its mask, and the part around the mask alone where one is asked for.
    pub(super) fn masked(
        &self,
        image: &ImageInput,
        mask: &ImageInput,
        size: Size,
    ) -> Result<(Tensor<4>, Tensor<4>, Option<MaskCrop>)> {
        let Some(padding) = self.request.mask_crop else {
            return Ok((self.pictures(image, size)?, self.masks(mask, size)?, None));
        };
        let (picture, mask) = (image.read()?.into_channels(Channels::Rgb), mask.read()?);
        if (picture.height(), picture.width()) != (mask.height(), mask.width()) {
            return Err(Error::option(
                &["mask", "mask_crop"],
                format!(
                    "the mask is of {}x{} pixels and the picture of {}x{}: to cut out a part they must be of one size",
                    mask.width(),
                    mask.height(),
                    picture.width(),
                    picture.height()
                ),
            ));
        }
        let part = Part::around(&mask, padding, size)?;
        let fitted = |picture: &Picture| Fit::Inside.resize(part.of(picture), size.height, size.width);
        let pictures = self.tensor(vec![fitted(&picture)?])?;
        let masks = self.mask_tensor(vec![fitted(&mask)?]);
        let crop = MaskCrop {
            part,
            original: picture,
            mask,
        };
        Ok((pictures, masks, Some(crop)))
    }
}

/// A size of the same proportions that is no larger than pictures usually are.
fn smaller(size: Size, factor: usize) -> Size {
    const USUAL: f64 = 768.0;
    let scale = USUAL / (size.height.max(size.width) as f64);
    let cut = |side: usize| ((side as f64 * scale) as usize / factor * factor).max(factor);
    Size {
        height: cut(size.height),
        width: cut(size.width),
    }
}
