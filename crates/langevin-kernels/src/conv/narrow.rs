//! Products with up to four channels of result: the last convolution of a model, to grey or colour.
//!
//! A register tile with channels of the result in its lanes would leave 12 to 15 of 16 lanes idle. Here lanes are
//! channels of the source: each row and channel of the result has a vector of partial sums, added up at the end.

use super::Residual;
use super::panels::Weights;
use super::product::{Call, Table};
use crate::bf16::Values;
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};
use crate::stored::with_values;

/// Weights of a narrow product: `[width, taps, depth]`.
pub(super) struct Narrow {
    weights: Scratch,
    width: usize,
}

impl Narrow {
    /// Whether a product of this size is computed here. It depends on the layer alone, since the order of sums does.
    pub(super) fn suits(isa: Isa, depth: usize, width: usize) -> bool {
        width <= 4 && depth >= isa.lanes()
    }

    pub(super) fn new(weights: &Weights) -> Self {
        let (width, depth) = (weights.width, weights.depth);
        let mut packed = Scratch::new(width * weights.taps.len() * depth);
        let rows = packed.values_mut().chunks_exact_mut(depth);
        for (i, to) in rows.enumerate().take(width * weights.taps.len()) {
            let (j, tap) = (i / weights.taps.len(), weights.taps[i % weights.taps.len()]);
            let (start, step) = if weights.transposed {
                (j * depth, 1)
            } else {
                (j, width)
            };
            with_values!(weights.values, |values| {
                let from = values.part(tap * depth * width, depth * width);
                to.iter_mut()
                    .enumerate()
                    .for_each(|(k, to)| *to = from.value(start + k * step));
            });
        }
        Self {
            weights: packed,
            width,
        }
    }
}

impl Narrow {
    /// Computes a chunk of rows.
    pub(super) fn run(&self, call: &Call, table: &Table) {
        call.isa.run(NarrowTask {
            call,
            table,
            weights: self.weights.values(),
            width: self.width,
        });
    }
}

struct NarrowTask<'a> {
    call: &'a Call<'a>,
    table: &'a Table,
    weights: &'a [f32],
    width: usize,
}

impl Kernel for NarrowTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(
            self.weights.len() >= self.width * self.table.taps * self.table.depth,
            "whole weights"
        );
        match self.width {
            1 => self.rows::<S, 1>(s),
            2 => self.rows::<S, 2>(s),
            3 => self.rows::<S, 3>(s),
            4 => self.rows::<S, 4>(s),
            width => unreachable!("`suits` lets no product of width {width} come here"),
        }
    }
}

impl NarrowTask<'_> {
    #[inline(always)]
    fn rows<S: Simd, const N: usize>(&self, s: S) {
        let count = self.table.destinations.len();
        // Sixteen accumulators fit beside the operands into AVX-512's registers, eight into AVX2's.
        if const { S::TILE_ROWS > 6 } {
            (0..count).step_by(4).for_each(
                #[inline(always)]
                |first| self.block::<S, 4, N>(s, first),
            );
        } else {
            (0..count).step_by(2).for_each(
                #[inline(always)]
                |first| self.block::<S, 2, N>(s, first),
            );
        }
    }

    /// Rows `first .. first + R`, all within one tile of the table.
    #[inline(always)]
    fn block<S: Simd, const R: usize, const N: usize>(&self, s: S, first: usize) {
        let Table { taps, depth, .. } = *self.table;
        let start = first / S::TILE_ROWS * S::TILE_ROWS * taps + first % S::TILE_ROWS;
        let mut acc = [[s.zero(); N]; R];
        for tap in 0..taps {
            let sources = &self.table.sources[start + tap * S::TILE_ROWS..][..R];
            let weights: *const f32 = self.weights[tap * depth..].as_ptr();
            for k in (0..depth).step_by(S::LANES) {
                let n = S::LANES.min(depth - k);
                // SAFETY: `n` values from `k` on lie within the `depth` that a source, and each of the `N` rows of
                // `taps · depth` weights from this tap on, has.
                unsafe {
                    let mut w = [s.zero(); N];
                    for (j, w) in w.iter_mut().enumerate() {
                        let p = weights.add(j * taps * depth + k);
                        *w = if n == S::LANES {
                            s.load(p)
                        } else {
                            s.load_partial(p, n)
                        };
                    }
                    for r in 0..R {
                        let p = sources[r].add(k);
                        let x = if n == S::LANES {
                            s.load(p)
                        } else {
                            s.load_partial(p, n)
                        };
                        for j in 0..N {
                            acc[r][j] = s.fma(x, w[j], acc[r][j]);
                        }
                    }
                }
            }
        }
        let product = self.call.product;
        let last = (first + R).min(self.table.destinations.len());
        for (row, &pixel) in acc.iter().zip(&self.table.destinations[first..last]) {
            let start = pixel * N;
            // SAFETY: no other task writes this pixel.
            let to = unsafe { self.call.destination.slice(start, N) };
            for j in 0..N {
                let sum = s.sum(row[j]) + 0.0;
                let sum = product.bias.map_or(sum, |bias| sum + bias[j]);
                to[j] = match product.residual {
                    Residual::None => sum,
                    Residual::Of(residual) => sum + residual[start + j],
                    Residual::InPlace => sum + to[j],
                };
            }
        }
    }
}
