//! Group normalisation with an optional scale and shift per picture and an optional SiLU.
//!
//! Lanes are channels. A task takes some pictures, or some groups of one picture where there are few, and reads what
//! it normalises three times: for the mean, for the variance and for the result. A picture's values mostly stay in
//! the second-level cache meanwhile. Sums are taken of differences from the first pixel (for the mean) and from the mean (for
//! the variance), so that a large mean costs no accuracy, over blocks of rows, which keeps rounding errors short.

mod backward;
mod forward;

use crate::bf16::Values;
use crate::columns::column_sums;
use crate::parallel::{self, GRAIN, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Simd, load, store};
use backward::Backward;
use forward::{Forward, Rounding};
use std::ops::Range;

/// The sizes of a group normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupNormShape {
    /// Number of pictures.
    pub batch: usize,
    /// Height times width.
    pub pixels: usize,
    /// Number of channels.
    pub channels: usize,
    /// Number of groups; divides `channels`.
    pub groups: usize,
}

/// What a group normalisation applies after normalising.
#[derive(Clone, Copy, Debug)]
pub struct GroupNormParameters<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// The learned factor, `[channels]`.
    pub gamma: &'a [f32],
    /// The learned offset, `[channels]`.
    pub beta: &'a [f32],
    /// `[batch, channels]`: the result is multiplied by `1 + scale`.
    pub scale: Option<&'a [f32]>,
    /// `[batch, channels]`: added after `scale`.
    pub shift: Option<&'a [f32]>,
    /// Whether `SiLU(z) = z · sigmoid(z)` is applied last.
    pub silu: bool,
}

/// Where [`group_norm_backward`] writes its gradients; all are overwritten.
#[derive(Debug)]
pub struct GroupNormGradients<'a> {
    /// `[batch, pixels, channels]`
    pub x: &'a mut [f32],
    /// `[channels]`
    pub gamma: &'a mut [f32],
    /// `[channels]`
    pub beta: &'a mut [f32],
    /// `[batch, channels]`
    pub scale: Option<&'a mut [f32]>,
    /// `[batch, channels]`
    pub shift: Option<&'a mut [f32]>,
}

impl GroupNormShape {
    fn check(&self, x: usize, y: usize, mean_rstd: usize, parameters: &GroupNormParameters) {
        assert!(
            self.groups > 0 && self.channels.is_multiple_of(self.groups),
            "groups must divide channels: {self:?}"
        );
        assert!(
            x == y && x == self.batch * self.pixels * self.channels,
            "x and y must be [batch, pixels, channels]: {self:?}"
        );
        assert_eq!(
            mean_rstd,
            self.batch * self.groups * 2,
            "mean_rstd must be [batch, groups, 2]: {self:?}"
        );
        let vector = |v: &[f32]| v.len() == self.channels;
        assert!(
            vector(parameters.gamma) && vector(parameters.beta),
            "gamma and beta must be [channels]"
        );
        let film = |v: Option<&[f32]>| v.is_none_or(|v| v.len() == self.batch * self.channels);
        assert!(
            film(parameters.scale) && film(parameters.shift),
            "scale and shift must be [batch, channels]"
        );
    }

    /// Calls `f(picture, groups)` for all groups of all pictures. How they are split may depend on the number of threads,
    /// since groups do not depend on each other.
    fn for_each_part(&self, f: impl Fn(usize, Range<usize>) + Send + Sync) {
        let values = self.batch * self.pixels * self.channels;
        let wanted = (values / GRAIN).clamp(1, 4 * rayon::current_num_threads());
        let pictures = self.batch.div_ceil(wanted).max(1);
        let groups = if pictures > 1 {
            self.groups
        } else {
            (self.groups * self.batch).div_ceil(wanted)
        };
        let splits = self.groups.div_ceil(groups.max(1));
        parallel::for_each(self.batch.div_ceil(pictures) * splits, wanted > 1, |task| {
            let (first, split) = (task / splits * pictures, task % splits);
            for n in first..(first + pictures).min(self.batch) {
                f(n, split * groups..((split + 1) * groups).min(self.groups));
            }
        });
    }
}

/// Normalises each picture's groups of channels to mean 0 and variance 1, and applies the parameters:
/// `y = act(((x − mean) · rstd · gamma + beta) · (1 + scale) + shift)`. Where there is no `x`, it lies in `y`, and the result takes its
/// place.
///
/// # Shapes
/// - `x`, `y`: `[batch, pixels, channels]`
/// - `mean_rstd`: `[batch, groups, 2]`, written: each group's mean and `1 / sqrt(variance + eps)`, for
///   [`group_norm_backward`]
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn group_norm_forward(
    shape: &GroupNormShape,
    x: Option<&[f32]>,
    parameters: &GroupNormParameters,
    y: &mut [f32],
    mean_rstd: &mut [f32],
) {
    forward(shape, x, parameters, y, mean_rstd, Rounding::None);
}

