//! Resampling with the filter [1, 3, 3, 1], as NCSN++ does it (Song et al. 2021, after StyleGAN2).
//! Mirrors diffusers' `FirDownsample2D` and `FirUpsample2D` without convolution.

use burn::tensor::Tensor;

/// Half the size: each position is the filtered neighbourhood of two.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, ⌊height / 2⌋, ⌊width / 2⌋, channels]`
pub fn fir_downsample(x: Tensor<4>) -> Tensor<4> {
    downsample_along(downsample_along(x, 1), 2)
}

/// Twice the size.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, 2 · height, 2 · width, channels]`
pub fn fir_upsample(x: Tensor<4>) -> Tensor<4> {
    upsample_along(upsample_along(x, 1), 2)
}

/// `y[i] = (x[2i - 1] + 3 x[2i] + 3 x[2i + 1] + x[2i + 2]) / 8`, with zeros outside.
fn downsample_along(x: Tensor<4>, dim: usize) -> Tensor<4> {
    let half = x.dims()[dim] / 2;
    // One zero in front and as many behind as make pairs of x[2i - 1], x[2i].
    let padded = zero_pad(x, dim, 1, 2 * (half + 1));
    let pairs = split_pairs(padded, dim);
    let [first, second] = pairs;
    let part = |t: &Tensor<4>, start: usize| t.clone().narrow(dim, start, half);
    (part(&first, 0) + part(&second, 1)) * 0.125 + (part(&second, 0) + part(&first, 1)) * 0.375
}

/// `y[2i] = (x[i - 1] + 3 x[i]) / 4` and `y[2i + 1] = (3 x[i] + x[i + 1]) / 4`, with zeros outside.
fn upsample_along(x: Tensor<4>, dim: usize) -> Tensor<4> {
    let n = x.dims()[dim];
    let padded = zero_pad(x.clone(), dim, 1, n + 2);
    let even = padded.clone().narrow(dim, 0, n) * 0.25 + x.clone() * 0.75;
    let odd = x * 0.75 + padded.narrow(dim, 2, n) * 0.25;
    let mut shape = even.dims();
    shape[dim] = 2 * n;
    Tensor::stack::<5>(vec![even, odd], dim + 1).reshape(shape)
}

/// `before` zeros in front, then zeros behind or fewer elements, to `length` in all.
fn zero_pad(x: Tensor<4>, dim: usize, before: usize, length: usize) -> Tensor<4> {
    let mut shape = x.dims();
    let device = x.device();
    let kept = shape[dim].min(length - before);
    let after = length - before - kept;
    let x = x.narrow(dim, 0, kept);
    let mut zeros = |n: usize| {
        shape[dim] = n;
        Tensor::zeros(shape, &device)
    };
    let mut parts = vec![zeros(before), x];
    if after > 0 {
        parts.push(zeros(after));
    }
    Tensor::cat(parts, dim)
}

/// The elements at even and those at odd places along `dim`, whose length is even.
fn split_pairs(x: Tensor<4>, dim: usize) -> [Tensor<4>; 2] {
    let shape = x.dims();
    let mut pairs = [0; 5];
    pairs[..dim].copy_from_slice(&shape[..dim]);
    pairs[dim] = shape[dim] / 2;
    pairs[dim + 1] = 2;
    pairs[dim + 2..].copy_from_slice(&shape[dim + 1..]);
    let x = x.reshape(pairs);
    [0, 1].map(|i| x.clone().narrow(dim + 1, i, 1).squeeze_dim::<4>(dim + 1))
}
