//! Resizing, to the bit as Pillow's `Image.resize(size, BILINEAR)`: torchvision's `Resize` of a Pillow picture.
//!
//! Pillow weighs in 22-bit fixed point and rounds to 8 bits between its two passes. Crates that follow it with
//! 16-bit weights, for speed, are off by one in up to a quarter of a textured picture's pixels, so this is Pillow's
//! arithmetic (its Resample.c) itself. Decoding a picture takes longer than this.

use super::{Channels, Picture};

/// Pillow's fixed-point fraction: 32 bits less 8 for a pixel and 2 for sums that overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// What one output pixel sums: input pixels from `first` on, weighed by `weights`.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// How neighbouring pixels are weighed by their distance: Pillow's filters of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle: `BILINEAR`.
    Triangle,
    /// Keys' cubic with a = -0.5: `BICUBIC`.
    Cubic,
    /// A sinc within a sinc of three times its width: `LANCZOS`.
    Lanczos,
}

impl Filter {
    /// How far it reaches, in pixels of the smaller picture.
    fn support(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::Cubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Triangle => (1.0 - distance).max(0.0),
            Self::Cubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Self::Cubic if distance < 2.0 => ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Cubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * std::f64::consts::PI;
    angle.sin() / angle
}

/// Resizes by a triangle filter, see [`resize_by`].
pub(super) fn resize(picture: Picture, height: usize, width: usize) -> Picture {
    resize_by(Filter::Triangle, picture, height, width)
}

/// Resizes by a filter that widens when shrinking (antialiasing): across and then down, or the other way round where
/// [`height_first`] says so.
pub(crate) fn resize_by(filter: Filter, picture: Picture, height: usize, width: usize) -> Picture {
    if height_first(&picture, height, width) {
        resize_width(filter, resize_height(filter, picture, height), width)
    } else {
        resize_height(filter, resize_width(filter, picture, width), height)
    }
}

/// Which pass comes first shows in the last bit. Pillow 13 begins with the height where it shrinks by more than
/// twice as many pixels as the width does: found by resizing 1,500 random pictures to random sizes in both orders.
fn height_first(picture: &Picture, height: usize, width: usize) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    let (lost_height, lost_width) = (lost(picture.height(), height), lost(picture.width(), width));
    lost_height > 0 && lost_height > 2 * lost_width
}

/// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`.
fn windows(filter: Filter, input: usize, output: usize) -> Vec<Window> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        let weight = |x: usize| filter.weight((x as f64 - center + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        // Half away from zero, since some filters go below it.
        let fixed = |w: &f64| {
            let scaled = w / sum * f64::from(1u32 << PRECISION_BITS);
            (scaled + 0.5_f64.copysign(scaled)) as i32
        };
        Window {
            first,
            weights: weights.iter().map(fixed).collect(),
        }
    };
    (0..output).map(window).collect()
}

/// A fixed-point sum that started at a half, as a byte.
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn resize_width(filter: Filter, picture: Picture, width: usize) -> Picture {
    if picture.width() == width {
        return picture;
    }
    let windows = windows(filter, picture.width(), width);
    let mut pixels = Vec::with_capacity(picture.height() * width * picture.channels().count());
    for y in 0..picture.height() {
        match picture.channels() {
            Channels::Grey => resize_row::<1>(picture.row(y), &windows, &mut pixels),
            Channels::Rgb => resize_row::<3>(picture.row(y), &windows, &mut pixels),
        }
    }
    Picture::from_parts(picture.height(), width, picture.channels(), pixels)
}

fn resize_row<const C: usize>(row: &[u8], windows: &[Window], out: &mut Vec<u8>) {
    for window in windows {
        let mut sums = [HALF; C];
        for (pixel, &weight) in row[window.first * C..].chunks_exact(C).zip(&window.weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.map(to_byte));
    }
}

/// Row by row: each output row is a weighted sum of whole input rows, which vectorises.
fn resize_height(filter: Filter, picture: Picture, height: usize) -> Picture {
    if picture.height() == height {
        return picture;
    }
    let stride = picture.width() * picture.channels().count();
    let mut pixels = Vec::with_capacity(height * stride);
    let mut sums = vec![0i32; stride];
    for window in windows(filter, picture.height(), height) {
        sums.fill(HALF);
        for (y, &weight) in window.weights.iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(picture.row(window.first + y)) {
                *sum += i32::from(value) * weight;
            }
        }
        pixels.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    Picture::from_parts(height, picture.width(), picture.channels(), pixels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shrinking_and_growing_equal_pillow() {
        // Image.frombytes("L", (5, 2), bytes([0, 50, 100, 255, 7, 9, 80, 200, 3, 251])).resize(size, 2).tobytes()
        let picture =
            Picture::new(2, 5, Channels::Grey, vec![0, 50, 100, 255, 7, 9, 80, 200, 3, 251]).unwrap();
        assert_eq!(resize(picture.clone(), 1, 2).pixels(), PILLOW_2X1);
        assert_eq!(resize(picture, 3, 7).pixels(), PILLOW_7X3);
    }

    #[test]
    fn the_order_of_the_passes_is_pillows() {
        // As above, with Image.frombytes("L", (3, 4), ...) to 3 more wide and 1 less high, or 2 narrower and 1 higher.
        let picture = Picture::new(4, 3, Channels::Grey, TALL.to_vec()).unwrap();
        assert_eq!(resize(picture.clone(), 3, 6).pixels(), PILLOW_6X3);
        assert_eq!(resize(picture, 5, 1).pixels(), PILLOW_1X5);
    }

    const TALL: [u8; 12] = [168, 229, 184, 171, 238, 171, 20, 206, 245, 153, 204, 5];
    const PILLOW_6X3: [u8; 18] = [
        169, 185, 216, 219, 193, 180, 96, 128, 191, 219, 212, 208, 113, 136, 182, 173, 109, 77,
    ];
    const PILLOW_1X5: [u8; 5] = [199, 200, 182, 155, 133];
    const PILLOW_2X1: [u8; 2] = [68, 131];
    const PILLOW_7X3: [u8; 21] = [
        0, 29, 64, 100, 211, 149, 7, 5, 40, 89, 150, 135, 129, 129, 9, 50, 114, 200, 59, 109, 251,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_flat_picture_stays_flat(
            value in any::<u8>(), h in 1usize..40, w in 1usize..40, to_h in 1usize..60, to_w in 1usize..60,
        ) {
            let picture = Picture::filled(h, w, Channels::Rgb, value);
            prop_assert!(resize(picture, to_h, to_w).pixels().iter().all(|&v| v == value));
        }
    }
}
