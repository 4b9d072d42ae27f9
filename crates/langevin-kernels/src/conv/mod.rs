//! Two-dimensional convolution, its two gradients, and with a 1x1 kernel linear layers.

mod chunk;
mod gather;
mod half;
mod narrow;
mod panels;
mod product;
mod shape;
mod tasks;
mod weight_gradient;
mod weight_task;
mod winograd;

pub use shape::Conv2dShape;

use crate::columns::column_sums;
use crate::parallel::Shared;
use crate::{Bf16Unit, Stored};
use gather::Axis;
use product::Product;
use weight_gradient::weight_gradient;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The fastest that suits the layer: 3x3 kernels with stride 1 by Winograd's F(4x4, 3x3), whose errors are at most 1e-5 of the
    /// largest value forward and 3e-5 for gradients.
    #[default]
    Fastest,
    /// The plain sum, whose errors are a few units of the last place.
    Exact,
    /// Where the processor has instructions for it and the layer gains by them: products of values rounded to bf16, sums in float32, forward and
    /// for the input's gradient. What is computed otherwise, weights' gradients among it, is as [`Algorithm::Fastest`].
    Bf16,
}

impl Algorithm {
    fn is_winograd(self, shape: &Conv2dShape) -> bool {
        self != Self::Exact && winograd::suits(shape)
    }
}

/// What a convolution adds to its result.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// Nothing.
    None,
    /// Values of the result's shape.
    Of(&'a [f32]),
    /// What lies where the result is written.
    InPlace,
}

impl Residual<'_> {
    /// Where the value lies that is added to element `i` of the destination.
    #[inline(always)]
    fn at(self, destination: Shared, i: usize) -> Option<*const f32> {
        match self {
            Self::None => None,
            Self::Of(values) => Some(values.as_ptr().wrapping_add(i)),
            Self::InPlace => Some(destination.at(i).cast_const()),
        }
    }
}

/// Convolves: `y[n, oy, ox, k] = Σ x[n, oy·sy + ky − top, ox·sx + kx − left, c] · weight[ky, kx, c, k] + bias[k] + residual[n, oy, ox, k]`.
///
/// # Shapes
/// - `x`: `[batch, height, width, in_channels]`
/// - `weight`: `[kernel[0], kernel[1], in_channels, out_channels]`, of any type: the result has the bits that the same weights in float32 give
/// - `bias`: `[out_channels]`
/// - `residual`, `y`: `[batch, out_height, out_width, out_channels]`
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn conv2d_forward<'a>(
    shape: &Conv2dShape,
    algorithm: Algorithm,
    x: &[f32],
    weight: impl Into<Stored<'a>>,
    bias: Option<&[f32]>,
    residual: Residual,
    y: &mut [f32],
) {
    let weight = weight.into();
    shape.check(x.len(), weight.len(), y.len());
    assert!(
        bias.is_none_or(|b| b.len() == shape.out_channels),
        "bias must have out_channels values"
    );
    if let Residual::Of(values) = residual {
        assert_eq!(values.len(), y.len(), "residual must have the output's shape");
    }
    if algorithm == Algorithm::Bf16
        && let Some(unit) = Bf16Unit::current()
        && half::suits(unit, shape)
    {
        return half::forward(unit, shape, x, weight, bias, residual, y);
    }
    if algorithm.is_winograd(shape) {
        return winograd::forward(shape, x, weight, bias, residual, y);
    }
    let product = Product {
        batch: shape.batch,
        source_size: [shape.height, shape.width],
        destination_size: [shape.out_height(), shape.out_width()],
        source: x,
        weight,
        kernel_width: shape.kernel[1],
        depth: shape.in_channels,
        width: shape.out_channels,
        transposed: false,
        bias,
        residual,
    };
    product.run(&Axis::forward(shape, 0), &Axis::forward(shape, 1), Shared::new(y));
}

/// The gradient of [`conv2d_forward`] with respect to `x`.
///
/// # Shapes
/// - `gy`: `[batch, out_height, out_width, out_channels]`
/// - `weight`: `[kernel[0], kernel[1], in_channels, out_channels]`
/// - `gx`: `[batch, height, width, in_channels]`, overwritten
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn conv2d_input_gradient<'a>(
    shape: &Conv2dShape,
    algorithm: Algorithm,
    gy: &[f32],
    weight: impl Into<Stored<'a>>,
    gx: &mut [f32],
) {
    let weight = weight.into();
    shape.check(gx.len(), weight.len(), gy.len());
    if algorithm == Algorithm::Bf16
        && let Some(unit) = Bf16Unit::current()
        && let Some(turned) = half::turned(shape).filter(|turned| half::suits(unit, turned))
    {
        return half::input_gradient(unit, &turned, gy, weight, gx);
    }
    if algorithm.is_winograd(shape) {
        return winograd::input_gradient(shape, gy, weight, gx);
    }
    let product = Product {
        batch: shape.batch,
        source_size: [shape.out_height(), shape.out_width()],
        destination_size: [shape.height, shape.width],
        source: gy,
        weight,
        kernel_width: shape.kernel[1],
        depth: shape.out_channels,
        width: shape.in_channels,
        transposed: true,
        bias: None,
        residual: Residual::None,
    };
    let (rows, columns) = (Axis::gradient(shape, 0), Axis::gradient(shape, 1));
    let gx = Shared::new(gx);
    for y in &rows {
        for x in &columns {
            product.run(y, x, gx);
        }
    }
}

/// The gradients of [`conv2d_forward`] with respect to `weight` and, where wanted, `bias`.
///
/// # Shapes
/// - `x`: `[batch, height, width, in_channels]`
/// - `gy`: `[batch, out_height, out_width, out_channels]`
/// - `gw`: `[kernel[0], kernel[1], in_channels, out_channels]`, overwritten
/// - `gb`: `[out_channels]`, overwritten
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn conv2d_weight_gradient(
    shape: &Conv2dShape,
    algorithm: Algorithm,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
    gb: Option<&mut [f32]>,
) {
    shape.check(x.len(), gw.len(), gy.len());
    assert!(
        gb.as_ref().is_none_or(|b| b.len() == shape.out_channels),
        "gb must have out_channels values"
    );
    if algorithm.is_winograd(shape) {
        return winograd::weight_gradient(shape, x, gy, gw, gb);
    }
    weight_gradient(shape, x, gy, gw);
    if let Some(gb) = gb {
        column_sums(gy, gb);
    }
}
