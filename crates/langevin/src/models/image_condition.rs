//! Pictures that a model is shown beside the noisy one, made of the clean one: colouring, deblurring, super-resolution and inpainting
//! are one model each, told by what it is shown.

use std::{fmt, str::FromStr};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, random::Generator};

/// The weights of red, green and blue in a grey value (ITU-R BT.601, as Pillow's `convert("L")`).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// What is made of the clean picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageCondition {
    /// The picture without colour; one channel.
    Grey,
    /// The picture blurred by a Gaussian of this standard deviation, in pixels.
    Blur(f64),
    /// The picture this many times smaller, brought back to size.
    Downscale(usize),
    /// How much the grey value changes at a place (Sobel's filters); one channel.
    Edges,
    /// The picture without what lies under a mask, and the mask: one channel more.
    Mask,
    /// A picture of the data set's own, in the column of this name.
    Column(String),
}

impl ImageCondition {
    /// How many channels are made of a picture that has `channels`.
    pub fn channels(&self, channels: usize) -> usize {
        match self {
            Self::Grey | Self::Edges => 1,
            Self::Blur(_) | Self::Downscale(_) | Self::Column(_) => channels,
            Self::Mask => channels + 1,
        }
    }

    /// Checks it against the pictures of a model.
    ///
    /// # Errors
    /// If it says nothing about them, or does not divide them.
    pub fn validate(&self, channels: usize, size: [usize; 2]) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        match self {
            Self::Grey if channels == 1 => {
                fail("`conditioning_image` is `grey`, and the pictures are grey: that would show the model what it should draw".into())
            }
            Self::Downscale(factor) if size.iter().any(|side| side % factor != 0) => fail(format!(
                "`conditioning_image` is `downscale:{factor}`, which does not divide pictures of {}x{}",
                size[0], size[1]
            )),
            _ => Ok(()),
        }
    }

    /// What the model is shown of clean pictures, or of those in the [`Column`](Self::Column), which are shown as they are; masks are boxes of chance, of which `generator` draws four numbers a picture.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` in -1..1 → `[batch, Self::channels(channels), height, width]`
    pub fn make(&self, pictures: Tensor<4>, generator: &mut Generator) -> Tensor<4> {
        match self {
            Self::Grey => grey(pictures),
            Self::Blur(sigma) => blur(pictures, *sigma),
            Self::Downscale(factor) => downscale(pictures, *factor),
            Self::Edges => edges(grey(pictures)),
            Self::Column(_) => pictures,
            Self::Mask => {
                let mask = boxes(&pictures, generator);
                masked(pictures, mask)
            }
        }
    }
}

/// The picture with zeros where the mask is 1, then the mask: `[batch, channels, …]` and `[batch, 1, …]` →
/// `[batch, channels + 1, …]`.
pub fn masked(pictures: Tensor<4>, mask: Tensor<4>) -> Tensor<4> {
    let known = mask.clone() * -1.0 + 1.0;
    Tensor::cat(vec![pictures * known, mask], 1)
}

/// `[batch, 3 or 1, height, width]` → `[batch, 1, height, width]`
pub fn grey(pictures: Tensor<4>) -> Tensor<4> {
    match pictures.dims()[1] {
        3 => {
            let weights = TensorData::new(LUMA.to_vec(), [1, 3, 1, 1]);
            let device = pictures.device();
            (pictures * Tensor::from_data(weights, &device)).sum_dim(1)
        }
        _ => pictures.mean_dim(1),
    }
}

/// A matrix product for each axis: what each place takes of the places along it.
fn along_both(pictures: Tensor<4>, weights: impl Fn(usize) -> Vec<f32>) -> Tensor<4> {
    let [_, _, height, width] = pictures.dims();
    let device = pictures.device();
    let matrix = |side: usize| {
        let weights = TensorData::new(weights(side), [1, 1, side, side]);
        Tensor::<4>::from_data(weights, &device)
    };
    let across = pictures.matmul(matrix(width).swap_dims(2, 3));
    matrix(height).matmul(across)
}

