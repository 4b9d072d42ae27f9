//! Outputs, and the input's gradient, which is the same with turned kernels.
//!
//! Two orders, with the same sums. With many tiles a task takes a block of them through all three steps, so that its
//! transformed inputs stay near; the transformed kernels, made once for all tasks, stream by. With few tiles there are more
//! kernels than pictures: then the inputs are transformed once for all tasks, and a task takes some out-channels and
//! transforms their kernels chunk by chunk, so that those never leave the second-level cache.

use super::super::Residual;
use super::kernels::{DEPTH_CHUNK, Kernels, Pack, Packed};
use super::planes::Planes;
use super::product::Product;
use super::tiling::Tiling;
use super::transform::{OUTPUTS, OfInput, PLANES, ToOutput, both};
use crate::buffer::LINE_VALUES;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, load, store};
use crate::tile::Left;
use std::ops::Range;

/// Tiles up to which kernels are transformed by the task that uses them, where there are panels enough for all threads.
const FEW_TILES: usize = 64;

/// Tiles of a block: four register tiles, which read a panel's kernels while they are in the first-level cache.
const BLOCK: usize = 24;

/// Out-channels of a group, about: as many products of a block are kept at a time.
const GROUP_COLUMNS: usize = 64;

/// Sums of a plane that a group has, and transformed kernels, at most: 36 times as many are 295 KB, which the second-level cache
/// holds.
const GROUP_VALUES: usize = 2048;

/// Tiles whose inputs one task transforms, where inputs are transformed first.
const INPUT_TILES: usize = 4;

/// What a pass reads.
pub(super) struct Layer<'a> {
    pub tiling: Tiling,
    /// `[batch, source height, source width, depth]`
    pub source: &'a [f32],
    pub kernels: Kernels<'a>,
    /// `[width]`
    pub bias: Option<&'a [f32]>,
    /// `[batch, destination height, destination width, width]`
    pub residual: Residual<'a>,
}

impl Layer<'_> {
    /// Computes `[batch, destination height, destination width, width]`. Lengths have been checked by the caller.
    pub(super) fn run(&self, destination: Shared) {
        let isa = Isa::current();
        let (tiles, panels) = (self.tiling.len(), self.kernels.panels(isa));
        if tiles == 0 {
            return;
        }
        let products = tiles * PLANES * self.kernels.depth() * self.kernels.width();
        let worth = products >= 2 * parallel::GRAIN_PRODUCTS;
        let threads = if worth { rayon::current_num_threads() } else { 1 };
        let zeros = Scratch::zeros(self.kernels.depth());
        let zeros = &zeros.values()[..self.kernels.depth()];
        if tiles <= FEW_TILES && panels >= threads {
            self.few(isa, worth, zeros, destination);
            return;
        }
        let kernels = self.kernels.pack(isa);
        // A block for every thread at least, and no smaller than a register tile.
        let block = BLOCK.min(tiles.div_ceil(2 * threads).next_multiple_of(6));
        parallel::for_each(tiles.div_ceil(block), worth, |task| {
            isa.run(Block {
                layer: self,
                isa,
                kernels: &kernels,
                tiles: task * block..tiles.min((task + 1) * block),
                zeros,
                destination,
            });
        });
    }

    fn few(&self, isa: Isa, worth: bool, zeros: &[f32], destination: Shared) {
        let (tiles, panels) = (self.tiling.len(), self.kernels.panels(isa));
        let row = self.kernels.depth().next_multiple_of(isa.lanes());
        let planes = Planes::new(tiles * row);
        let mut inputs = planes.scratch();
        let to = Shared::new(inputs.values_mut());
        parallel::for_each(tiles.div_ceil(INPUT_TILES), worth, |task| {
            let first = task * INPUT_TILES;
            isa.run(Inputs {
                layer: self,
                tiles: first..tiles.min(first + INPUT_TILES),
                zeros,
                to,
                start: first * row,
                planes,
            });
        });
        // As many panels at a time as leave work for all threads: a task then reads whole stretches of weights.
        let most =
            (GROUP_VALUES / (tiles * isa.panel_columns())).clamp(1, GROUP_COLUMNS / isa.panel_columns() * 2);
        let group = (panels / (2 * rayon::current_num_threads())).clamp(1, most);
        parallel::for_each(panels.div_ceil(group), worth, |task| {
            isa.run(Group {
                layer: self,
                isa,
                inputs: inputs.values(),
                planes,
                panels: task * group..panels.min((task + 1) * group),
                destination,
            });
        });
    }

    /// Vectors of a panel that hold channels of the result.
    fn vectors<S: Simd>(&self, panel: usize) -> usize {
        let columns = self.kernels.width() - panel * S::PANEL_VECTORS * S::LANES;
        columns.div_ceil(S::LANES).min(S::PANEL_VECTORS)
    }
}

/// Transforms some tiles' inputs: `[planes, tiles, depth rounded up to whole vectors]` from `start` on.
struct Inputs<'a> {
    layer: &'a Layer<'a>,
    tiles: Range<usize>,
    zeros: &'a [f32],
    to: Shared<'a>,
    start: usize,
    planes: Planes,
}

