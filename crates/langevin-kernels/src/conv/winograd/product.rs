//! The products of one plane: some rows times a panel.

use crate::simd::{Kernel, Simd};
use crate::tile::{self, Left, Tile};

/// Rows of the register tile. With a panel's vectors 12 accumulators of AVX2's 16 registers and 24 of AVX-512's 32: the
/// loads for a step (8 for 12 multiply-adds, 10 for 24) are then fewer than the multiply-adds.
const ROWS: usize = 6;

/// `c[i] = (c[i] if accumulate) + Σⱼ a[i, j] · b[j]`, each sum one chain in the order of `j`, whatever the split into calls.
pub(super) struct Product {
    pub rows: usize,
    pub depth: usize,
    /// Vectors of the panel that are computed, up to [`Simd::PANEL_VECTORS`]; or all of two panels, for up to three rows.
    pub vectors: usize,
    pub a: Left,
    /// `depth` rows as wide as the panel.
    pub b: *const f32,
    /// From a panel to the next, where two are computed.
    pub b_panel: usize,
    pub c: *mut f32,
    /// From one row of `c` to the next.
    pub c_row: usize,
    pub accumulate: bool,
}

impl Product {
    /// # Safety
    /// `a` has `rows` rows and `depth` columns to read, `b` `depth` rows of a panel, and `c` `rows` rows of `vectors` vectors
    /// to read and write, which nobody else does meanwhile.
    #[inline(always)]
    pub(super) unsafe fn run(self, isa: crate::simd::Isa) {
        isa.run(Checked(self));
    }
}

/// A product whose maker has promised what [`Product::run`] asks for.
struct Checked(Product);

impl Kernel for Checked {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: the promise of whoever called `Product::run`.
        unsafe {
            // Constant conditions, so that only what an instruction set needs is compiled for it.
            if const { S::PANEL_VECTORS == 4 } {
                match self.0.vectors {
                    1 => self.0.panel::<S, 1>(s),
                    2 => self.0.panel::<S, 2>(s),
                    3 => self.0.panel::<S, 3>(s),
                    8 => self.0.pair::<S, 8>(s),
                    _ => self.0.panel::<S, 4>(s),
                }
            } else {
                match self.0.vectors {
                    1 => self.0.panel::<S, 1>(s),
                    4 => self.0.pair::<S, 4>(s),
                    _ => self.0.panel::<S, 2>(s),
                }
            }
        }
    }
}

impl Product {
    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    unsafe fn panel<S: Simd, const V: usize>(&self, s: S) {
        let mut i = 0;
        while i < self.rows {
            // SAFETY: the caller's promise.
            i += unsafe {
                match self.rows - i {
                    // In halves: a row or two alone would wait for their own sums longer than they multiply.
                    7 | 8 => self.block::<S, 4, V>(s, i),
                    9 => self.block::<S, 5, V>(s, i),
                    ROWS.. => self.block::<S, ROWS, V>(s, i),
                    5 => self.block::<S, 5, V>(s, i),
                    4 => self.block::<S, 4, V>(s, i),
                    3 => self.block::<S, 3, V>(s, i),
                    2 => self.block::<S, 2, V>(s, i),
                    _ => self.block::<S, 1, V>(s, i),
                }
            };
        }
    }

    /// Two panels.
    ///
    /// # Safety
    /// As [`Self::run`]'s, for up to three rows and both panels.
    #[inline(always)]
    unsafe fn pair<S: Simd, const V: usize>(&self, s: S) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows {
                3 => self.block::<S, 3, V>(s, 0),
                2 => self.block::<S, 2, V>(s, 0),
                _ => self.block::<S, 1, V>(s, 0),
            };
        }
    }

    /// `R` rows from row `i` on; returns their number.
    ///
    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize, const V: usize>(&self, s: S, i: usize) -> usize {
        let mut acc = tile::zeros::<S, R, V>(s);
        let mut rows = [self.a.start; R];
        // SAFETY: the caller's promise.
        unsafe {
            let c = self.c.add(i * self.c_row);
            for (r, acc) in acc.iter_mut().enumerate() {
                rows[r] = self.a.start.add((i + r) * self.a.row);
                if self.accumulate {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = s.load(c.add(r * self.c_row + v * S::LANES));
                    }
                }
            }
            let b_step = S::PANEL_VECTORS * S::LANES;
            if const { V > S::PANEL_VECTORS } {
                self.multiply_pair::<S, R, V>(s, rows, &mut acc);
            } else if self.a.column == 1 {
                // A constant step leaves fewer addresses to compute.
                tile::multiply(s, self.depth, rows, 1, self.b, b_step, &mut acc);
            } else {
                tile::multiply(s, self.depth, rows, self.a.column, self.b, b_step, &mut acc);
            }
            for (r, acc) in acc.iter().enumerate() {
                for (v, &acc) in acc.iter().enumerate() {
                    s.store(c.add(r * self.c_row + v * S::LANES), acc);
                }
            }
        }
        R
    }

    /// As [`tile::multiply`], for the columns of two panels.
    ///
    /// # Safety
    /// As [`Self::run`]'s, for both panels.
    #[inline(always)]
    unsafe fn multiply_pair<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        a: [*const f32; R],
        acc: &mut Tile<S, R, V>,
    ) {
        for k in 0..self.depth {
            // SAFETY: the caller's promise.
            unsafe {
                let mut row = [s.zero(); V];
                for (v, row) in row.iter_mut().enumerate() {
                    let (panel, vector) = (v / S::PANEL_VECTORS, v % S::PANEL_VECTORS);
                    let start = panel * self.b_panel + (k * S::PANEL_VECTORS + vector) * S::LANES;
                    *row = s.load(self.b.add(start));
                }
                for r in 0..R {
                    let a = s.splat(*a[r].add(k * self.a.column));
                    for v in 0..V {
                        acc[r][v] = s.fma(a, row[v], acc[r][v]);
                    }
                }
            }
        }
    }
}
