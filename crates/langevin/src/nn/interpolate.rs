//! Pictures brought to another size by weights for rows and columns.

use burn::tensor::{Tensor, TensorData};

/// How the values between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The pixel that a place lies in: `nearest`.
    Nearest,
    /// Along straight lines, with pixels as squares: `align_corners=False`.
    Bilinear,
    /// Along straight lines, with the corners' centres at the corners' centres: `align_corners=True`.
    BilinearCorners,
    /// By Keys' cubic with a = -0.75, with pixels as squares.
    Bicubic,
}

/// Mirrors `torch.nn.functional.interpolate` without antialiasing.
///
/// # Shapes
/// `[batch, height, width, channels]` → the same at `size`, height and width
pub fn interpolate(x: Tensor<4>, [height, width]: [usize; 2], by: Interpolation) -> Tensor<4> {
    let [batch, from_height, from_width, channels] = x.dims();
    let device = x.device();
    let matrix = |input: usize, output: usize| {
        let data = TensorData::new(by.weights(input, output), [1, output, input]);
        Tensor::<3>::from_data(data, &device)
    };
    let rows = x.reshape([batch * from_height, from_width, channels]);
    let across = matrix(from_width, width).matmul(rows);
    let columns = across.reshape([batch, from_height, width * channels]);
    let down = matrix(from_height, height).matmul(columns);
    down.reshape([batch, height, width, channels])
}

impl Interpolation {
    /// What each of `output` places takes of each of `input`, `[output, input]`.
    fn weights(self, input: usize, output: usize) -> Vec<f32> {
        let mut rows = vec![0.0; input * output];
        for (at, row) in rows.chunks_exact_mut(input).enumerate() {
            let center = self.center(at, input, output);
            let first = center.floor();
            for &tap in self.taps() {
                let place = first + f64::from(tap);
                let within = place.clamp(0.0, (input - 1) as f64) as usize;
                row[within] += self.weight(center - place) as f32;
            }
        }
        rows
    }

    /// Where a place lies among those that there were.
    fn center(self, at: usize, input: usize, output: usize) -> f64 {
        let squares = (at as f64 + 0.5) * input as f64 / output as f64 - 0.5;
        match self {
            Self::Nearest => (at as f64 * input as f64 / output as f64).floor(),
            Self::Bicubic => squares,
            Self::Bilinear => squares.max(0.0),
            Self::BilinearCorners if output > 1 => at as f64 * (input - 1) as f64 / (output - 1) as f64,
            Self::BilinearCorners => 0.0,
        }
    }

    /// Which neighbours count.
    fn taps(self) -> &'static [i32] {
        match self {
            Self::Bicubic => &[-1, 0, 1, 2],
            Self::Bilinear | Self::BilinearCorners => &[0, 1],
            Self::Nearest => &[0],
        }
    }

    /// How much of a neighbour at this distance is taken.
    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.75;
        let x = distance.abs();
        match self {
            Self::Nearest => 1.0,
            Self::Bilinear | Self::BilinearCorners => 1.0 - x,
            Self::Bicubic if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::default_device;

    /// What `torch.nn.functional.interpolate` makes of 1, 2, 4, 8 in a row of seven.
    #[test]
    fn a_row_comes_out_as_in_pytorch() {
        let row = TensorData::new(vec![1.0_f32, 2.0, 4.0, 8.0], [1, 1, 4, 1]);
        let of = |by| {
            let wide = interpolate(Tensor::from_data(row.clone(), &default_device()), [1, 7], by);
            wide.into_data().try_into_vec::<f32>().unwrap()
        };
        for (by, expected) in [
            (Interpolation::Bilinear, BILINEAR),
            (
                Interpolation::BilinearCorners,
                [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0],
            ),
            (Interpolation::Bicubic, BICUBIC),
        ] {
            for (found, expected) in of(by).into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{by:?}: {found} and {expected}");
            }
        }
    }

    const BILINEAR: [f32; 7] = [1.0, 1.357143, 1.928571, 3.0, 4.285715, 6.571429, 8.0];
    const BICUBIC: [f32; 7] = [
        0.900784, 1.217747, 1.850_4, 2.718_75, 4.321249, 6.760021, 8.396866,
    ];
}
