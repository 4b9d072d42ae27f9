//! The forward pass of some groups of a picture.

use super::{Affine, Part, ROWS, sum_pixels};
use crate::parallel::Shared;
use crate::simd::{Kernel, Simd, load, silu, store, store_bf16};

pub(super) struct Forward<'a> {
    pub part: Part<'a>,
    /// `None` where it lies in `y`, which then takes its place.
    pub x: Option<&'a [f32]>,
    pub y: Shared<'a>,
    pub mean_rstd: Shared<'a>,
    pub rounding: Rounding<'a>,
}

/// What is normalised.
#[derive(Clone, Copy)]
pub(super) enum Rounding<'a> {
    /// The values as they are.
    None,
    /// The values rounded to bf16.
    Bf16,
    /// The same, which are also written here.
    Kept(Shared<'a, u16>),
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let part = &self.part;
        let (width, row, pixels) = (part.channels().len(), part.shape.channels, part.shape.pixels);
        if pixels == 0 {
            return;
        }
        let len = (pixels - 1) * row + width;
        let x = match self.x {
            Some(x) => x[part.start()..][..len].as_ptr(),
            // No slice: other tasks write the channels in between.
            None => self.y.part(part.start(), len).cast_const(),
        };
        // SAFETY: the first pixel's channels of the part, which nobody writes before they are copied.
        let pivot = unsafe { std::slice::from_raw_parts(x, width) }.to_vec();
        let mut sums = vec![0.0; width];
        sum_pixels(
            s,
            part,
            [&mut sums],
            #[inline(always)]
            |i, column, n| {
                s.prefetch(x.wrapping_add(i + ROWS * row));
                // SAFETY: `sum_pixels` asks for values of the part's pixels and channels.
                unsafe { [s.sub(load(s, x.add(i), n), load(s, pivot.as_ptr().add(column), n))] }
            },
        );
        // Σ (x − pivot) + pixels · pivot, in `f64`.
        let pivots = part.group_means(&pivot);
        let means: Vec<f64> = part
            .group_means(&sums)
            .iter()
            .zip(pivots)
            .map(|(mean, pivot)| mean + pivot * pixels as f64)
            .collect();
        let first = part.groups.start;
        let mean = part.spread(|group| means[group - first] as f32);
        sums.fill(0.0);
        sum_pixels(
            s,
            part,
            [&mut sums],
            #[inline(always)]
            |i, column, n| {
                // SAFETY: as above; `mean` has the part's channels.
                let d = unsafe { s.sub(load(s, x.add(i), n), load(s, mean.as_ptr().add(column), n)) };
                [s.mul(d, d)]
            },
        );
        let eps = f64::from(part.parameters.eps);
        let rstds: Vec<f32> = part
            .group_means(&sums)
            .iter()
            .map(|variance| (1.0 / (variance + eps).sqrt()) as f32)
            .collect();
        for (i, group) in part.groups.clone().enumerate() {
            // SAFETY: each group is one task's.
            let stats = unsafe { self.mean_rstd.slice((part.n * part.shape.groups + group) * 2, 2) };
            stats.copy_from_slice(&[means[i] as f32, rstds[i]]);
        }
        normalise(
            s,
            part,
            x,
            [&mean, &part.spread(|group| rstds[group - first])],
            self.y,
            self.rounding,
        );
    }
}

/// `y = act((x − mean) · rstd · factor + offset)`, with a mean and an rstd for each channel. `x` leads to the part's values.
#[inline(always)]
fn normalise<S: Simd>(
    s: S,
    part: &Part,
    x: *const f32,
    [mean, rstd]: [&[f32]; 2],
    y: Shared,
    rounding: Rounding,
) {
    let (width, row, pixels) = (part.channels().len(), part.shape.channels, part.shape.pixels);
    let Affine { mut factor, offset } = part.affine();
    factor
        .iter_mut()
        .zip(rstd)
        .for_each(|(factor, rstd)| *factor *= rstd);
    assert!(
        [mean, &factor, &offset].iter().all(|v| v.len() == width),
        "a value for each channel"
    );
    for pixel in 0..pixels {
        let start = part.start() + pixel * row;
        let y = y.part(start, width);
        let (rounds, kept) = match rounding {
            Rounding::None => (false, None),
            Rounding::Bf16 => (true, None),
            Rounding::Kept(kept) => (true, Some(kept.part(start, width))),
        };
        for column in (0..width).step_by(S::LANES) {
            let n = S::LANES.min(width - column);
            // SAFETY: all have the part's channels, of which there are `n` from `column` on; each pixel's channels of a group
            // are written by one task.
            unsafe {
                let value = |v: &[f32]| load(s, v.as_ptr().add(column), n);
                let mut x = load(s, x.add(pixel * row + column), n);
                if rounds {
                    x = s.round_to_bf16(x);
                }
                if let Some(kept) = kept {
                    store_bf16(s, kept.add(column), n, x);
                }
                let z = s.fma(s.sub(x, value(mean)), value(&factor), value(&offset));
                let z = if part.parameters.silu { silu(s, z) } else { z };
                store(s, y.add(column), n, z);
            }
        }
    }
}
