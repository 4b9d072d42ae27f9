//! How a product is split into tasks, and which kernel computes them.
//!
//! Loop order: a task takes a chunk of rows, small enough that their source pixels stay in the second-level cache, and some
//! panels of weights; for each panel (which streams from the second-level cache) it computes tile after tile. Every
//! element is one chain of multiply-adds over taps and then channels, whatever the split.

use super::gather::{Axis, Rows};
use super::narrow::Narrow;
use super::panels::Weights;
use super::product::{Call, PanelTask, Product, Table};
use crate::Stored;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::Isa;

/// Up to this width of a map, tiles take one pixel of several pictures: see [`Rows`].
const SMALL_MAP: usize = 32;

/// Values of the source that a chunk of rows covers at most: 128 KiB, a part of the second-level cache.
const CHUNK_VALUES: usize = 32_768;

/// Below this many channels a tap's loop is too short, and rows are copied together instead (im2col, one chunk at a time).
const SHORT_DEPTH: usize = 8;

impl Product<'_> {
    /// Computes the destination pixels of the class `y` times `x`. The slices' lengths have been checked by the
    /// caller against the shape from which the axes were made.
    pub(super) fn run(&self, y: &Axis, x: &Axis, destination: Shared) {
        let isa = Isa::current();
        let taps: Vec<usize> = y
            .taps
            .iter()
            .flat_map(|ty| x.taps.iter().map(move |tx| ty * self.kernel_width + tx))
            .collect();
        let small = taps.len() > 1 && x.positions.len() <= SMALL_MAP;
        let rows = Rows {
            y,
            x,
            batch: self.batch,
            source: self.source_size,
            destination: self.destination_size,
            block: if small { isa.tile_rows() } else { 1 },
        };
        if rows.len() == 0 || self.width == 0 {
            return;
        }
        let weights = Weights {
            values: self.weight,
            taps: &taps,
            depth: self.depth,
            width: self.width,
            transposed: self.transposed,
        };
        let split = Split::new(isa, &rows, &weights);
        let zeros = Scratch::zeros(self.depth);
        let zeros = &zeros.values()[..self.depth];
        let call = Call {
            isa,
            product: self,
            rows: &rows,
            is_plain: rows.is_plain(),
            zeros,
            destination,
        };
        if Narrow::suits(isa, self.depth, self.width) {
            let narrow = Narrow::new(&weights);
            parallel::for_each(split.chunks, split.worth, |chunk| {
                let (first, last) = split.rows(chunk);
                let table = Table::new(&call, first, last, false);
                narrow.run(&call, &table);
            });
            return;
        }
        // Packed before the tasks where several of them share a panel, and otherwise by the task that uses it. For
        // a handful of rows each weight is used once or twice, and copying it would cost more than reading it in place.
        // What is to be widened is packed all the same.
        let is_small = rows.len() <= 2 * isa.tile_rows() && self.width.is_multiple_of(isa.lanes());
        let in_place = match self.weight {
            Stored::Float32(weight) if is_small && !self.transposed => Some(weight),
            _ => None,
        };
        let packed = (split.chunks > 1).then(|| weights.pack(isa));
        let packed = packed.as_ref().map(|panels| panels.values());
        let run = |task: usize| {
            let (first, last) = split.rows(task % split.chunks);
            let group = task / split.chunks;
            let table = Table::new(&call, first, last, taps.len() > 1 && self.depth < SHORT_DEPTH);
            let panels = group * split.group..((group + 1) * split.group).min(split.panels);
            let len = weights.panel_len(isa);
            let mut own = Scratch::new(if packed.is_none() && in_place.is_none() {
                len
            } else {
                0
            });
            for panel in panels {
                let (values, step) = match (packed, in_place) {
                    (Some((values, len)), _) => (&values[panel * len..][..len], isa.tile_columns()),
                    (None, Some(weight)) => (&weight[panel * isa.tile_columns()..], self.width),
                    (None, None) => {
                        let own = &mut own.values_mut()[..len];
                        for (tap, to) in own.chunks_exact_mut((len / taps.len().max(1)).max(1)).enumerate() {
                            weights.pack_tap(isa, panel, tap, to);
                        }
                        (&*own, isa.tile_columns())
                    }
                };
                isa.run(PanelTask {
                    call: &call,
                    table: &table,
                    panel,
                    values,
                    step,
                });
            }
        };
        parallel::for_each(split.chunks * split.groups, split.worth, run);
    }
}

/// How rows and panels are split into tasks. It may depend on the number of threads, since no sum does on it.
struct Split {
    total: usize,
    chunk: usize,
    chunks: usize,
    panels: usize,
    group: usize,
    groups: usize,
    worth: bool,
}

impl Split {
    fn new(isa: Isa, rows: &Rows, weights: &Weights) -> Self {
        let (total, panels, tile) = (rows.len(), weights.panels(isa), isa.tile_rows());
        let products = total * weights.taps.len() * weights.depth * weights.width;
        let worth = products >= 2 * parallel::GRAIN_PRODUCTS;
        let wanted = if worth {
            (products / parallel::GRAIN_PRODUCTS).min(4 * rayon::current_num_threads())
        } else {
            1
        };
        let limit = (CHUNK_VALUES / weights.depth.max(1)).clamp(4 * tile, 512);
        // Enough chunks for all threads where there are few panels.
        let even = total.div_ceil(wanted.div_ceil(panels));
        let chunk = limit.min(even).next_multiple_of(tile);
        let chunks = total.div_ceil(chunk);
        let group = panels.div_ceil(wanted.div_ceil(chunks).min(panels));
        Self {
            total,
            chunk,
            chunks,
            panels,
            group,
            groups: panels.div_ceil(group),
            worth,
        }
    }

    fn rows(&self, chunk: usize) -> (usize, usize) {
        (chunk * self.chunk, ((chunk + 1) * self.chunk).min(self.total))
    }
}