/// Every place takes of those around it by a bell curve, of which what reaches over the edge is left out.
fn blur(pictures: Tensor<4>, sigma: f64) -> Tensor<4> {
    along_both(pictures, |side| {
        let mut rows = vec![];
        for at in 0..side {
            let weigh = |x: usize| (-0.5 * ((x as f64 - at as f64) / sigma).powi(2)).exp();
            let sum: f64 = (0..side).map(weigh).sum();
            rows.extend((0..side).map(|x| (weigh(x) / sum) as f32));
        }
        rows
    })
}

/// Every block of `factor` by `factor` becomes its mean.
fn downscale(pictures: Tensor<4>, factor: usize) -> Tensor<4> {
    along_both(pictures, |side| {
        let same = |at: usize, x: usize| at / factor == x / factor;
        let weight = |at: usize, x: usize| if same(at, x) { 1.0 / factor as f32 } else { 0.0 };
        (0..side * side).map(|i| weight(i / side, i % side)).collect()
    })
}

/// The length of Sobel's gradient, about 0 to 1; the edge's own values go on beyond the edge.
fn edges(grey: Tensor<4>) -> Tensor<4> {
    let shifted = |x: &Tensor<4>, dim: usize, by: isize| {
        let n = x.dims()[dim];
        match by {
            1 => Tensor::cat(
                vec![x.clone().narrow(dim, 1, n - 1), x.clone().narrow(dim, n - 1, 1)],
                dim,
            ),
            _ => Tensor::cat(
                vec![x.clone().narrow(dim, 0, 1), x.clone().narrow(dim, 0, n - 1)],
                dim,
            ),
        }
    };
    let smooth =
        |x: &Tensor<4>, dim: usize| shifted(x, dim, -1) * 0.25 + x.clone() * 0.5 + shifted(x, dim, 1) * 0.25;
    let slope = |x: &Tensor<4>, dim: usize| (shifted(x, dim, 1) - shifted(x, dim, -1)) * 0.5;
    let across = slope(&smooth(&grey, 2), 3);
    let down = slope(&smooth(&grey, 3), 2);
    (across.square() + down.square()).sqrt()
}

/// A box of chance on each picture, from a quarter to three quarters of its height and width: 1 inside. `[batch, 1, height, width]`
fn boxes(pictures: &Tensor<4>, generator: &mut Generator) -> Tensor<4> {
    let [batch, _, height, width] = pictures.dims();
    let draws = generator.rand(4 * batch);
    let stretch = |side: usize, size: f32, place: f32| {
        let length = ((side as f32 * (0.25 + 0.5 * size)).round() as usize).clamp(1, side);
        let start = ((side - length + 1) as f32 * place) as usize;
        start..start + length
    };
    let mut mask = vec![0.0; batch * height * width];
    for (draws, mask) in draws.chunks_exact(4).zip(mask.chunks_exact_mut(height * width)) {
        let (rows, columns) = (
            stretch(height, draws[0], draws[1]),
            stretch(width, draws[2], draws[3]),
        );
        for (i, value) in mask.iter_mut().enumerate() {
            if rows.contains(&(i / width)) && columns.contains(&(i % width)) {
                *value = 1.0;
            }
        }
    }
    Tensor::from_data(
        TensorData::new(mask, [batch, 1, height, width]),
        &pictures.device(),
    )
}

impl fmt::Display for ImageCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grey => write!(f, "grey"),
            Self::Blur(sigma) => write!(f, "blur:{sigma}"),
            Self::Downscale(factor) => write!(f, "downscale:{factor}"),
            Self::Edges => write!(f, "edges"),
            Self::Mask => write!(f, "mask"),
            Self::Column(name) => write!(f, "{name}"),
        }
    }
}

