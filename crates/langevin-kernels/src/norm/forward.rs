//! The forward pass of some groups of a picture.

use super::{Affine, Part, sum_pixels};
use crate::parallel::Shared;
use crate::simd::{Kernel, Simd, load, silu, store};

pub(super) struct Forward<'a> {
    pub part: Part<'a>,
    pub x: &'a [f32],
    pub y: Shared<'a>,
    pub mean_rstd: Shared<'a>,
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
        let Affine { mut factor, offset } = part.affine();
        factor
            .iter_mut()
            .enumerate()
            .for_each(|(i, factor)| *factor *= rstds[i / part.group_len()]);
        for pixel in 0..pixels {
            // SAFETY: each pixel's channels of a group are written by one task.
            let y = unsafe { self.y.slice(part.start() + pixel * row, width) };
            let x = &x[pixel * row..][..width];
            for column in (0..width).step_by(S::LANES) {
                let n = S::LANES.min(width - column);
                let value = |v: &[f32]| {
                    // SAFETY: all have the part's channels, of which there are `n` from `column` on.
                    unsafe { load(s, v.as_ptr().add(column), n) }
                };
                let z = s.fma(s.sub(value(x), value(&mean)), value(&factor), value(&offset));
                let z = if part.parameters.silu { silu(s, z) } else { z };
                // SAFETY: as above.
                unsafe { store(s, y.as_mut_ptr().add(column), n, z) };
            }
        }
    }
}
