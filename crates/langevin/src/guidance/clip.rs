//! Guidance by CLIP: towards a text or a picture.

use burn::tensor::Tensor;

use super::{GuidanceLoss, cutouts::cutout};
use crate::{
    Result,
    models::clip::{ClipModel, unit},
    random::Generator,
};

/// The squared great-circle distance between directions: 2 arcsin²(|a - b| / 2) of the unit vectors. `[batch, dimension]` and
/// `[1 or batch, dimension]` to `[batch]`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use langevin::guidance::great_circle;
///
/// let device = Device::default();
/// let east = Tensor::<2>::from_data([[2.0, 0.0]], &device);
/// let north = Tensor::<2>::from_data([[0.0, 3.0]], &device);
/// let distance = great_circle(east, north).into_scalar::<f32>();
/// assert!((distance - std::f32::consts::PI.powi(2) / 8.0).abs() < 1e-5);
/// ```
pub fn great_circle(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let squares = (unit(a) - unit(b)).square().sum_dim(1);
    // Where the two are one, the root's slope would not be a number.
    let half = squares.clamp_min(1e-12).sqrt() / 2.0;
    (half.asin().square() * 2.0).flatten(0, 1)
}

/// How far what CLIP sees in a picture is from a text or another picture, by the mean [`great_circle`] distance of a few random
/// cut-outs, as in the diffusion course.
#[derive(Clone, Debug)]
pub struct ClipLoss {
    clip: ClipModel,
    /// `[1, dimension]`
    target: Tensor<2>,
    cuts: usize,
    name: String,
}

impl ClipLoss {
    /// The course's number of cut-outs.
    pub const USUAL_CUTS: usize = 4;

    /// The distance to a text.
    ///
    /// # Errors
    /// If the model has no tokenizer, or the text is too long for it.
    pub fn text(clip: ClipModel, text: &str) -> Result<Self> {
        let target = clip.encode_text(&[text])?;
        let name = format!("the distance to the text “{text}”");
        Ok(Self {
            clip,
            target,
            cuts: Self::USUAL_CUTS,
            name,
        })
    }

    /// The distance to a picture, `[1, 1 or 3, height, width]` in -1..1.
    ///
    /// # Errors
    /// If CLIP cannot look at it.
    pub fn picture(clip: ClipModel, picture: Tensor<4>) -> Result<Self> {
        let target = clip.encode_image(picture / 2.0 + 0.5)?;
        let name = "the distance to what CLIP sees in the picture".into();
        Ok(Self {
            clip,
            target,
            cuts: Self::USUAL_CUTS,
            name,
        })
    }

    /// With another number of cut-outs; 0 looks at the whole picture, which draws nothing at random.
    pub fn with_cuts(mut self, cuts: usize) -> Self {
        self.cuts = cuts;
        self
    }
}

impl GuidanceLoss for ClipLoss {
    fn loss(&self, clean: Tensor<4>, generator: &mut Generator) -> Result<Tensor<1>> {
        let [batch, _, ..] = clean.dims();
        let pictures = clean / 2.0 + 0.5;
        if self.cuts == 0 {
            return Ok(great_circle(
                self.clip.encode_image(pictures)?,
                self.target.clone(),
            ));
        }
        let preprocess = self.clip.preprocess();
        let size = preprocess.size;
        let cuts = (0..self.cuts)
            .map(|_| cutout(pictures.clone(), size, generator).expand([batch, 3, size, size]))
            .collect();
        let features = self
            .clip
            .image_features(preprocess.normalise(Tensor::cat(cuts, 0)))?;
        let distances = great_circle(features, self.target.clone());
        Ok(distances.reshape([self.cuts, batch]).mean_dim(0).flatten(0, 1))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
