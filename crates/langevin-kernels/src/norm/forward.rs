//! The forward pass of some groups of a picture.

use super::{Affine, Part, sum_pixels};
use crate::parallel::Shared;
use crate::simd::{Kernel, Simd, load, silu, store, store_bf16};

pub(super) struct Forward<'a> {
    pub part: Part<'a>,
    pub x: &'a [f32],
    pub y: Shared<'a>,
    pub mean_rstd: Shared<'a>,
    /// Where `x` is kept as bf16; it is normalised as it is there.
    pub kept: Option<Shared<'a, u16>>,
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
        let x = &self.x[part.start()..][..(pixels - 1) * row + width];
        let pivot = &x[..width];
        let mut sums = vec![0.0; width];
        sum_pixels(
            s,
            part,
            [&mut sums],
            #[inline(always)]
            |i, column, n| {
                // SAFETY: `sum_pixels` asks for values of the part's pixels and channels.
                unsafe {
                    [s.sub(
                        load(s, x.as_ptr().add(i), n),
                        load(s, pivot.as_ptr().add(column), n),
                    )]
                }
            },
        );
        // Σ (x − pivot) + pixels · pivot, in `f64`.
        let pivots = part.group_means(pivot);
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
                let d = unsafe {
                    s.sub(
                        load(s, x.as_ptr().add(i), n),
                        load(s, mean.as_ptr().add(column), n),
                    )
                };
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
            self.kept,
        );
    }
}

/// `y = act((x − mean) · rstd · factor + offset)`, with a mean and an rstd for each channel; with `kept` of `x` rounded to bf16,
/// which is then written there.
#[inline(always)]
fn normalise<S: Simd>(
    s: S,
    part: &Part,
    x: &[f32],
    [mean, rstd]: [&[f32]; 2],
    y: Shared,
    kept: Option<Shared<u16>>,
) {
    let (width, row, pixels) = (part.channels().len(), part.shape.channels, part.shape.pixels);
    let Affine { mut factor, offset } = part.affine();
    factor
        .iter_mut()
        .zip(rstd)
        .for_each(|(factor, rstd)| *factor *= rstd);
    assert!(
        [mean, &factor, &offset].iter().all(|v| v.len() == width) && x.len() >= (pixels - 1) * row + width,
        "a value for each channel"
    );
    for pixel in 0..pixels {
        let start = part.start() + pixel * row;
        // SAFETY: each pixel's channels of a group are written by one task.
        let (y, kept) = unsafe { (y.slice(start, width), kept.map(|kept| kept.slice(start, width))) };
        let kept = kept.map(|kept| kept.as_mut_ptr());
        for column in (0..width).step_by(S::LANES) {
            let n = S::LANES.min(width - column);
            // SAFETY: all have the part's channels, of which there are `n` from `column` on.
            unsafe {
                let value = |v: &[f32]| load(s, v.as_ptr().add(column), n);
                let mut x = load(s, x.as_ptr().add(pixel * row + column), n);
                if let Some(kept) = kept {
                    x = s.round_to_bf16(x);
                    store_bf16(s, kept.add(column), n, x);
                }
                let z = s.fma(s.sub(x, value(mean)), value(&factor), value(&offset));
                let z = if part.parameters.silu { silu(s, z) } else { z };
                store(s, y.as_mut_ptr().add(column), n, z);
            }
        }
    }
}
