//! The losses that are built in.

use burn::tensor::Tensor;

use super::GuidanceLoss;
use crate::{Error, Result, named::named_enum, random::Generator};

/// The mean over each picture, `[batch]`.
fn mean(values: Tensor<4>) -> Tensor<1> {
    values.mean_dims(&[1, 2, 3]).flatten(0, 3)
}

/// The mean absolute distance to a colour: the course's `color_loss`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colour {
    /// Red, green and blue, 0 to 255.
    pub rgb: [u8; 3],
}

impl GuidanceLoss for Colour {
    fn loss(&self, clean: Tensor<4>, _: &mut Generator) -> Result<Tensor<1>> {
        let [_, channels, ..] = clean.dims();
        if channels != 3 {
            return Err(Error::Shape(format!(
                "a colour can guide pictures of 3 channels, and these have {channels}"
            )));
        }
        let target = self.rgb.map(|value| f32::from(value) / 127.5 - 1.0);
        let target = Tensor::<1>::from_data(target, &clean.device()).reshape([1, 3, 1, 1]);
        Ok(mean((clean - target).abs()))
    }

    fn name(&self) -> String {
        let [red, green, blue] = self.rgb;
        format!("the distance to the colour #{red:02X}{green:02X}{blue:02X}")
    }
}

/// The squared difference of a picture's mean value to a brightness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brightness {
    /// The mean that is wanted, from 0 (black) to 1 (white).
    pub target: f64,
}

impl GuidanceLoss for Brightness {
    fn loss(&self, clean: Tensor<4>, _: &mut Generator) -> Result<Tensor<1>> {
        Ok((mean(clean) - (self.target * 2.0 - 1.0)).square())
    }

    fn name(&self) -> String {
        format!("the difference to the brightness {}", self.target)
    }
}

named_enum! {
    /// The line that a picture is mirrored at.
    #[derive(Default)]
    pub enum Axis: "an axis of symmetry" {
        /// Left and right are alike.
        #[default]
        Vertical = "vertical",
        /// Top and bottom are alike.
        Horizontal = "horizontal",
    }
}

/// The mean absolute difference between a picture and its mirror image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symmetry {
    /// What it is mirrored at.
    pub axis: Axis,
}

impl GuidanceLoss for Symmetry {
    fn loss(&self, clean: Tensor<4>, _: &mut Generator) -> Result<Tensor<1>> {
        let mirrored = match self.axis {
            Axis::Vertical => clean.clone().flip([3]),
            Axis::Horizontal => clean.clone().flip([2]),
        };
        Ok(mean((clean - mirrored).abs()))
    }

    fn name(&self) -> String {
        format!("the difference to the mirror image at a {} axis", self.axis)
    }
}

/// The mean squared difference to a picture.
#[derive(Clone, Debug)]
pub struct Similarity {
    /// The picture, `[1, channels, height, width]` in -1..1, or one for each sample.
    pub picture: Tensor<4>,
}

impl GuidanceLoss for Similarity {
    fn loss(&self, clean: Tensor<4>, _: &mut Generator) -> Result<Tensor<1>> {
        fits("the picture that guides", &self.picture, &clean)?;
        Ok(mean((clean - self.picture.clone()).square()))
    }

    fn name(&self) -> String {
        "the difference to the picture".into()
    }
}

/// The mean squared difference to the known part of a picture: inpainting by guidance.
#[derive(Clone, Debug)]
pub struct KnownRegion {
    /// The picture, `[1, channels, height, width]` in -1..1, or one for each sample.
    pub picture: Tensor<4>,
    /// 1 where it is known and 0 elsewhere, `[1, 1, height, width]`, or one for each sample and channel.
    pub mask: Tensor<4>,
}

impl GuidanceLoss for KnownRegion {
    fn loss(&self, clean: Tensor<4>, _: &mut Generator) -> Result<Tensor<1>> {
        fits("the picture that guides", &self.picture, &clean)?;
        fits("the mask", &self.mask, &clean)?;
        let mask = self.mask.clone().expand(clean.dims());
        let squares = (clean - self.picture.clone()).square() * mask.clone();
        // A mask of nothing known asks for nothing.
        Ok(mean(squares) / mean(mask).clamp_min(1e-12))
    }

    fn name(&self) -> String {
        "the difference to the known region".into()
    }
}

/// Refuses what is neither of the samples' shape nor one for all of them and their channels.
pub(crate) fn fits(what: &str, tensor: &Tensor<4>, samples: &Tensor<4>) -> Result<()> {
    let ([batch, channels, height, width], shape) = (samples.dims(), tensor.dims());
    if [1, batch].contains(&shape[0]) && [1, channels].contains(&shape[1]) && shape[2..] == [height, width] {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "{what} has the shape {shape:?}, but the samples have {:?}: height and width must be theirs",
        samples.dims()
    )))
}