/// [`group_norm_forward`] of `x` rounded to bf16, which it keeps for [`group_norm_backward_bf16`] where that is wanted. The
/// statistics are those of `x` as it is.
///
/// # Shapes
/// - `kept`: as `x`, written
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn group_norm_forward_bf16(
    shape: &GroupNormShape,
    x: Option<&[f32]>,
    parameters: &GroupNormParameters,
    y: &mut [f32],
    mean_rstd: &mut [f32],
    kept: Option<&mut [u16]>,
) {
    let rounding = match kept {
        None => Rounding::Bf16,
        Some(kept) => {
            assert_eq!(kept.len(), y.len(), "what is kept must have x's shape");
            Rounding::Kept(Shared::new(kept))
        }
    };
    forward(shape, x, parameters, y, mean_rstd, rounding);
}

fn forward(
    shape: &GroupNormShape,
    x: Option<&[f32]>,
    parameters: &GroupNormParameters,
    y: &mut [f32],
    mean_rstd: &mut [f32],
    rounding: Rounding,
) {
    shape.check(
        x.map_or(y.len(), <[f32]>::len),
        y.len(),
        mean_rstd.len(),
        parameters,
    );
    let (y, mean_rstd) = (Shared::new(y), Shared::new(mean_rstd));
    let isa = Isa::current();
    shape.for_each_part(|n, groups| {
        let part = Part {
            shape,
            parameters,
            n,
            groups,
        };
        isa.run(Forward {
            part,
            x,
            y,
            mean_rstd,
            rounding,
        });
    });
}

/// The gradients of [`group_norm_forward`]. Where there is no `gy`, the gradient at the result lies in `gradients.x`, and that at `x` takes its
/// place.
///
/// # Shapes
/// - `x`, `gy`: `[batch, pixels, channels]`
/// - `mean_rstd`: `[batch, groups, 2]`, as the forward pass left it
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn group_norm_backward(
    shape: &GroupNormShape,
    x: &[f32],
    mean_rstd: &[f32],
    parameters: &GroupNormParameters,
    gy: Option<&[f32]>,
    gradients: GroupNormGradients,
) {
    backward(shape, x, mean_rstd, parameters, gy, gradients, None);
}

/// [`group_norm_backward`] from what [`group_norm_forward_bf16`] kept. On the way it writes the forward's result into `again`, where that
/// is wanted, to the bit.
///
/// # Shapes
/// - `again`: as `x`
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn group_norm_backward_bf16(
    shape: &GroupNormShape,
    x: &[u16],
    mean_rstd: &[f32],
    parameters: &GroupNormParameters,
    gy: Option<&[f32]>,
    gradients: GroupNormGradients,
    again: Option<&mut [f32]>,
) {
    backward(shape, x, mean_rstd, parameters, gy, gradients, again);
}

fn backward(
    shape: &GroupNormShape,
    x: impl Values,
    mean_rstd: &[f32],
    parameters: &GroupNormParameters,
    gy: Option<&[f32]>,
    gradients: GroupNormGradients,
    again: Option<&mut [f32]>,
) {
    let gradient = gy.map_or(x.len(), <[f32]>::len);
    shape.check(x.len(), gradient, mean_rstd.len(), parameters);
    let GroupNormGradients {
        x: gx,
        gamma: ggamma,
        beta: gbeta,
        scale: gscale,
        shift: gshift,
    } = gradients;
    assert!(
        gx.len() == x.len() && again.as_ref().is_none_or(|again| again.len() == x.len()),
        "the gradient of x, and the result, must have x's shape"
    );
    assert!(
        ggamma.len() == shape.channels && gbeta.len() == shape.channels,
        "gradients must be [channels]"
    );
    let film = |v: &Option<&mut [f32]>| v.as_ref().is_none_or(|v| v.len() == shape.batch * shape.channels);
    assert!(
        film(&gscale) && film(&gshift),
        "gradients of scale and shift must be [batch, channels]"
    );
    let isa = Isa::current();
    let channels = shape.channels;
    // Each picture's contributions to the gradients of gamma and beta, added in the pictures' order.
    let mut shares = Scratch::new(shape.batch * 2 * channels);
    let shares_of = Shared::new(shares.values_mut());
    let (gx, again) = (Shared::new(gx), again.map(Shared::new));
    let (gscale, gshift) = (gscale.map(Shared::new), gshift.map(Shared::new));
    shape.for_each_part(|n, groups| {
        let part = Part {
            shape,
            parameters,
            n,
            groups,
        };
        isa.run(Backward {
            part,
            x,
            gy,
            mean_rstd,
            gx,
            again,
            gscale,
            gshift,
            shares: shares_of,
        });
    });
    let mut sums = vec![0.0; 2 * channels];
    column_sums(&shares.values()[..shape.batch * 2 * channels], &mut sums);
    ggamma.copy_from_slice(&sums[..channels]);
    gbeta.copy_from_slice(&sums[channels..]);
}

