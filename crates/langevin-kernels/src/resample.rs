//! Nearest-neighbour resampling.

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
        assert_eq!(
            x,
            self.batch * self.height * self.width * self.channels,
            "the input does not fit {self:?}"
        );
        assert_eq!(
            y,
            self.batch * self.out_height * self.out_width * self.channels,
            "the output does not fit {self:?}"
        );
    }
}

/// The input row that an output row shows, as `torch.nn.functional.interpolate(size=…, mode="nearest")` computes it in `f32`.
fn source(out: usize, size: usize, out_size: usize) -> usize {
    let scale = size as f32 / out_size as f32;
    ((out as f32 * scale) as usize).min(size - 1)
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
    let c = shape.channels;
    for (i, y) in y.chunks_exact_mut(c.max(1)).enumerate() {
        let (n, oy, ox) = (
            i / (shape.out_height * shape.out_width),
            i / shape.out_width % shape.out_height,
            i % shape.out_width,
        );
        let (sy, sx) = (
            source(oy, shape.height, shape.out_height),
            source(ox, shape.width, shape.out_width),
        );
        y.copy_from_slice(&x[((n * shape.height + sy) * shape.width + sx) * c..][..c]);
    }
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
    let c = shape.channels;
    gx.fill(0.0);
    for (i, gy) in gy.chunks_exact(c.max(1)).enumerate() {
        let (n, oy, ox) = (
            i / (shape.out_height * shape.out_width),
            i / shape.out_width % shape.out_height,
            i % shape.out_width,
        );
        let (sy, sx) = (
            source(oy, shape.height, shape.out_height),
            source(ox, shape.width, shape.out_width),
        );
        let gx = &mut gx[((n * shape.height + sy) * shape.width + sx) * c..][..c];
        gx.iter_mut().zip(gy).for_each(|(x, y)| *x += y);
    }
}
