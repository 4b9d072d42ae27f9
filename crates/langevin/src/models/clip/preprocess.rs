//! What CLIP's picture tower is shown: a picture brought to its size and normalised, differentiably.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use serde_json::Value;

use crate::{Error, Result, files};

/// The name of the file with the numbers.
pub(super) const FILE_NAME: &str = "preprocessor_config.json";

/// OpenAI's means.
pub(super) const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// OpenAI's deviations.
pub(super) const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Resizes the shorter side, crops the centre and normalises. Mirrors `transformers.CLIPImageProcessor` and open_clip's
/// `image_transform`, but for rounding to 8 bits in between: gradients pass through.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipPreprocess {
    /// Height and width.
    pub size: usize,
    /// Taken from each channel.
    pub mean: [f32; 3],
    /// What each channel is then divided by.
    pub std: [f32; 3],
}

impl ClipPreprocess {
    /// OpenAI's numbers, for pictures of `size` by `size`.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            mean: MEAN,
            std: STD,
        }
    }

    /// The numbers of a folder's `preprocessor_config.json`, or OpenAI's where it has none.
    ///
    /// # Errors
    /// If the file is broken.
    pub fn load(folder: &Path, size: usize) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        if !path.is_file() {
            return Ok(Self::new(size));
        }
        let value: Value = files::read_json(&path)?;
        Self::new(size).with(value.get("image_mean"), value.get("image_std"), &path)
    }

    /// Other means and deviations, where a file names them.
    pub(super) fn with(self, mean: Option<&Value>, std: Option<&Value>, path: &Path) -> Result<Self> {
        let three = |value: Option<&Value>, default: [f32; 3]| match value {
            None | Some(Value::Null) => Ok(default),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| Error::file(path, "mean and std should be three numbers each")),
        };
        let std = three(std, self.std)?;
        if std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::file(path, "std should be three positive numbers"));
        }
        Ok(Self {
            mean: three(mean, self.mean)?,
            std,
            ..self
        })
    }

    /// # Shapes
    /// `[batch, 3 or 1, height, width]` in 0..1 → `[batch, 3, size, size]`; grey pictures become grey ones of three channels
    ///
    /// # Errors
    /// If there are another number of channels, or no pixels.
    pub fn forward(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        let [batch, channels, height, width] = pictures.dims();
        if !(channels == 1 || channels == 3) || height == 0 || width == 0 {
            return Err(Error::Shape(format!(
                "CLIP looks at pictures of 1 or 3 channels, these are {channels} channels of {height}x{width}"
            )));
        }
        let shorter = height.min(width);
        let scaled = |side: usize| (self.size * side / shorter).max(self.size);
        let resized = resize_bicubic(pictures, [scaled(height), scaled(width)]);
        let [.., height, width] = resized.dims();
        // Half a pixel goes to the even side, as Python rounds.
        let start = |side: usize| {
            let rest = side - self.size;
            if rest % 4 == 3 { rest / 2 + 1 } else { rest / 2 }
        };
        let cropped = resized
            .narrow(2, start(height), self.size)
            .narrow(3, start(width), self.size)
            .expand([batch, 3, self.size, self.size]);
        Ok(self.normalise(cropped))
    }

    /// `(picture - mean) / std`, channel by channel: `[batch, 3, height, width]`.
    pub fn normalise(&self, pictures: Tensor<4>) -> Tensor<4> {
        let device = pictures.device();
        let row =
            |values: [f32; 3]| Tensor::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), &device);
        (pictures - row(self.mean)) / row(self.std)
    }
}

/// Resizes by the cubic filter with a = -0.5 that widens when shrinking, as Pillow and PyTorch's antialiased interpolation do;
/// values may go a little beyond 0..1 and are held to it, as Pillow's are.
///
/// # Shapes
/// `[batch, channels, height, width]` → `[batch, channels, size[0], size[1]]`
pub fn resize_bicubic(pictures: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = pictures.dims();
    if [height, width] == size {
        return pictures;
    }
    let device = pictures.device();
    // One matrix product an axis, which knows its own gradient.
    let matrix = |input: usize, output: usize| {
        let weights = TensorData::new(resize_weights(input, output, 2.0, cubic), [1, 1, output, input]);
        Tensor::<4>::from_data(weights, &device)
    };
    let across = pictures.matmul(matrix(width, size[1]).swap_dims(2, 3));
    matrix(height, size[0]).matmul(across).clamp(0.0, 1.0)
}

/// The cubic filter with a = -0.5.
fn cubic(x: f64) -> f64 {
    let (a, x) = (-0.5, x.abs());
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// What each of `output` places takes of each of `input`, `[output, input]`: Pillow's `precompute_coeffs` with a filter that is 0
/// beyond `reach`, and wider when shrinking.
pub(crate) fn resize_weights(input: usize, output: usize, reach: f64, filter: fn(f64) -> f64) -> Vec<f32> {
    let scale = input as f64 / output as f64;
    let widening = scale.max(1.0);
    let mut rows = vec![0.0; input * output];
    for (at, row) in rows.chunks_exact_mut(input).enumerate() {
        let center = (at as f64 + 0.5) * scale;
        let first = (center - reach * widening + 0.5).max(0.0) as usize;
        let end = ((center + reach * widening + 0.5) as usize).min(input);
        let weigh = |x: usize| filter((x as f64 - center + 0.5) / widening);
        let sum: f64 = (first..end).map(weigh).sum();
        for (x, weight) in row.iter_mut().enumerate().take(end).skip(first) {
            *weight = (weigh(x) / sum) as f32;
        }
    }
    rows
}