/// Some groups of one picture.
struct Part<'a> {
    shape: &'a GroupNormShape,
    parameters: &'a GroupNormParameters<'a>,
    n: usize,
    groups: Range<usize>,
}

/// What is applied to a channel's normalised values: `act(factor · normalised + offset)`.
struct Affine {
    factor: Vec<f32>,
    offset: Vec<f32>,
}

impl Part<'_> {
    /// Channels of a group.
    fn group_len(&self) -> usize {
        self.shape.channels / self.shape.groups
    }

    /// The part's channels.
    fn channels(&self) -> Range<usize> {
        self.groups.start * self.group_len()..self.groups.end * self.group_len()
    }

    /// Index of the part's first value.
    fn start(&self) -> usize {
        self.n * self.shape.pixels * self.shape.channels + self.channels().start
    }

    /// Index of the picture's value for the part's first channel in a slice `[batch, channels]`.
    fn film(&self) -> Range<usize> {
        let start = self.n * self.shape.channels;
        start + self.channels().start..start + self.channels().end
    }

    /// `1 + scale` for each channel.
    fn one_plus_scale(&self) -> Vec<f32> {
        match self.parameters.scale {
            Some(scale) => scale[self.film()].iter().map(|scale| 1.0 + scale).collect(),
            None => vec![1.0; self.channels().len()],
        }
    }

    fn affine(&self) -> Affine {
        let scale = self.one_plus_scale();
        let GroupNormParameters { gamma, beta, .. } = *self.parameters;
        let times = |v: &[f32]| {
            v[self.channels()]
                .iter()
                .zip(&scale)
                .map(|(v, s)| v * s)
                .collect::<Vec<_>>()
        };
        let (factor, mut offset) = (times(gamma), times(beta));
        if let Some(shift) = self.parameters.shift {
            offset
                .iter_mut()
                .zip(&shift[self.film()])
                .for_each(|(offset, shift)| *offset += shift);
        }
        Affine { factor, offset }
    }

    /// Each channel's mean (`i` is 0) or reciprocal standard deviation (1), from `[batch, groups, 2]`.
    fn statistic(&self, mean_rstd: &[f32], i: usize) -> Vec<f32> {
        self.spread(|group| mean_rstd[(self.n * self.shape.groups + group) * 2 + i])
    }

    /// A group's value for each of its channels.
    fn spread(&self, of_group: impl Fn(usize) -> f32) -> Vec<f32> {
        self.groups
            .clone()
            .flat_map(|group| std::iter::repeat_n(of_group(group), self.group_len()))
            .collect()
    }

    /// The mean over each group of per-channel sums over pixels.
    fn group_means(&self, sums: &[f32]) -> Vec<f64> {
        let count = (self.shape.pixels * self.group_len()) as f64;
        sums.chunks_exact(self.group_len())
            .map(|g| g.iter().map(|&v| f64::from(v)).sum::<f64>() / count)
            .collect()
    }
}

/// Rows summed in registers before they are added to the rest. Passes over what may not be in a cache ask for as many rows ahead.
const ROWS: usize = 32;

/// `sums[j][channel] += Σ f(pixel, channel)[j]` over all pixels, in blocks of rows; `f(start, column, lanes)` is given
/// the index of the value relative to the part's first, its column and how many lanes there are.
#[inline(always)]
fn sum_pixels<S: Simd, const N: usize>(
    s: S,
    part: &Part,
    mut sums: [&mut [f32]; N],
    mut f: impl FnMut(usize, usize, usize) -> [S::F; N],
) {
    let (width, row) = (part.channels().len(), part.shape.channels);
    assert!(
        sums.iter().all(|sums| sums.len() == width),
        "a sum for each channel"
    );
    for first in (0..part.shape.pixels).step_by(ROWS) {
        for column in (0..width).step_by(S::LANES) {
            let n = S::LANES.min(width - column);
            let mut acc = [s.zero(); N];
            for pixel in first..(first + ROWS).min(part.shape.pixels) {
                let values = f(pixel * row + column, column, n);
                for (acc, value) in acc.iter_mut().zip(values) {
                    *acc = s.add(*acc, value);
                }
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                // SAFETY: `n` channels from `column` on are there, and the slice is borrowed mutably.
                unsafe {
                    let to = sums.as_mut_ptr().add(column);
                    store(s, to, n, s.add(load(s, to, n), acc));
                }
            }
        }
    }
}
