//! Resizing, to the bit as Pillow's `Image.resize`: torchvision's `Resize` of a Pillow picture, and what pipelines do to pictures; or as
//! torchvision's of a tensor of bytes.
//!
//! Pillow weighs in 22-bit fixed point and rounds to 8 bits between its two passes. Crates that follow it with
//! 16-bit weights, for speed, are off by one in up to a quarter of a textured picture's pixels, so this is Pillow's
//! arithmetic (its Resample.c) itself. Decoding a picture takes longer than this.

use super::{Channels, Picture};
use crate::{Error, Result};

/// The most memory that a resized picture may take, in bytes: one pixel high and thousands wide would take more.
const MAX_BYTES: usize = 512 << 20;

/// How pixels are weighed in resizing, by Pillow's names. All widen when shrinking (antialiasing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Cubic, with a = -0.5.
    Bicubic,
    /// A sine over three pixels to either side.
    Lanczos,
}

impl Filter {
    /// Beyond which distance, in pixels, nothing counts.
    fn reach(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => cubic(x.abs()),
            Self::Lanczos if x.abs() < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn cubic(x: f64) -> f64 {
    let a = -0.5;
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// A picture in another size.
///
/// # Errors
/// [`Error::Shape`] if a side is zero, or it would take more than 512 MiB.
pub fn resized(
    picture: Picture,
    height: usize,
    width: usize,
    filter: Filter,
    arithmetic: Arithmetic,
) -> Result<Picture> {
    let pixels = height.checked_mul(width);
    let bytes = pixels.and_then(|n| n.checked_mul(picture.channels().count()));
    if bytes.is_none_or(|n| n == 0 || n > MAX_BYTES) {
        return Err(Error::Shape(format!(
            "a picture of {}x{} pixels cannot be resized to {width}x{height}",
            picture.width(),
            picture.height()
        )));
    }
    Ok(resize(picture, height, width, How { filter, arithmetic }))
}

/// Whose arithmetic it is: with how many bits the weights are, which shows in the last bit of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Pillow's: a fraction of 22 bits.
    Pillow,
    /// That of torchvision for pictures in tensors of bytes, as transformers uses it since version 5: weights of 16 bits, across first.
    Torchvision,
}

/// How pixels are weighed, and in which arithmetic.
#[derive(Clone, Copy)]
struct How {
    filter: Filter,
    arithmetic: Arithmetic,
}

/// Pillow's fixed-point fraction: 32 bits less 8 for a pixel and 2 for sums that overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// What one output pixel sums: input pixels from `first` on, weighed by `weights`.
struct Window<W> {
    first: usize,
    weights: Vec<W>,
}

/// Those of all output pixels along an axis, their weights a fraction of so many bits.
struct Windows {
    each: Vec<Window<i32>>,
    bits: u32,
}

impl Windows {
    /// What a sum begins with, so that it is rounded.
    fn half(&self) -> i32 {
        1 << (self.bits - 1)
    }

    /// A sum as a byte.
    fn byte(&self, sum: i32) -> u8 {
        (sum >> self.bits).clamp(0, 255) as u8
    }
}

impl Arithmetic {
    /// Bits of the weights' fraction, where so much is the largest.
    fn bits(self, largest: f64) -> u32 {
        let fits = |bits: &u32| 0.5 + largest * f64::from(1u32 << (bits + 1)) < f64::from(1u32 << 15);
        match self {
            Self::Pillow => PRECISION_BITS,
            Self::Torchvision => (1..PRECISION_BITS).take_while(fits).count() as u32 + 1,
        }
    }
}

/// Resizes across and then down, or the other way round where [`height_first`] says so.
fn resize(picture: Picture, height: usize, width: usize, how: How) -> Picture {
    if how.arithmetic == Arithmetic::Pillow && height_first(&picture, height, width) {
        resize_width(resize_height(picture, height, how), width, how)
    } else {
        resize_height(resize_width(picture, width, how), height, how)
    }
}

/// Which pass comes first shows in the last bit. Pillow 13 begins with the height where it shrinks by more than
/// twice as many pixels as the width does: found by resizing 1,500 random pictures to random sizes in both orders.
fn height_first(picture: &Picture, height: usize, width: usize) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    let (lost_height, lost_width) = (lost(picture.height(), height), lost(picture.width(), width));
    lost_height > 0 && lost_height > 2 * lost_width
}

/// Pillow's `precompute_coeffs`.
fn shares(input: usize, output: usize, filter: Filter) -> Vec<Window<f64>> {
    let scale = input as f64 / output as f64;
    let widening = scale.max(1.0);
    let support = filter.reach() * widening;
    let window = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        let weight = |x: usize| filter.weight((x as f64 - center + 0.5) * (1.0 / widening));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.into_iter().map(|w| w / sum).collect();
        Window { first, weights }
    };
    (0..output).map(window).collect()
}

