//! Latents as pictures without a decoder: a linear map of the channels, as stable-diffusion.cpp's preview `proj` has it.

use burn::tensor::{Tensor, TensorData};

use crate::ops;

/// Four channels to red, green and blue, then what is added: `[5][3]`.
pub(super) type Matrix = [[f32; 3]; 5];

/// For the latents of Stable Diffusion 1 and 2.
const SD: Matrix = [
    [0.337366, 0.216344, 0.257386],
    [0.165636, 0.386828, 0.046994],
    [-0.267803, 0.237036, 0.223517],
    [-0.178022, -0.200862, -0.678514],
    [-0.017478, -0.055834, -0.105825],
];
/// For the latents of Stable Diffusion XL.
const XL: Matrix = [
    [0.258303, 0.277640, 0.329699],
    [-0.299701, 0.105446, 0.014194],
    [0.050522, 0.186163, -0.143257],
    [-0.211938, -0.149892, -0.080036],
    [0.144381, -0.033313, 0.007061],
];

/// The map for latents of so many channels, scaled so; `None` where none is known.
pub(super) fn matrix(channels: usize, scaling_factor: f64) -> Option<&'static Matrix> {
    match channels {
        4 if scaling_factor < 0.16 => Some(&XL),
        4 => Some(&SD),
        _ => None,
    }
}

/// `[batch, 4, height, width]` → `[batch, 3, factor · height, factor · width]` in about -1..1
pub(super) fn project(samples: Tensor<4>, matrix: &Matrix, factor: usize) -> Tensor<4> {
    let device = samples.device();
    let [batch, channels, height, width] = samples.dims();
    let (weights, bias) = (&matrix[..4], &matrix[4]);
    let weights = TensorData::new(weights.concat(), [1, 4, 3]);
    let bias = TensorData::new(bias.to_vec(), [1, 1, 3]);
    let pixels = samples
        .permute([0, 2, 3, 1])
        .reshape([batch, height * width, channels])
        .matmul(Tensor::<3>::from_data(weights, &device).repeat_dim(0, batch))
        + Tensor::<3>::from_data(bias, &device);
    let small = pixels.reshape([batch, height, width, 3]);
    ops::upsample_nearest(small, [factor * height, factor * width]).permute([0, 3, 1, 2])
}
