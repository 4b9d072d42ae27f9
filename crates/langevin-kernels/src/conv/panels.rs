//! Weights in the order in which the register tile reads them.

use crate::Stored;
use crate::bf16::Values;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, TILE_VECTORS};
use crate::stored::with_values;
use crate::tile::lanes_of;

/// A convolution's weights as the right-hand matrix of a product.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    /// `[kernel taps, in_channels, out_channels]`
    pub values: Stored<'a>,
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
        with_values!(self.values, |values| self
            .pack_values(values, isa, panel, tap, to));
    }

    fn pack_values(&self, values: impl Values, isa: Isa, panel: usize, tap: usize, to: &mut [f32]) {
        let columns = isa.tile_columns();
        let (first, matrix) = (panel * columns, self.depth * self.width);
        let width = columns.min(self.width - first);
        let from = values.part(self.taps[tap] * matrix, matrix);
        assert_eq!(to.len(), self.depth * columns, "a panel's tap");
        if self.transposed {
            isa.run(Transpose {
                from,
                first,
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

struct Copy<'a, V> {
    from: V,
    first: usize,
    width: usize,
    row: usize,
    to: &'a mut [f32],
}

impl<V: Values> Kernel for Copy<'_, V> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.from.len() / self.row;
        let to = self.to.as_mut_ptr();
        for row in 0..rows {
            for v in 0..TILE_VECTORS {
                let n = lanes_of::<S>(self.width, v);
                // SAFETY: `pack_tap` took `from` as `rows` rows of `row` values of which `first + width` exist, and checked the length
                // of `to`.
                unsafe {
                    let values = match n {
                        0 => s.zero(),
                        _ => self.from.load(s, row * self.row + self.first + v * S::LANES, n),
                    };
                    s.store(to.add((row * TILE_VECTORS + v) * S::LANES), values);
                }
            }
        }
    }
}

struct Transpose<'a, V> {
    from: V,
    first: usize,
    depth: usize,
    width: usize,
    to: &'a mut [f32],
}

impl<V: Values> Kernel for Transpose<'_, V> {
    type Output = ();
    /// `to[k][j] = from[first + j][k]`, in square blocks as wide as a vector.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            from,
            first,
            depth,
            width,
            to,
        } = self;
        let columns = TILE_VECTORS * S::LANES;
        assert!(
            from.len() >= (first + width) * depth && to.len() == depth * columns && width <= columns,
            "a panel's tap"
        );
        for j in (0..columns).step_by(S::LANES) {
            for k in (0..depth).step_by(S::LANES) {
                if j + S::LANES <= width && k + S::LANES <= depth {
                    // SAFETY: the block lies within both, whose lengths were just checked.
                    unsafe {
                        let to = to.as_mut_ptr().add(k * columns + j);
                        from.transpose(s, (first + j) * depth + k, depth, to, columns);
                    }
                    continue;
                }
                for k in k..depth.min(k + S::LANES) {
                    for j in j..j + S::LANES {
                        to[k * columns + j] = if j < width {
                            from.value((first + j) * depth + k)
                        } else {
                            0.0
                        };
                    }
                }
            }
        }
    }
}
