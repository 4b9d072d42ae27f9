//! Weights in the order in which the register tile reads them.

use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, TILE_VECTORS};
use crate::tile::pack_rows;

/// A convolution's weights as the right-hand matrix of a product.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    /// `[kernel taps, in_channels, out_channels]`
    pub values: &'a [f32],
    /// The taps of the product, in its order.
    pub taps: &'a [usize],
    /// Rows of a tap's matrix: channels that are summed.
    pub depth: usize,
    /// Columns: channels of the result.
    pub width: usize,
    /// Whether `depth` is the in-channels (false) or the out-channels (true).
    pub transposed: bool,
}

/// Weights in panels as wide as the register tile, each `[taps, depth, tile columns]` and padded with zeros.
pub(super) struct Panels {
    values: Scratch,
    len: usize,
}

impl Weights<'_> {
    /// Length of a panel.
    pub(super) fn panel_len(&self, isa: Isa) -> usize {
        self.taps.len() * self.depth * isa.tile_columns()
    }

    /// Number of panels.
    pub(super) fn panels(&self, isa: Isa) -> usize {
        self.width.div_ceil(isa.tile_columns())
    }

    /// Writes tap number `tap` of panel `panel` to `to`, which is `[depth, tile columns]`.
    pub(super) fn pack_tap(&self, isa: Isa, panel: usize, tap: usize, to: &mut [f32]) {
        let columns = isa.tile_columns();
        let (first, matrix) = (panel * columns, self.depth * self.width);
        let width = columns.min(self.width - first);
        let from = &self.values[self.taps[tap] * matrix..][..matrix];
        assert_eq!(to.len(), self.depth * columns, "a panel's tap");
        if self.transposed {
            isa.run(Transpose {
                from: &from[first * self.depth..],
                depth: self.depth,
                width,
                to,
            });
        } else {
            isa.run(Copy {
                from,
                first,
                width,
                row: self.width,
                to,
            });
        }
    }

    /// All panels, packed on all threads.
    pub(super) fn pack(&self, isa: Isa) -> Panels {
        let (taps, panels, len) = (self.taps.len(), self.panels(isa), self.panel_len(isa));
        let mut values = Scratch::new(panels * len);
        let shared = Shared::new(values.values_mut());
        parallel::for_each(panels * taps, panels * len > 2 * parallel::GRAIN, |task| {
            let (panel, tap) = (task / taps, task % taps);
            // SAFETY: each task writes a part of its own.
            let to = unsafe { shared.slice(panel * len + tap * (len / taps), len / taps) };
            self.pack_tap(isa, panel, tap, to);
        });
        Panels { values, len }
    }
}

impl Panels {
    /// The panels, one after the other, and the length of one.
    pub(super) fn values(&self) -> (&[f32], usize) {
        (self.values.values(), self.len)
    }
}

struct Copy<'a> {
    from: &'a [f32],
    first: usize,
    width: usize,
    row: usize,
    to: &'a mut [f32],
}

impl Kernel for Copy<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.from.len() / self.row;
        // SAFETY: `pack_tap` took `from` as `rows` rows of `row` values of which `first + width` exist, and
        // checked the length of `to`.
        unsafe {
            let from = self.from.as_ptr().add(self.first);
            pack_rows(s, rows, self.width, from, self.row, self.to.as_mut_ptr());
        }
    }
}

struct Transpose<'a> {
    from: &'a [f32],
    depth: usize,
    width: usize,
    to: &'a mut [f32],
}

impl Kernel for Transpose<'_> {
    type Output = ();
    /// `to[k][j] = from[j][k]`, in square blocks as wide as a vector.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            from,
            depth,
            width,
            to,
        } = self;
        let columns = TILE_VECTORS * S::LANES;
        assert!(
            from.len() >= width * depth && to.len() == depth * columns && width <= columns,
            "a panel's tap"
        );
        for j in (0..columns).step_by(S::LANES) {
            for k in (0..depth).step_by(S::LANES) {
                if j + S::LANES <= width && k + S::LANES <= depth {
                    // SAFETY: the block lies within both, whose lengths were just checked.
                    unsafe {
                        let (from, to) = (
                            from.as_ptr().add(j * depth + k),
                            to.as_mut_ptr().add(k * columns + j),
                        );
                        s.transpose(from, depth, to, columns);
                    }
                    continue;
                }
                for k in k..depth.min(k + S::LANES) {
                    for j in j..j + S::LANES {
                        to[k * columns + j] = if j < width { from[j * depth + k] } else { 0.0 };
                    }
                }
            }
        }
    }
}
