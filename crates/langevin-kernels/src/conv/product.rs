//! Convolution as an implicit matrix product: rows are destination pixels, columns are channels.
//!
//! Both the forward pass and the input gradient are such products; they differ in the [`Axis`](super::gather::Axis) that says where a
//! row's values come from and in how the weights lie. Nothing is expanded in memory: a table of pointers, one
//! for each row and tap, leads the register tile to the source pixels, and to a row of zeros in the padding.

use super::Residual;
use super::gather::Rows;
use crate::Stored;
use crate::parallel::Shared;
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, TILE_VECTORS};
use crate::tile::{self, lanes_of};

/// What a product reads and writes, apart from where rows come from.
pub(super) struct Product<'a> {
    pub batch: usize,
    /// Height and width of the source.
    pub source_size: [usize; 2],
    /// Height and width of the destination.
    pub destination_size: [usize; 2],
    /// `[batch, source height, source width, depth]`
    pub source: &'a [f32],
    /// `[kernel taps, in_channels, out_channels]`
    pub weight: Stored<'a>,
    /// Horizontal taps of the kernel.
    pub kernel_width: usize,
    /// Channels of the source.
    pub depth: usize,
    /// Channels of the destination.
    pub width: usize,
    /// Whether the destination has the in-channels.
    pub transposed: bool,
    /// `[width]`
    pub bias: Option<&'a [f32]>,
    /// `[batch, destination height, destination width, width]`
    pub residual: Residual<'a>,
}

/// What all tasks of a product share.
pub(super) struct Call<'a> {
    pub isa: Isa,
    pub product: &'a Product<'a>,
    pub rows: &'a Rows<'a>,
    /// [`Rows::is_plain`]
    pub is_plain: bool,
    pub zeros: &'a [f32],
    pub destination: Shared<'a>,
}

/// Where the values of a chunk of rows lie: `[tiles, taps, tile rows]` pointers to `depth` values each. The last
/// tile is filled up with its last row.
pub(super) struct Table {
    pub sources: Vec<*const f32>,
    /// The destination pixel of each row.
    pub destinations: Vec<usize>,
    pub taps: usize,
    pub depth: usize,
    /// What the pointers lead to, where rows were copied together.
    _copied: Option<Scratch>,
}

impl Table {
    pub(super) fn new(call: &Call, first: usize, last: usize, copied: bool) -> Self {
        let (tile_rows, all_taps, depth) = (call.isa.tile_rows(), call.rows.taps(), call.product.depth);
        let count = last - first;
        if call.is_plain {
            let row = |i: usize| call.product.source[i * depth..][..depth].as_ptr();
            let rows = first..first + count.next_multiple_of(tile_rows);
            return Self {
                sources: rows.map(|i| row(i.min(last - 1))).collect(),
                destinations: (first..last).collect(),
                taps: 1,
                depth,
                _copied: None,
            };
        }
        let destinations = (first..last).map(|i| call.rows.destination(i)).collect();
        let source = |pixel: Option<usize>| match pixel {
            Some(pixel) => &call.product.source[pixel * depth..][..depth],
            None => call.zeros,
        };
        let padded = count.next_multiple_of(tile_rows);
        if copied {
            let length = all_taps * depth;
            let mut copy = Scratch::new(count * length);
            for (i, row) in (first..last).zip(copy.values_mut().chunks_exact_mut(length)) {
                call.rows.sources(i, |tap, pixel| {
                    row[tap * depth..]
                        .iter_mut()
                        .zip(source(pixel))
                        .for_each(|(to, from)| *to = *from);
                });
            }
            let start = copy.values().as_ptr();
            let sources = (0..padded)
                .map(|i| start.wrapping_add(i.min(count - 1) * length))
                .collect();
            return Self {
                sources,
                destinations,
                taps: 1,
                depth: length,
                _copied: Some(copy),
            };
        }
        let mut sources = vec![call.zeros.as_ptr(); padded * all_taps];
        for i in 0..padded {
            let start = i / tile_rows * all_taps * tile_rows + i % tile_rows;
            call.rows.sources(first + i.min(count - 1), |tap, pixel| {
                sources[start + tap * tile_rows] = source(pixel).as_ptr();
            });
        }
        Self {
            sources,
            destinations,
            taps: all_taps,
            depth,
            _copied: None,
        }
    }
}

