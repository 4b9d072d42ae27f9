//! SiLU, GEGLU's gate, channels side by side, a vector for every picture, nearest neighbours.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{IndexingUpdateOp, Shape, TensorData};

use super::{norm::silu_slope, plain::Plain};

/// `x · σ(x)`
pub(crate) fn silu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x = Plain::<B>(x);
    (x.clone() * x.sigmoid()).0
}

/// The gradient at `x`.
pub(crate) fn silu_gradient<B: Backend>(x: FloatTensor<B>, gy: FloatTensor<B>) -> FloatTensor<B> {
    (Plain::<B>(gy) * silu_slope(Plain::<B>(x))).0
}

/// The halves of the last of two dimensions.
fn halves<B: Backend>(x: FloatTensor<B>) -> [Plain<B>; 2] {
    let x = Plain::<B>(x);
    let [_, both] = x.dims();
    [x.clone().part(1, 0, both / 2), x.part(1, both / 2, both)]
}

/// Φ, the normal distribution's.
fn below<B: Backend>(x: Plain<B>) -> Plain<B> {
    x.times(std::f64::consts::FRAC_1_SQRT_2)
        .erf()
        .plus(1.0)
        .times(0.5)
}

/// `a · b · Φ(b)` of the halves `a` and `b`.
pub(crate) fn geglu<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [a, b] = halves::<B>(x);
    (a * (b.clone() * below(b))).0
}

/// The gradient at `x`.
pub(crate) fn geglu_gradient<B: Backend>(x: FloatTensor<B>, gy: FloatTensor<B>) -> FloatTensor<B> {
    let ([a, b], gy) = (halves::<B>(x), Plain::<B>(gy));
    let below = below(b.clone());
    let density = b
        .clone()
        .square()
        .times(-0.5)
        .exp()
        .times(0.398_942_280_401_432_7);
    let ga = gy.clone() * (b.clone() * below.clone());
    let gb = gy * a * (below + b * density);
    Plain::cat([ga, gb], 1).0
}

/// The channels of `a`, then those of `b`.
pub(crate) fn concat_channels<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    Plain::<B>::cat([Plain(a), Plain(b)], 3).0
}

/// The first channels, and the others.
pub(crate) fn split_channels<B: Backend>(
    gy: FloatTensor<B>,
    first: usize,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let gy = Plain::<B>(gy);
    let [.., channels] = gy.dims::<4>();
    (gy.clone().part(3, 0, first).0, gy.part(3, first, channels).0)
}

/// `x + vector`, the vector of a picture at each of its positions.
pub(crate) fn add_per_picture<B: Backend>(x: FloatTensor<B>, vector: FloatTensor<B>) -> FloatTensor<B> {
    let vector = Plain::<B>(vector);
    let [batch, channels] = vector.dims();
    (Plain(x) + vector.reshape([batch, 1, 1, channels])).0
}

/// The sum over the positions.
pub(crate) fn sum_positions<B: Backend>(gy: &FloatTensor<B>) -> FloatTensor<B> {
    let gy = Plain::<B>(gy.clone());
    let [batch, _, _, channels] = gy.dims();
    gy.sum(&[1, 2]).reshape([batch, channels]).0
}

/// Which of `size` positions each of `out_size` shows, computed in `f32` as PyTorch does.
fn shown(size: usize, out_size: usize) -> TensorData {
    let scale = size as f32 / out_size as f32;
    let source = |i: usize| ((i as f32 * scale) as usize).min(size - 1) as i32;
    TensorData::new((0..out_size).map(source).collect::<Vec<i32>>(), [out_size])
}

/// Every position takes the value of the nearest one of `x`.
pub(crate) fn upsample_nearest<B: Backend>(x: FloatTensor<B>, size: [usize; 2]) -> FloatTensor<B> {
    let device = x.device();
    let [_, height, width, _] = Plain::<B>(x.clone()).dims();
    let rows = B::float_select(x, 1, B::int_from_data(shown(height, size[0]), &device));
    B::float_select(rows, 2, B::int_from_data(shown(width, size[1]), &device))
}

/// The sum over the positions that took a value.
pub(crate) fn upsample_nearest_gradient<B: Backend>(gy: FloatTensor<B>, size: [usize; 2]) -> FloatTensor<B> {
    let gathered = |gy: FloatTensor<B>, axis: usize, to: usize| {
        let device = gy.device();
        let mut shape = Plain::<B>(gy.clone()).dims::<4>();
        let indices = B::int_from_data(shown(to, shape[axis]), &device);
        shape[axis] = to;
        let zeros = B::float_zeros(Shape::from(shape), &device, gy.dtype().into());
        B::float_select_assign(zeros, axis, indices, gy, IndexingUpdateOp::Add)
    };
    gathered(gathered(gy, 2, size[1]), 1, size[0])
}
