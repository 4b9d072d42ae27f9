//! 3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3): 36 products where the plain sum has 144.
//!
//! Inputs fall into tiles of 6x6, four pixels apart, each for 4x4 outputs. Transformed (see [`transform`]), a tile's element
//! (i, j) meets only the kernels' elements (i, j), so that a layer is 36 matrix products, one for each plane: tiles by
//! in-channels times in-channels by out-channels.
//!
//! Which element is summed in which order follows from the layer alone: a plane's sums are single chains over the channels, and
//! only blocks, which change no chain, depend on the batch and on the threads. The weight gradient sums over the batch's
//! tiles in their order, cut into slices by the shape.
//!
//! The price is accuracy: the largest error against exact sums is about four times the plain algorithm's (1e-5 of the
//! largest value instead of 2e-6; docs/performance.md has the numbers).

mod forward;
mod kernels;
mod planes;
mod product;
mod tiling;
mod transform;
mod weight_gradient;

use super::{Conv2dShape, Residual};
use crate::Stored;
use crate::parallel::Shared;
use forward::Layer;
use kernels::Kernels;
use tiling::Tiling;
use weight_gradient::Gradient;

/// In-channels and out-channels below which transforming costs more than it saves.
const LEAST_CHANNELS: usize = 16;

/// Whether a layer is computed here. It depends on the layer alone.
///
/// Of a tile's 16 outputs ten must be wanted on average: at 3x3, where nine are, the plain sum has 49 products that are not
/// with the padding, hardly more than the 36.
pub(super) fn suits(shape: &Conv2dShape) -> bool {
    shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.padding.as_flattened().iter().all(|&p| p <= 2)
        && shape.in_channels >= LEAST_CHANNELS
        && shape.out_channels >= LEAST_CHANNELS
        && {
            let (height, width) = (shape.out_height(), shape.out_width());
            height.div_ceil(4) * width.div_ceil(4) * 10 <= height * width
        }
}

/// As [`super::conv2d_forward`], lengths checked.
pub(super) fn forward(
    shape: &Conv2dShape,
    x: &[f32],
    weight: Stored,
    bias: Option<&[f32]>,
    residual: Residual,
    y: &mut [f32],
) {
    let layer = Layer {
        tiling: tiling(shape),
        source: x,
        kernels: kernels(shape, weight, false),
        bias,
        residual,
    };
    layer.run(Shared::new(y));
}

/// As [`super::conv2d_input_gradient`], lengths checked.
pub(super) fn input_gradient(shape: &Conv2dShape, gy: &[f32], weight: Stored, gx: &mut [f32]) {
    let layer = Layer {
        tiling: Tiling {
            batch: shape.batch,
            source: [shape.out_height(), shape.out_width()],
            destination: [shape.height, shape.width],
            // An input is met by outputs up to two rows above it, less what the padding shifts.
            before: shape.padding.map(|[before, _]| 2 - before),
        },
        source: gy,
        kernels: kernels(shape, weight, true),
        bias: None,
        residual: Residual::None,
    };
    layer.run(Shared::new(gx));
}

/// As [`super::conv2d_weight_gradient`], lengths checked. The bias's gradient falls off: one of the planes holds its sums.
pub(super) fn weight_gradient(
    shape: &Conv2dShape,
    x: &[f32],
    gy: &[f32],
    gw: &mut [f32],
    gb: Option<&mut [f32]>,
) {
    let gradient = Gradient {
        tiling: tiling(shape),
        x,
        gy,
        in_channels: shape.in_channels,
        out_channels: shape.out_channels,
    };
    gradient.run(gw, gb);
}

fn tiling(shape: &Conv2dShape) -> Tiling {
    Tiling {
        batch: shape.batch,
        source: [shape.height, shape.width],
        destination: [shape.out_height(), shape.out_width()],
        before: shape.padding.map(|[before, _]| before),
    }
}

fn kernels<'a>(shape: &Conv2dShape, values: Stored<'a>, turned: bool) -> Kernels<'a> {
    Kernels {
        values,
        in_channels: shape.in_channels,
        out_channels: shape.out_channels,
        turned,
    }
}