impl Kernel for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let depth = self.layer.kernels.depth();
        let row = depth.next_multiple_of(S::LANES);
        let end = self.start + self.planes.len() - self.planes.step + self.tiles.len() * row;
        let (to, _end) = (self.to.at(self.start), self.to.at(end));
        let inputs_of = |tile| {
            let layer = self.layer;
            layer.tiling.inputs(tile, layer.source, depth, self.zeros)
        };
        let last = self.tiles.end - 1;
        let mut next = inputs_of(self.tiles.start);
        for (i, tile) in self.tiles.enumerate() {
            let inputs = next;
            next = inputs_of(last.min(tile + 1));
            // SAFETY: every pointer leads to `depth` values, and each plane has a row for each tile, of which the last
            // was found to be within `to`.
            unsafe {
                transform_inputs(
                    s,
                    &inputs,
                    &next,
                    depth,
                    #[inline(always)]
                    |plane, channel, value| {
                        s.store(to.add(plane * self.planes.step + i * row + channel), value)
                    },
                );
            }
        }
    }
}

/// Transforms a tile's inputs; `store(plane, channel, value)` is called for each vector of channels. Asks for the inputs of the `next`
/// tile meanwhile: its neighbour to the right, mostly, which shares the first columns.
///
/// # Safety
/// Every pointer leads to `channels` values.
#[inline(always)]
pub(super) unsafe fn transform_inputs<S: Simd>(
    s: S,
    inputs: &[*const f32; PLANES],
    next: &[*const f32; PLANES],
    channels: usize,
    mut store: impl FnMut(usize, usize, S::F),
) {
    for channel in (0..channels).step_by(S::LANES) {
        let n = S::LANES.min(channels - channel);
        both::<S, OfInput, 6, 6>(
            s,
            #[inline(always)]
            // SAFETY: the caller's promise.
            |i, j| unsafe { load(s, inputs[i * 6 + j].add(channel), n) },
            #[inline(always)]
            |i, j, value| {
                if channel.is_multiple_of(LINE_VALUES) {
                    s.prefetch(next[i * 6 + j].wrapping_add(channel));
                }
                store(i * 6 + j, channel, value);
            },
        );
    }
}

/// All three steps for a block of tiles.
struct Block<'a> {
    layer: &'a Layer<'a>,
    isa: Isa,
    kernels: &'a Packed,
    tiles: Range<usize>,
    zeros: &'a [f32],
    destination: Shared<'a>,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { layer, isa, .. } = self;
        let columns = S::PANEL_VECTORS * S::LANES;
        let (depth, tiles) = (layer.kernels.depth(), self.tiles.len());
        let row = depth.next_multiple_of(S::LANES);
        let planes = Planes::new(tiles * row);
        let mut inputs = planes.scratch();
        isa.run(Inputs {
            layer,
            tiles: self.tiles.clone(),
            zeros: self.zeros,
            to: Shared::new(inputs.values_mut()),
            start: 0,
            planes,
        });
        let group = (GROUP_COLUMNS / columns).max(1);
        let products = Planes::new(tiles * group * columns);
        let mut sums = products.scratch();
        let panels = layer.kernels.panels(isa);
        assert!(self.kernels.values.values().len() >= self.kernels.planes.len());
        for first in (0..panels).step_by(group) {
            let group = group.min(panels - first);
            for plane in 0..PLANES {
                for panel in first..first + group {
                    let kernels = plane * self.kernels.planes.step + panel * depth * columns;
                    let product = Product {
                        rows: tiles,
                        depth,
                        vectors: layer.vectors::<S>(panel),
                        a: Left {
                            start: inputs.values()[plane * planes.step..].as_ptr(),
                            row,
                            column: 1,
                        },
                        b: self.kernels.values.values()[kernels..].as_ptr(),
                        b_panel: 0,
                        c: sums.values_mut()[plane * products.step + (panel - first) * columns..]
                            .as_mut_ptr(),
                        c_row: group * columns,
                        accumulate: false,
                    };
                    // SAFETY: each plane has `tiles` rows of inputs and of sums, and a panel `depth` rows.
                    unsafe { product.run(isa) };
                }
            }
            let output = Outputs {
                layer,
                sums: sums.values(),
                row: group * columns,
                planes: products,
                columns: first * columns..layer.kernels.width().min((first + group) * columns),
                destination: self.destination,
            };
            for (i, tile) in self.tiles.clone().enumerate() {
                if tile + 1 < self.tiles.end {
                    output.ask(s, tile + 1);
                }
                output.write(s, i, tile);
            }
        }
    }
}

/// The last two steps for all tiles and some panels.
struct Group<'a> {
    layer: &'a Layer<'a>,
    isa: Isa,
    /// Transformed.
    inputs: &'a [f32],
    planes: Planes,
    panels: Range<usize>,
    destination: Shared<'a>,
}

