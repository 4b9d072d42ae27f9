//! The register tile that every matrix product here is made of.

use crate::simd::{Simd, TILE_VECTORS, load};

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
                s.store(to.add((row * TILE_VECTORS + v) * S::LANES), load(s, p, n));
            }
        }
    }
}

/// A matrix whose element `[i, j]` lies at `start + i · row + j · column`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub start: *const f32,
    pub row: usize,
    pub column: usize,
}

/// `c[i] = (c[i] if accumulate) + Σⱼ a[i, j] · b[j]` for `rows` rows of `c` and `depth` rows of `b`, each as wide as
/// the register tile, of which `V` vectors are computed.
///
/// # Safety
/// `a` has `rows` rows and `depth` columns to read, `b` `depth` whole rows, and `c` `rows` whole rows to write.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, const V: usize>(
    s: S,
    [rows, depth]: [usize; 2],
    a: Left,
    b: *const f32,
    c: *mut f32,
    accumulate: bool,
) {
    let mut i = 0;
    while i < rows {
        // SAFETY: the caller's promise.
        unsafe {
            let a = Left {
                start: a.start.add(i * a.row),
                ..a
            };
            let c = c.add(i * TILE_VECTORS * S::LANES);
            i += match rows - i {
                // With one vector a row, six rows would wait for their own sums.
                12.. if const { S::TILE_ROWS == 6 && V == 1 } => {
                    block::<S, 12, V>(s, depth, a, b, c, accumulate)
                }
                8.. if const { S::TILE_ROWS > 6 } => block::<S, 8, V>(s, depth, a, b, c, accumulate),
                // In halves: two rows alone would wait for their own sums longer than they multiply.
                8 => block::<S, 4, V>(s, depth, a, b, c, accumulate),
                6.. if const { S::TILE_ROWS > 4 } => block::<S, 6, V>(s, depth, a, b, c, accumulate),
                4.. => block::<S, 4, V>(s, depth, a, b, c, accumulate),
                2.. => block::<S, 2, V>(s, depth, a, b, c, accumulate),
                _ => block::<S, 1, V>(s, depth, a, b, c, accumulate),
            };
        }
    }
}

/// `R` rows of [`product`]; returns their number.
///
/// # Safety
/// As [`product`]'s, for `R` rows.
#[inline(always)]
unsafe fn block<S: Simd, const R: usize, const V: usize>(
    s: S,
    depth: usize,
    a: Left,
    b: *const f32,
    c: *mut f32,
    accumulate: bool,
) -> usize {
    let columns = TILE_VECTORS * S::LANES;
    let mut acc = zeros::<S, R, V>(s);
    let mut rows = [a.start; R];
    // SAFETY: the caller's promise.
    unsafe {
        for (r, acc) in acc.iter_mut().enumerate() {
            rows[r] = a.start.add(r * a.row);
            if accumulate {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load(c.add(r * columns + v * S::LANES));
                }
            }
        }
        multiply(s, depth, rows, a.column, b, columns, &mut acc);
        for (r, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                s.store(c.add(r * columns + v * S::LANES), acc);
            }
        }
    }
    R
}