/// A chunk of rows times one panel.
pub(super) struct PanelTask<'a> {
    pub call: &'a Call<'a>,
    pub table: &'a Table,
    pub panel: usize,
    /// `[taps, depth]` rows, `step` apart.
    pub values: &'a [f32],
    pub step: usize,
}

impl Kernel for PanelTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.call.product.width - self.panel * TILE_VECTORS * S::LANES;
        let needed = if width > S::LANES {
            TILE_VECTORS * S::LANES
        } else {
            S::LANES
        };
        let depth = self.table.taps * self.table.depth;
        assert!(
            depth == 0 || self.values.len() >= (depth - 1) * self.step + needed,
            "a whole panel"
        );
        let count = self.table.destinations.len();
        for first in (0..count).step_by(S::TILE_ROWS) {
            let rows = count - first;
            // SAFETY: the table's pointers lead to `depth` values each, and the panel is whole.
            unsafe {
                match (rows, width > S::LANES) {
                    (7.., true) if const { S::TILE_ROWS > 6 } => self.tile::<S, 8, 2>(s, first),
                    (5.., true) if const { S::TILE_ROWS > 4 } => self.tile::<S, 6, 2>(s, first),
                    (3.., true) => self.tile::<S, 4, 2>(s, first),
                    (2, true) => self.tile::<S, 2, 2>(s, first),
                    (_, true) => self.tile::<S, 1, 2>(s, first),
                    (7.., false) if const { S::TILE_ROWS > 6 } => self.tile::<S, 8, 1>(s, first),
                    (5.., false) if const { S::TILE_ROWS > 4 } => self.tile::<S, 6, 1>(s, first),
                    (3.., false) => self.tile::<S, 4, 1>(s, first),
                    (2, false) => self.tile::<S, 2, 1>(s, first),
                    (_, false) => self.tile::<S, 1, 1>(s, first),
                }
            }
        }
    }
}

impl PanelTask<'_> {
    /// The tile whose first row is `first`.
    ///
    /// # Safety
    /// The pointers of rows `first .. first + R` lead to the table's `depth` values; `values` has `V` vectors
    /// at each step.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, s: S, first: usize) {
        let (taps, depth) = (self.table.taps, self.table.depth);
        let mut acc = tile::zeros::<S, R, V>(s);
        let mut b = self.values.as_ptr();
        for tap in 0..taps {
            let sources = &self.table.sources[first * taps + tap * S::TILE_ROWS..][..R];
            let mut a = [self.call.zeros.as_ptr(); R];
            a.copy_from_slice(sources);
            // Zeros add nothing, and a tile all in the padding need not add them.
            if a.iter().any(|&p| p != self.call.zeros.as_ptr()) {
                // SAFETY: the caller's promise.
                unsafe { tile::multiply(s, depth, a, 1, b, self.step, &mut acc) };
            }
            b = b.wrapping_add(depth * self.step);
        }
        let last = (first + R).min(self.table.destinations.len());
        for (row, &pixel) in acc.iter().zip(&self.table.destinations[first..last]) {
            self.store(s, pixel, row);
        }
    }

    /// Adds bias and residual and writes a row of a tile.
    #[inline(always)]
    fn store<S: Simd, const V: usize>(&self, s: S, pixel: usize, row: &[S::F; V]) {
        let product = self.call.product;
        let column = self.panel * TILE_VECTORS * S::LANES;
        let width = product.width - column;
        let start = pixel * product.width + column;
        for (v, &value) in row.iter().enumerate() {
            let n = lanes_of::<S>(width, v);
            let offset = v * S::LANES;
            // A sum of nothing but negative zeros becomes a positive zero: what it is where a skipped tap's zeros were added.
            let mut value = s.add(value, s.zero());
            // SAFETY: `n` values from `column + offset` lie within `width`, and bias, residual and destination
            // were checked to have that width for every pixel; no other task writes these elements.
            unsafe {
                if let Some(bias) = product.bias {
                    let p = bias.as_ptr().add(column + offset);
                    value = s.add(
                        value,
                        if n == S::LANES {
                            s.load(p)
                        } else {
                            s.load_partial(p, n)
                        },
                    );
                }
                if let Some(p) = product.residual.at(self.call.destination, start + offset) {
                    value = s.add(
                        value,
                        if n == S::LANES {
                            s.load(p)
                        } else {
                            s.load_partial(p, n)
                        },
                    );
                }
                let to = self.call.destination.at(start + offset);
                if n == S::LANES {
                    s.store(to, value);
                } else {
                    s.store_partial(to, n, value);
                }
            }
        }
    }
}