impl Kernel for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { layer, isa, .. } = self;
        let columns = S::PANEL_VECTORS * S::LANES;
        let (depth, tiles, group) = (layer.kernels.depth(), layer.tiling.len(), self.panels.len());
        let row = depth.next_multiple_of(S::LANES);
        let chunk_depth = (GROUP_VALUES / (group * columns))
            .clamp(1, DEPTH_CHUNK)
            .min(depth);
        let panel_step = chunk_depth * columns;
        let kernel_planes = Planes::new(group * panel_step);
        let mut kernels = kernel_planes.scratch();
        let products = Planes::new(tiles * group * columns);
        let mut sums = products.scratch();
        // A row or two alone would leave the multipliers waiting for each other's sums.
        let at_once = if tiles <= 3 { 2 } else { 1 };
        for start in (0..depth).step_by(chunk_depth) {
            let chunk = start..depth.min(start + chunk_depth);
            isa.run(Pack {
                kernels: &layer.kernels,
                depth: chunk.clone(),
                panels: self.panels.clone(),
                to: Shared::new(kernels.values_mut()),
                start: 0,
                panel_step,
                planes: kernel_planes,
            });
            for plane in 0..PLANES {
                let mut i = 0;
                while i < group {
                    let (panel, whole) = (self.panels.start + i, S::PANEL_VECTORS);
                    let pair = at_once == 2 && i + 1 < group;
                    let product = Product {
                        rows: tiles,
                        depth: chunk.len(),
                        vectors: if pair {
                            2 * whole
                        } else {
                            layer.vectors::<S>(panel)
                        },
                        a: Left {
                            start: self.inputs[plane * self.planes.step + start..].as_ptr(),
                            row,
                            column: 1,
                        },
                        b: kernels.values()[plane * kernel_planes.step + i * panel_step..].as_ptr(),
                        b_panel: panel_step,
                        c: sums.values_mut()[plane * products.step + i * columns..].as_mut_ptr(),
                        c_row: group * columns,
                        accumulate: start > 0,
                    };
                    // SAFETY: each plane has `tiles` rows of inputs and of sums, and a panel's chunk its rows; a pair of
                    // panels fills all of its columns, there with zeros beyond the result's channels.
                    unsafe { product.run(isa) };
                    i += if pair { 2 } else { 1 };
                }
            }
        }
        let output = Outputs {
            layer,
            sums: sums.values(),
            row: group * columns,
            planes: products,
            columns: self.panels.start * columns..layer.kernels.width().min(self.panels.end * columns),
            destination: self.destination,
        };
        for tile in 0..tiles {
            if tile + 1 < tiles {
                output.ask(s, tile + 1);
            }
            output.write(s, tile, tile);
        }
    }
}

/// The last step: from sums to outputs.
struct Outputs<'a> {
    layer: &'a Layer<'a>,
    /// `[planes, tiles, row]`
    sums: &'a [f32],
    row: usize,
    planes: Planes,
    /// The channels of the result that `sums` holds.
    columns: Range<usize>,
    destination: Shared<'a>,
}

impl Outputs<'_> {
    /// Asks for the cache lines that [`Self::write`] will fill: a store to a line that is not there waits for it.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, tile: usize) {
        let width = self.layer.kernels.width();
        let outputs = self.layer.tiling.outputs(tile);
        for pixel in (0..OUTPUTS * OUTPUTS).filter_map(|i| outputs.pixel(i / OUTPUTS, i % OUTPUTS)) {
            for column in self.columns.clone().step_by(LINE_VALUES) {
                s.prefetch(self.destination.at(pixel * width + column));
            }
        }
    }

    /// Writes tile `tile`, which is number `i` of `sums`, with bias and residual.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, i: usize, tile: usize) {
        let Layer { bias, residual, .. } = *self.layer;
        let width = self.layer.kernels.width();
        let outputs = self.layer.tiling.outputs(tile);
        assert!(
            (i + 1) * self.row <= self.planes.step && self.sums.len() >= self.planes.len(),
            "sums of every tile"
        );
        for column in self.columns.clone().step_by(S::LANES) {
            let n = S::LANES.min(self.columns.end - column);
            let sums = self.sums[i * self.row + column - self.columns.start..].as_ptr();
            // SAFETY: rows hold whole vectors, and the planes were just found to have this row; of bias, residual and
            // destination there are `n` channels from `column` on for each pixel, as the caller of `Layer::run` checked; no
            // other task writes these.
            unsafe {
                let added = bias.map_or(s.zero(), |bias| load(s, bias.as_ptr().add(column), n));
                both::<S, ToOutput, 6, 4>(
                    s,
                    #[inline(always)]
                    |i, j| s.load(sums.add((i * 6 + j) * self.planes.step)),
                    #[inline(always)]
                    |i, j, value| {
                        let Some(pixel) = outputs.pixel(i, j) else { return };
                        let to = pixel * width + column;
                        let mut value = s.add(value, added);
                        if let Some(residual) = residual.at(self.destination, to) {
                            value = s.add(value, load(s, residual, n));
                        }
                        store(s, self.destination.at(to), n, value);
                    },
                );
            }
        }
    }
}
