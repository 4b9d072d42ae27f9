//! The transforms of F(4x4, 3x3), with the points 0, ±1, ±2 and ∞ (Lavin & Gray 2015, section 4.3).
//!
//! With `g` a kernel, `d` a tile of 6x6 inputs and `y` its 4x4 outputs: `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. The weight gradient
//! turns the same matrices round: `gg = Gᵀ [(Bᵀ d B) ⊙ (A gy Aᵀ)] G`. Here are the one-dimensional products with each
//! matrix, and [`both`], which applies one along columns and then along rows. Lanes are channels.

use crate::simd::Simd;

/// Outputs of a tile along an axis.
pub(super) const OUTPUTS: usize = 4;

/// Inputs of a tile along an axis.
pub(super) const INPUTS: usize = 6;

/// Products of a tile: a plane of the transformed matrices for each.
pub(super) const PLANES: usize = INPUTS * INPUTS;

/// `a · factor + c`.
#[inline(always)]
fn add_times<S: Simd>(s: S, a: S::F, factor: f32, c: S::F) -> S::F {
    s.fma(a, s.splat(factor), c)
}

#[inline(always)]
fn times<S: Simd>(s: S, a: S::F, factor: f32) -> S::F {
    s.mul(a, s.splat(factor))
}

/// One of the four transforms along an axis, from `A` values to `B`.
pub(super) trait Transform<const A: usize, const B: usize> {
    fn apply<S: Simd>(s: S, values: [S::F; A]) -> [S::F; B];
}

/// `Bᵀ d`: of inputs.
pub(super) struct OfInput;

impl Transform<6, 6> for OfInput {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::F; 6]) -> [S::F; 6] {
        let (a, b) = (add_times(s, d[2], -4.0, d[4]), add_times(s, d[1], -4.0, d[3]));
        let (c, e) = (s.sub(d[4], d[2]), s.sub(d[3], d[1]));
        [
            add_times(s, d[0], 4.0, add_times(s, d[2], -5.0, d[4])),
            s.add(a, b),
            s.sub(a, b),
            add_times(s, e, 2.0, c),
            add_times(s, e, -2.0, c),
            add_times(s, d[1], 4.0, add_times(s, d[3], -5.0, d[5])),
        ]
    }
}

/// `Aᵀ m`: to outputs, with the factors that [`OfKernel`] leaves out.
pub(super) struct ToOutput;

impl Transform<6, 4> for ToOutput {
    #[inline(always)]
    fn apply<S: Simd>(s: S, m: [S::F; 6]) -> [S::F; 4] {
        let sum = times(s, s.add(m[1], m[2]), -1.0 / 6.0);
        let difference = times(s, s.sub(m[1], m[2]), -1.0 / 6.0);
        let (sum2, difference2) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        [
            add_times(s, m[0], 0.25, add_times(s, sum2, 1.0 / 24.0, sum)),
            add_times(s, difference2, 1.0 / 12.0, difference),
            add_times(s, sum2, 1.0 / 6.0, sum),
            s.add(add_times(s, difference2, 1.0 / 3.0, difference), m[5]),
        ]
    }
}

/// `G g`: of a kernel, each row without its factor: a quarter, twice minus a sixth, twice a 24th, and 1. There are more kernels to
/// transform than outputs on small maps, and whole numbers are quicker.
pub(super) struct OfKernel;

impl Transform<3, 6> for OfKernel {
    #[inline(always)]
    fn apply<S: Simd>(s: S, g: [S::F; 3]) -> [S::F; 6] {
        let (even, even2) = (s.add(g[0], g[2]), add_times(s, g[2], 4.0, g[0]));
        [
            g[0],
            s.add(even, g[1]),
            s.sub(even, g[1]),
            add_times(s, g[1], 2.0, even2),
            add_times(s, g[1], -2.0, even2),
            g[2],
        ]
    }
}

/// `A gy`: of the outputs' gradient.
pub(super) struct OfGradient;

impl Transform<4, 6> for OfGradient {
    #[inline(always)]
    fn apply<S: Simd>(s: S, y: [S::F; 4]) -> [S::F; 6] {
        let (even, odd) = (s.add(y[0], y[2]), s.add(y[1], y[3]));
        let even2 = add_times(s, y[2], 4.0, y[0]);
        let odd2 = add_times(s, y[3], 8.0, s.add(y[1], y[1]));
        [
            y[0],
            s.add(even, odd),
            s.sub(even, odd),
            s.add(even2, odd2),
            s.sub(even2, odd2),
            y[3],
        ]
    }
}

/// `Gᵀ u`: to the kernel's gradient.
pub(super) struct ToKernel;

impl Transform<6, 3> for ToKernel {
    #[inline(always)]
    fn apply<S: Simd>(s: S, u: [S::F; 6]) -> [S::F; 3] {
        let (sum, difference) = (s.add(u[1], u[2]), s.sub(u[2], u[1]));
        let (sum2, difference2) = (s.add(u[3], u[4]), s.sub(u[3], u[4]));
        [
            add_times(
                s,
                u[0],
                0.25,
                add_times(s, sum, -1.0 / 6.0, times(s, sum2, 1.0 / 24.0)),
            ),
            add_times(s, difference, 1.0 / 6.0, times(s, difference2, 1.0 / 12.0)),
            s.add(add_times(s, sum2, 1.0 / 6.0, times(s, sum, -1.0 / 6.0)), u[5]),
        ]
    }
}

/// Transforms the `A`x`A` values that `load(row, column)` gives, and calls `store(row, column, value)` for the `B`x`B`
/// results.
#[inline(always)]
pub(super) fn both<S: Simd, T: Transform<A, B>, const A: usize, const B: usize>(
    s: S,
    load: impl Fn(usize, usize) -> S::F,
    mut store: impl FnMut(usize, usize, S::F),
) {
    let mut half = [[s.zero(); A]; B];
    for column in 0..A {
        let mut values = [s.zero(); A];
        for (row, value) in values.iter_mut().enumerate() {
            *value = load(row, column);
        }
        for (half, value) in half.iter_mut().zip(T::apply(s, values)) {
            half[column] = value;
        }
    }
    for (row, half) in half.iter().enumerate() {
        for (column, value) in T::apply(s, *half).into_iter().enumerate() {
            store(row, column, value);
        }
    }
}