/// Pillow's `normalize_coeffs_8bpc`.
fn windows(input: usize, output: usize, how: How) -> Windows {
    let shares = shares(input, output, how.filter);
    let all = shares.iter().flat_map(|window| &window.weights);
    let bits = how.arithmetic.bits(all.copied().fold(0.0, f64::max));
    let fixed = |w: &f64| (w * f64::from(1u32 << bits)).round() as i32;
    let each = shares.iter().map(|window| Window {
        first: window.first,
        weights: window.weights.iter().map(fixed).collect(),
    });
    Windows {
        each: each.collect(),
        bits,
    }
}

fn resize_width(picture: Picture, width: usize, how: How) -> Picture {
    if picture.width() == width {
        return picture;
    }
    let windows = windows(picture.width(), width, how);
    let mut pixels = Vec::with_capacity(picture.height() * width * picture.channels().count());
    for y in 0..picture.height() {
        match picture.channels() {
            Channels::Grey => resize_row::<1>(picture.row(y), &windows, &mut pixels),
            Channels::Rgb => resize_row::<3>(picture.row(y), &windows, &mut pixels),
        }
    }
    Picture::from_parts(picture.height(), width, picture.channels(), pixels)
}

fn resize_row<const C: usize>(row: &[u8], windows: &Windows, out: &mut Vec<u8>) {
    for window in &windows.each {
        let mut sums = [windows.half(); C];
        for (pixel, &weight) in row[window.first * C..].chunks_exact(C).zip(&window.weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.map(|sum| windows.byte(sum)));
    }
}

/// Row by row: each output row is a weighted sum of whole input rows, which vectorises.
fn resize_height(picture: Picture, height: usize, how: How) -> Picture {
    if picture.height() == height {
        return picture;
    }
    let stride = picture.width() * picture.channels().count();
    let mut pixels = Vec::with_capacity(height * stride);
    let mut sums = vec![0i32; stride];
    let windows = windows(picture.height(), height, how);
    for window in &windows.each {
        sums.fill(windows.half());
        for (y, &weight) in window.weights.iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(picture.row(window.first + y)) {
                *sum += i32::from(value) * weight;
            }
        }
        pixels.extend(sums.iter().map(|&sum| windows.byte(sum)));
    }
    Picture::from_parts(height, picture.width(), picture.channels(), pixels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bilinear(picture: Picture, height: usize, width: usize) -> Picture {
        let (filter, arithmetic) = (Filter::Bilinear, Arithmetic::Pillow);
        resize(picture, height, width, How { filter, arithmetic })
    }

    #[test]
    fn shrinking_and_growing_equal_pillow() {
        // Image.frombytes("L", (5, 2), bytes([0, 50, 100, 255, 7, 9, 80, 200, 3, 251])).resize(size, 2).tobytes()
        let picture =
            Picture::new(2, 5, Channels::Grey, vec![0, 50, 100, 255, 7, 9, 80, 200, 3, 251]).unwrap();
        assert_eq!(bilinear(picture.clone(), 1, 2).pixels(), PILLOW_2X1);
        assert_eq!(bilinear(picture, 3, 7).pixels(), PILLOW_7X3);
    }

    #[test]
    fn the_order_of_the_passes_is_pillows() {
        // As above, with Image.frombytes("L", (3, 4), ...) to 3 more wide and 1 less high, or 2 narrower and 1 higher.
        let picture = Picture::new(4, 3, Channels::Grey, TALL.to_vec()).unwrap();
        assert_eq!(bilinear(picture.clone(), 3, 6).pixels(), PILLOW_6X3);
        assert_eq!(bilinear(picture, 5, 1).pixels(), PILLOW_1X5);
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
            for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
                let how = How { filter, arithmetic: Arithmetic::Pillow };
                let resized = resize(picture.clone(), to_h, to_w, how);
                prop_assert!(resized.pixels().iter().all(|&v| v == value));
            }
        }
    }
}
