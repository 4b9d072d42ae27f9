//! Nearest-neighbour resampling.

use crate::parallel::{self, GRAIN, Shared};
use std::ops::Range;

/// The sizes of a nearest-neighbour resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpsampleShape {
    /// Number of pictures.
    pub batch: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Number of channels.
    pub channels: usize,
    /// Height of the output.
    pub out_height: usize,
    /// Width of the output.
    pub out_width: usize,
}

impl UpsampleShape {
    /// To twice the height and width.
    pub const fn twice(batch: usize, height: usize, width: usize, channels: usize) -> Self {
        Self {
            batch,
            height,
            width,
            channels,
            out_height: 2 * height,
            out_width: 2 * width,
        }
    }

    fn check(&self, x: usize, y: usize) {
        let Self {
            batch,
            height,
            width,
            channels,
            out_height,
            out_width,
        } = *self;
        assert_eq!(
            x,
            batch * height * width * channels,
            "the input does not fit {self:?}"
        );
        assert_eq!(
            y,
            batch * out_height * out_width * channels,
            "the output does not fit {self:?}"
        );
        assert!(x > 0 || y == 0, "there is no input pixel to show: {self:?}");
    }
}

/// The input coordinate that an output coordinate shows, computed in `f32` as
/// `torch.nn.functional.interpolate(size=…, mode="nearest")` does.
fn source(out: usize, size: usize, out_size: usize) -> usize {
    let scale = size as f32 / out_size as f32;
    ((out as f32 * scale) as usize).min(size - 1)
}

/// For each input coordinate the output coordinates that show it, which are neighbours.
fn shown(size: usize, out_size: usize) -> Vec<Range<usize>> {
    let mut next = 0;
    (0..size)
        .map(|i| {
            let first = next;
            while next < out_size && source(next, size, out_size) == i {
                next += 1;
            }
            first..next
        })
        .collect()
}

/// Calls `f(picture, row)` for each of `rows` rows of each picture, on several threads if there are many values.
fn for_each_row(batch: usize, rows: usize, values: usize, f: impl Fn(usize, usize) + Send + Sync) {
    let total = batch * rows;
    let block = GRAIN.div_ceil(values.max(1)).max(1);
    parallel::for_each(total.div_ceil(block), true, |i| {
        (i * block..total.min((i + 1) * block)).for_each(|row| f(row / rows, row % rows));
    });
}

/// Resamples to the nearest input pixel, as `interpolate(size=…, mode="nearest")` does.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`
/// - `y`: `[batch, out_height, out_width, channels]`
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn upsample_nearest_forward(shape: &UpsampleShape, x: &[f32], y: &mut [f32]) {
    shape.check(x.len(), y.len());
    if y.is_empty() {
        return;
    }
    let c = shape.channels;
    let columns: Vec<usize> = (0..shape.out_width)
        .map(|ox| source(ox, shape.width, shape.out_width))
        .collect();
    let row = shape.out_width * c;
    let y = Shared::new(y);
    for_each_row(shape.batch, shape.out_height, row, |n, oy| {
        // SAFETY: each output row is written by one task.
        let y = unsafe { y.slice((n * shape.out_height + oy) * row, row) };
        let iy = source(oy, shape.height, shape.out_height);
        let x = &x[(n * shape.height + iy) * shape.width * c..][..shape.width * c];
        for (y, &ix) in y.chunks_exact_mut(c).zip(&columns) {
            y.copy_from_slice(&x[ix * c..][..c]);
        }
    });
}

/// The gradient of [`upsample_nearest_forward`]: each input pixel sums the output pixels that show it.
///
/// # Shapes
/// - `gy`: `[batch, out_height, out_width, channels]`
/// - `gx`: `[batch, height, width, channels]`, overwritten
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn upsample_nearest_backward(shape: &UpsampleShape, gy: &[f32], gx: &mut [f32]) {
    shape.check(gx.len(), gy.len());
    if gx.is_empty() {
        return;
    }
    let c = shape.channels;
    let (rows, columns) = (
        shown(shape.height, shape.out_height),
        shown(shape.width, shape.out_width),
    );
    let row = shape.width * c;
    let gx = Shared::new(gx);
    for_each_row(shape.batch, shape.height, row, |n, iy| {
        // SAFETY: each input row is written by one task.
        let gx = unsafe { gx.slice((n * shape.height + iy) * row, row) };
        for (gx, columns) in gx.chunks_exact_mut(c).zip(&columns) {
            gx.fill(0.0);
            for oy in rows[iy].clone() {
                for ox in columns.clone() {
                    let gy = &gy[((n * shape.out_height + oy) * shape.out_width + ox) * c..][..c];
                    gx.iter_mut().zip(gy).for_each(|(x, y)| *x += y);
                }
            }
        }
    });
}
