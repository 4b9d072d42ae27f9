//! Sums over the rows of a matrix: bias gradients.

use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, load, store};

/// Values that are summed by one task: a range of rows with sums of its own, added in order at the end.
const BLOCK: usize = 65_536;

/// A row shorter than this is taken together with its neighbours, so that lanes are filled.
const SHORT: usize = 32;

/// `sums[j] = Σᵢ matrix[i, j]` for a matrix with `sums.len()` columns.
pub(crate) fn column_sums(matrix: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    if columns == 0 {
        return;
    }
    // `join` rows make a long row; the rest of the rows is added one by one.
    let join = if columns < SHORT {
        SHORT.div_ceil(columns)
    } else {
        1
    };
    let width = columns * join;
    let rows = matrix.len() / width;
    let block = (BLOCK / width).max(16);
    let blocks = rows.div_ceil(block);
    let isa = Isa::current();
    let mut partial = Scratch::new(blocks * width);
    let shared = Shared::new(partial.values_mut());
    parallel::for_each(blocks, true, |i| {
        let rows = &matrix[i * block * width..rows.min((i + 1) * block) * width];
        // SAFETY: each task has a row of its own.
        let sums = unsafe { shared.slice(i * width, width) };
        isa.run(Sums { rows, sums });
    });
    sums.fill(0.0);
    let joined = partial.values()[..blocks * width].chunks_exact(columns);
    for row in joined.chain(matrix[rows * width..].chunks_exact(columns)) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}

struct Sums<'a> {
    rows: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();

    /// Sixteen rows at a time with accumulators in registers, so that partial sums are loaded and stored seldom and
    /// rounding errors grow with the sixteenth of the rows.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.sums.len();
        self.sums.fill(0.0);
        for rows in self.rows.chunks(16 * width) {
            for column in (0..width).step_by(S::LANES) {
                let n = S::LANES.min(width - column);
                // Four chains of additions, since one would wait for itself.
                let mut acc = [s.zero(); 4];
                for (i, row) in rows.chunks_exact(width).enumerate() {
                    // SAFETY: `n` values from `column` on lie within a row.
                    acc[i % 4] = s.add(acc[i % 4], unsafe { load(s, row.as_ptr().add(column), n) });
                }
                let acc = s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]));
                // SAFETY: as above.
                unsafe {
                    let to = self.sums.as_mut_ptr().add(column);
                    store(s, to, n, s.add(load(s, to, n), acc));
                }
            }
        }
    }
}
