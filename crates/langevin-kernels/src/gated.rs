//! The gated linear unit with GELU (Shazeer 2020, "GLU Variants Improve Transformer"), after its linear layer: a row's first half times GELU of
//! its second.

use crate::parallel::{self, GRAIN, Shared};
use crate::simd::{Isa, Kernel, Simd, gelu_and_slope, load, store};

/// `y[row, i] = a · gelu(b)` with `a = x[row, i]`, `b = x[row, width + i]` and `gelu(b) = b · Φ(b)`.
///
/// # Shapes
/// - `x`: `[rows, 2 · width]`
/// - `y`: `[rows, width]`
///
/// # Panics
/// If the lengths do not fit together.
pub fn geglu_forward(width: usize, x: &[f32], y: &mut [f32]) {
    check(width, x, y.len());
    if y.is_empty() {
        return;
    }
    let isa = Isa::current();
    let rows = rows_at_once(width);
    parallel::for_each_part(y, rows * width, true, |i, y| {
        let x = &x[i * 2 * rows * width..][..2 * y.len()];
        isa.run(Forward { width, x, y });
    });
}

/// The gradient of [`geglu_forward`].
///
/// # Shapes
/// - `x`, `gx`: `[rows, 2 · width]`, `gx` overwritten
/// - `gy`: `[rows, width]`
///
/// # Panics
/// If the lengths do not fit together.
pub fn geglu_backward(width: usize, x: &[f32], gy: &[f32], gx: &mut [f32]) {
    check(width, x, gy.len());
    assert_eq!(x.len(), gx.len(), "gx must have the shape of x");
    let isa = Isa::current();
    let (at_once, total) = (rows_at_once(width), gy.len() / width.max(1));
    let gx = Shared::new(gx);
    parallel::for_each(total.div_ceil(at_once), true, |i| {
        let first = i * at_once;
        let rows = at_once.min(total - first);
        // SAFETY: rows are one task's.
        let gx = unsafe { gx.slice(first * 2 * width, rows * 2 * width) };
        isa.run(Backward {
            width,
            x: &x[first * 2 * width..][..rows * 2 * width],
            gy: &gy[first * width..][..rows * width],
            gx,
        });
    });
}

fn check(width: usize, x: &[f32], half: usize) {
    assert_eq!(x.len(), 2 * half, "x must have twice the values of y");
    assert!(
        half == 0 || (width > 0 && half.is_multiple_of(width)),
        "whole rows of y"
    );
}

fn rows_at_once(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

struct Forward<'a> {
    width: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        for (x, y) in self.x.chunks_exact(2 * width).zip(self.y.chunks_exact_mut(width)) {
            let (a, b) = x.split_at(width);
            for i in (0..width).step_by(S::LANES) {
                let n = S::LANES.min(width - i);
                // SAFETY: all three have `width` values.
                unsafe {
                    let gelu = gelu_and_slope(s, load(s, b.as_ptr().add(i), n)).0;
                    store(
                        s,
                        y.as_mut_ptr().add(i),
                        n,
                        s.mul(load(s, a.as_ptr().add(i), n), gelu),
                    );
                }
            }
        }
    }
}

struct Backward<'a> {
    width: usize,
    x: &'a [f32],
    gy: &'a [f32],
    gx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        let rows = self.x.chunks_exact(2 * width).zip(self.gy.chunks_exact(width));
        for ((x, gy), gx) in rows.zip(self.gx.chunks_exact_mut(2 * width)) {
            let (a, b) = x.split_at(width);
            let (ga, gb) = gx.split_at_mut(width);
            for i in (0..width).step_by(S::LANES) {
                let n = S::LANES.min(width - i);
                // SAFETY: all five have `width` values.
                unsafe {
                    let (gelu, slope) = gelu_and_slope(s, load(s, b.as_ptr().add(i), n));
                    let gy = load(s, gy.as_ptr().add(i), n);
                    store(s, ga.as_mut_ptr().add(i), n, s.mul(gy, gelu));
                    let slope = s.mul(load(s, a.as_ptr().add(i), n), slope);
                    store(s, gb.as_mut_ptr().add(i), n, s.mul(gy, slope));
                }
            }
        }
    }
}