impl FromStr for ImageCondition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, number) = text
            .split_once(':')
            .map_or((text, None), |(name, n)| (name, Some(n)));
        let wrong = || {
            Error::Config(format!(
                "`{text}` is not a conditioning picture; there are grey, blur:SIGMA such as blur:2, downscale:FACTOR such as \
                 downscale:4, edges and mask, or the name of a column of pictures"
            ))
        };
        match (name, number) {
            ("grey" | "gray", None) => Ok(Self::Grey),
            ("edges", None) => Ok(Self::Edges),
            ("mask", None) => Ok(Self::Mask),
            ("blur", Some(sigma)) => {
                let sigma = sigma.parse().ok().filter(|s: &f64| s.is_finite() && *s > 0.0);
                sigma.map(Self::Blur).ok_or_else(wrong)
            }
            ("downscale", Some(factor)) => {
                let factor = factor.parse().ok().filter(|&factor| factor >= 2);
                factor.map(Self::Downscale).ok_or_else(wrong)
            }
            (name, None) if is_column(name) => Ok(Self::Column(name.into())),
            _ => Err(wrong()),
        }
    }
}

/// Whether a word may be a column's name, and no other condition's without its number.
fn is_column(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
    !matches!(name, "" | "blur" | "downscale") && name.chars().all(fits)
}

impl TryFrom<String> for ImageCondition {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ImageCondition> for String {
    fn from(condition: ImageCondition) -> Self {
        condition.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::default_device;

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    fn picture(values: &[f32], shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &default_device())
    }

    #[test]
    fn words_are_read_and_written() {
        for text in ["grey", "blur:1.5", "downscale:4", "edges", "mask"] {
            assert_eq!(text.parse::<ImageCondition>().unwrap().to_string(), text);
        }
        for text in ["blur", "blur:0", "blur:x", "downscale:1", "sepia:2", "mask:3"] {
            let message = text.parse::<ImageCondition>().unwrap_err().to_string();
            assert!(message.contains("downscale:FACTOR"), "{message}");
        }
    }

    #[test]
    fn each_is_what_it_says() {
        let generator = &mut Generator::new(0);
        let colour = picture(&[1.0, 0.5, -1.0], [1, 3, 1, 1]);
        let luma = 0.299 + 0.587 * 0.5 - 0.114;
        assert!((values(ImageCondition::Grey.make(colour, generator))[0] - luma).abs() < 1e-6);

        let steps = picture(&[0.0, 1.0, 2.0, 3.0], [1, 1, 2, 2]);
        let small = values(ImageCondition::Downscale(2).make(steps.clone(), generator));
        assert_eq!(small, [1.5; 4]);
        let blurred = values(ImageCondition::Blur(100.0).make(steps.clone(), generator));
        assert!(
            blurred.iter().all(|value| (value - 1.5).abs() < 1e-3),
            "{blurred:?}"
        );
        let flat = picture(&[0.7; 16], [1, 1, 4, 4]);
        assert!(
            values(ImageCondition::Edges.make(flat.clone(), generator))
                .iter()
                .all(|e| e.abs() < 1e-6)
        );
        let ramp: Vec<f32> = (0..16).map(|i| (i % 4) as f32).collect();
        assert_eq!(
            values(ImageCondition::Edges.make(picture(&ramp, [1, 1, 4, 4]), generator))[1],
            1.0
        );

        let shown = ImageCondition::Mask.make(flat, generator);
        assert_eq!(shown.dims(), [1, 2, 4, 4]);
        let shown = values(shown);
        let covered = shown[16..].iter().filter(|m| **m == 1.0).count();
        assert!((1..=9).contains(&covered), "{covered}");
        assert!((0..16).all(|i| (shown[i] == 0.0) == (shown[16 + i] == 1.0)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(ImageCondition::Grey.validate(1, [8, 8]).is_err());
        assert!(ImageCondition::Downscale(3).validate(3, [8, 8]).is_err());
        ImageCondition::Downscale(4).validate(3, [8, 8]).unwrap();
    }
}
