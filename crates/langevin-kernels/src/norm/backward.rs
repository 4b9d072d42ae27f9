//! The backward pass of some groups of a picture.
//!
//! With `d` the gradient before the activation and `a = gamma · (1 + scale)`:
//! `gx = rstd · (a · d − mean(a · d) − normalised · mean(a · d · normalised))`, means over the group.

use super::{Affine, Part, ROWS, sum_pixels};
use crate::bf16::Values;
use crate::parallel::Shared;
use crate::simd::{Kernel, Simd, load, silu_and_slope, silu_slope, store};

pub(super) struct Backward<'a, X> {
    pub part: Part<'a>,
    pub x: X,
    /// `None` where the gradient lies in `gx`, which then takes its place.
    pub gy: Option<&'a [f32]>,
    pub mean_rstd: &'a [f32],
    pub gx: Shared<'a>,
    /// Where the forward's result is written once more.
    pub again: Option<Shared<'a>>,
    pub gscale: Option<Shared<'a>>,
    pub gshift: Option<Shared<'a>>,
    /// `[batch, 2, channels]`: each picture's share of the gradients of gamma and beta.
    pub shares: Shared<'a>,
}

impl<X: Values> Kernel for Backward<'_, X> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let part = &self.part;
        let (width, row, pixels) = (part.channels().len(), part.shape.channels, part.shape.pixels);
        let len = if pixels == 0 {
            0
        } else {
            (pixels - 1) * row + width
        };
        let (x, gy) = (
            self.x.part(part.start(), len),
            self.gy.map(|gy| gy.part(part.start(), len)),
        );
        let [mean, rstd] = [0, 1].map(|i| part.statistic(self.mean_rstd, i));
        let Affine { factor, offset } = part.affine();
        let scaled: Vec<f32> = factor
            .iter()
            .zip(&rstd)
            .map(|(factor, rstd)| factor * rstd)
            .collect();
        // SAFETY: whoever calls it has `n` values from `i` on, within the part.
        let x_at = |i: usize, n: usize| unsafe { x.load(s, i, n) };
        let at = |v: &[f32], column: usize, n: usize| {
            debug_assert!(column + n <= v.len());
            // SAFETY: whoever calls it has `n` values from `column` on.
            unsafe { load(s, v.as_ptr().add(column), n) }
        };
        let gx = self.gx.part(part.start(), len).cast_const();
        // The gradient before the activation is kept in gx for the second pass.
        let (mut sum, mut sum_normalised) = (vec![0.0; width], vec![0.0; width]);
        sum_pixels(
            s,
            part,
            [&mut sum, &mut sum_normalised],
            #[inline(always)]
            |i, column, n| {
                let ahead = i + ROWS * row;
                x.prefetch(s, ahead);
                match gy {
                    Some(gy) => gy.prefetch(s, ahead),
                    None => s.prefetch(gx.wrapping_add(ahead)),
                }
                let centred = s.sub(x_at(i, n), at(&mean, column, n));
                let normalised = s.mul(centred, at(&rstd, column, n));
                let mut d = match gy {
                    Some(gy) => at(gy, i, n),
                    // SAFETY: each pixel's channels of a group are one task's.
                    None => at(unsafe { self.gx.slice(part.start() + i, n) }, 0, n),
                };
                // As the forward computes it.
                let z = s.fma(centred, at(&scaled, column, n), at(&offset, column, n));
                if part.parameters.silu {
                    let slope = match self.again {
                        Some(again) => {
                            let (y, slope) = silu_and_slope(s, z);
                            // SAFETY: each pixel's channels of a group are written by one task.
                            unsafe { store(s, again.slice(part.start() + i, n).as_mut_ptr(), n, y) };
                            slope
                        }
                        None => silu_slope(s, z),
                    };
                    d = s.mul(d, slope);
                    // SAFETY: as above.
                    let gx = unsafe { self.gx.slice(part.start() + i, n) };
                    // SAFETY: it has `n` values.
                    unsafe { store(s, gx.as_mut_ptr(), n, d) };
                } else if let Some(again) = self.again {
                    // SAFETY: as above.
                    unsafe { store(s, again.slice(part.start() + i, n).as_mut_ptr(), n, z) };
                }
                [d, s.mul(d, normalised)]
            },
        );
        self.write_parameters(&sum, &sum_normalised);

        // gx = rstd · a · d + b + normalised · c
        let times = |v: &[f32], by: &[f32]| v.iter().zip(by).map(|(v, by)| v * by).collect::<Vec<_>>();
        let first = part.groups.start;
        let minus_mean = |sums: &[f32]| {
            let means = part.group_means(&times(sums, &factor));
            times(&part.spread(|group| -means[group - first] as f32), &rstd)
        };
        let (a, b, c) = (
            times(&factor, &rstd),
            minus_mean(&sum),
            minus_mean(&sum_normalised),
        );
        for pixel in 0..pixels {
            // SAFETY: each pixel's channels of a group are written by one task.
            let gx = unsafe { self.gx.slice(part.start() + pixel * row, width) };
            for column in (0..width).step_by(S::LANES) {
                let n = S::LANES.min(width - column);
                let i = pixel * row + column;
                let normalised = s.mul(s.sub(x_at(i, n), at(&mean, column, n)), at(&rstd, column, n));
                let d = match gy {
                    Some(gy) if !part.parameters.silu => at(gy, i, n),
                    _ => at(gx, column, n),
                };
                let rest = s.fma(normalised, at(&c, column, n), at(&b, column, n));
                // SAFETY: `n` channels from `column` on are there.
                unsafe {
                    store(
                        s,
                        gx.as_mut_ptr().add(column),
                        n,
                        s.fma(d, at(&a, column, n), rest),
                    )
                };
            }
        }
    }
}

impl<X> Backward<'_, X> {
    /// The gradients of the parameters, from each channel's `Σ d` and `Σ d · normalised`.
    fn write_parameters(&self, sum: &[f32], sum_normalised: &[f32]) {
        let part = &self.part;
        let channels = part.channels();
        let (gamma, beta) = (
            &part.parameters.gamma[channels.clone()],
            &part.parameters.beta[channels.clone()],
        );
        let one_plus_scale = part.one_plus_scale();
        let (share, all) = (
            2 * part.n * part.shape.channels + channels.start,
            part.shape.channels,
        );
        // SAFETY: each channel of a picture is one task's; so below.
        let [ggamma, gbeta] =
            unsafe { [share, share + all].map(|start| self.shares.slice(start, channels.len())) };
        for i in 0..channels.len() {
            ggamma[i] = one_plus_scale[i] * sum_normalised[i];
            gbeta[i] = one_plus_scale[i] * sum[i];
        }
        if let Some(gscale) = self.gscale {
            // SAFETY: as above.
            let gscale = unsafe { gscale.slice(part.film().start, channels.len()) };
            for (i, gscale) in gscale.iter_mut().enumerate() {
                *gscale = gamma[i] * sum_normalised[i] + beta[i] * sum[i];
            }
        }
        if let Some(gshift) = self.gshift {
            // SAFETY: as above.
            unsafe { gshift.slice(part.film().start, channels.len()) }.copy_from_slice(sum);
        }
    }
}
