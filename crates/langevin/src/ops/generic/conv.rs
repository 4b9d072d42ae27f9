//! Convolution: Burn's, between its order of axes and ours; where it is a linear layer, a matrix product.

use burn::backend::{Backend, tensor::FloatTensor};
use burn::tensor::ops::ConvOptions;

use super::plain::Plain;
use crate::ops::Geometry;

/// From channels last to channels first.
const TO_FIRST: [usize; 4] = [0, 3, 1, 2];
/// From channels first to channels last.
const TO_LAST: [usize; 4] = [0, 2, 3, 1];
/// A weight from `[kernel height, kernel width, in, out]` to Burn's `[out, in, kernel height, kernel width]`.
const WEIGHT_TO_BURN: [usize; 4] = [3, 2, 0, 1];
/// And back.
const WEIGHT_FROM_BURN: [usize; 4] = [2, 3, 1, 0];

fn options(geometry: Geometry) -> ConvOptions<2> {
    let padding = geometry.padding.map(|[begin, end]| (begin, end));
    ConvOptions::new_with_padding(geometry.stride, padding, [1, 1], 1)
}

/// Whether every position is computed from itself alone.
fn is_linear<B: Backend>(weight: &Plain<B>, geometry: Geometry) -> bool {
    let [height, width, _, _] = weight.dims();
    [height, width] == [1, 1] && geometry == Geometry::uniform(1, 0)
}

/// All positions as the rows of a matrix.
fn rows<B: Backend>(x: Plain<B>) -> Plain<B> {
    let [batch, height, width, channels] = x.dims();
    x.reshape([batch * height * width, channels])
}

/// The weight of a linear layer, `[in, out]`.
fn matrix<B: Backend>(weight: Plain<B>) -> Plain<B> {
    let [_, _, inputs, outputs] = weight.dims();
    weight.reshape([inputs, outputs])
}

/// `x * weight + bias + residual`, see [`crate::ops::conv2d`].
pub(crate) fn conv2d<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    residual: Option<FloatTensor<B>>,
    geometry: Geometry,
) -> FloatTensor<B> {
    let (x, weight) = (Plain::<B>(x), Plain::<B>(weight));
    let [.., outputs] = weight.dims::<4>();
    let mut y = if is_linear(&weight, geometry) {
        let [batch, height, width, _] = x.dims();
        rows(x)
            .matmul(matrix(weight))
            .reshape([batch, height, width, outputs])
    } else {
        let (x, weight) = (x.permute(&TO_FIRST), weight.permute(&WEIGHT_TO_BURN));
        Plain(B::conv2d(x.0, weight.0, None, options(geometry))).permute(&TO_LAST)
    };
    if let Some(bias) = bias {
        y = y + Plain(bias).reshape([1, 1, 1, outputs]);
    }
    if let Some(residual) = residual {
        y = y + Plain(residual);
    }
    y.0
}

/// The gradient at `x`.
pub(crate) fn conv2d_input_gradient<B: Backend>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    gy: &FloatTensor<B>,
    geometry: Geometry,
) -> FloatTensor<B> {
    let [x, weight, gy] = [x, weight, gy].map(|tensor| Plain::<B>(tensor.clone()));
    if is_linear(&weight, geometry) {
        let shape = x.dims::<4>();
        return rows(gy).matmul(matrix(weight).transpose()).reshape(shape).0;
    }
    let gx = B::conv2d_x_backward(
        x.permute(&TO_FIRST).0,
        weight.permute(&WEIGHT_TO_BURN).0,
        gy.permute(&TO_FIRST).0,
        options(geometry),
    );
    Plain::<B>(gx).permute(&TO_LAST).0
}

/// The gradients at the weight and at the bias.
pub(crate) fn conv2d_weight_gradient<B: Backend>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    gy: &FloatTensor<B>,
    geometry: Geometry,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [x, weight, gy] = [x, weight, gy].map(|tensor| Plain::<B>(tensor.clone()));
    let shape = weight.dims::<4>();
    let bias = gy.clone().sum(&[0, 1, 2]).reshape([shape[3]]);
    if is_linear(&weight, geometry) {
        let gw = rows(x).transpose().matmul(rows(gy)).reshape(shape);
        return (gw.0, bias.0);
    }
    let gw = B::conv2d_weight_backward(
        x.permute(&TO_FIRST).0,
        weight.permute(&WEIGHT_TO_BURN).0,
        gy.permute(&TO_FIRST).0,
        options(geometry),
    );
    (Plain::<B>(gw).permute(&WEIGHT_FROM_BURN).0, bias.0)
}
