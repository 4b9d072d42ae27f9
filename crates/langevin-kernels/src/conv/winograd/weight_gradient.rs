//! The weight gradient: for each plane, `Σ x[tile, c] · gy[tile, k]` over the tiles, transformed back at the end.
//!
//! Two orders, chosen by the shape. With few tiles both sides are transformed first, and a task owns a block of channels
//! by channels in all planes, so that its sums never leave the second-level cache until they are nine numbers each. With
//! many tiles, transforming all of them first would go through memory: they are cut into slices, and a task takes a slice
//! through all planes, some tiles at a time, with sums of its own, which are added in order at the end.

use super::forward::transform_inputs;
use super::planes::Planes;
use super::product::Product;
use super::tiling::Tiling;
use super::transform::{OUTPUTS, OfGradient, PLANES, ToKernel, both};
use crate::buffer::LINE_VALUES;
use crate::columns::column_sums;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, load, store};
use crate::tile::Left;
use std::ops::Range;

/// Tiles from which on they are cut into slices.
const MANY_TILES: usize = 512;

/// Slices, at most: as many threads have work.
const MOST_SLICES: usize = 8;

/// Slices that are worth cutting.
const LEAST_SLICES: usize = 4;

/// Sums of all slices, at most: 16 MiB.
const SLICE_VALUES: usize = 1 << 22;

/// Tiles of a slice that are transformed at a time.
const SLICE_TILES: usize = 48;

/// Tiles that are multiplied at a time where all are transformed first: a block's values fit into the first-level cache.
const DEPTH: usize = 64;

/// In-channels of a block, at most.
const BLOCK: usize = 64;

/// Tiles that one task transforms, where all are transformed first.
const TASK_TILES: usize = 4;

/// The plane of the transformed `gy` that holds each tile's sum: the second row of `A` is all ones.
const SUMS: usize = 7;

/// What the gradient is made of.
pub(super) struct Gradient<'a> {
    pub tiling: Tiling,
    /// `[batch, height, width, in_channels]`
    pub x: &'a [f32],
    /// `[batch, out height, out width, out_channels]`
    pub gy: &'a [f32],
    pub in_channels: usize,
    pub out_channels: usize,
}

impl Gradient<'_> {
    /// Computes `[3, 3, in_channels, out_channels]`, and the bias's `[out_channels]`. Lengths have been checked by the caller.
    pub(super) fn run(&self, gw: &mut [f32], gb: Option<&mut [f32]>) {
        let isa = Isa::current();
        let tiles = self.tiling.len();
        if tiles == 0 {
            gw.fill(0.0);
            if let Some(gb) = gb {
                gb.fill(0.0);
            }
            return;
        }
        let zeros = Scratch::zeros(self.in_channels.max(self.out_channels));
        let zeros = zeros.values();
        let gw = Shared::new(gw);
        let slices = SLICE_VALUES / (PLANES * self.in_channels * self.out_channels).max(1);
        if tiles >= MANY_TILES && slices >= LEAST_SLICES {
            self.many(isa, slices.min(MOST_SLICES), zeros, gw, gb);
        } else {
            self.few(isa, zeros, gw, gb);
        }
    }

    fn panels(&self, isa: Isa) -> usize {
        self.out_channels.div_ceil(isa.panel_columns())
    }

    fn few(&self, isa: Isa, zeros: &[f32], gw: Shared, gb: Option<&mut [f32]>) {
        let (tiles, panels) = (self.tiling.len(), self.panels(isa));
        let products = tiles * PLANES * self.in_channels * self.out_channels;
        let worth = products >= 2 * parallel::GRAIN_PRODUCTS;
        // Blocks for all threads, and of two panels if there are enough; no sum depends on it.
        let wanted = if worth {
            2 * rayon::current_num_threads()
        } else {
            1
        };
        let mut block = BLOCK.min(self.in_channels.next_multiple_of(isa.lanes()));
        while block > isa.lanes() && self.in_channels.div_ceil(block) * panels < wanted {
            block = (block / 2).next_multiple_of(isa.lanes());
        }
        let sides = Sides::new(isa, self, tiles, block);
        let blocks = self.in_channels.div_ceil(block);
        let group = if blocks * panels >= 4 * wanted { 2 } else { 1 };
        let (mut left, mut right) = (sides.left.scratch(), sides.right.scratch());
        let (to_left, to_right) = (Shared::new(left.values_mut()), Shared::new(right.values_mut()));
        parallel::for_each(tiles.div_ceil(TASK_TILES), worth, |task| {
            let first = task * TASK_TILES;
            isa.run(Transform {
                gradient: self,
                sides,
                zeros,
                tiles: first..tiles.min(first + TASK_TILES),
                first,
                left: to_left,
                right: to_right,
            });
        });
        let groups = panels.div_ceil(group);
        parallel::for_each(blocks * groups, worth, |task| {
            let (block, first) = (task / groups, task % groups * group);
            isa.run(Owner {
                gradient: self,
                isa,
                sides,
                left: left.values(),
                right: right.values(),
                block,
                panels: first..panels.min(first + group),
                gw,
            });
        });
        if let Some(gb) = gb {
            let columns = isa.panel_columns();
            let sums = &right.values()[SUMS * sides.right.step..];
            let mut panel = vec![0.0; columns];
            for (gb, tiles) in gb.chunks_mut(columns).zip(sums.chunks_exact(tiles * columns)) {
                column_sums(tiles, &mut panel);
                gb.copy_from_slice(&panel[..gb.len()]);
            }
        }
    }

    fn many(&self, isa: Isa, slices: usize, zeros: &[f32], gw: Shared, gb: Option<&mut [f32]>) {
        let (tiles, panels) = (self.tiling.len(), self.panels(isa));
        let columns = isa.panel_columns();
        let planes = Planes::new(panels * self.in_channels * columns);
        let (mut sums, width) = (Scratch::new(slices * planes.len()), panels * columns);
        let mut bias = Scratch::zeros(slices * width);
        let (to, to_bias) = (Shared::new(sums.values_mut()), Shared::new(bias.values_mut()));
        parallel::for_each(slices, true, |slice| {
            isa.run(Slice {
                gradient: self,
                isa,
                zeros,
                tiles: slice * tiles / slices..(slice + 1) * tiles / slices,
                planes,
                // SAFETY: each slice has sums of its own.
                sums: unsafe { to.slice(slice * planes.len(), planes.len()) },
                // SAFETY: as above.
                bias: unsafe { to_bias.slice(slice * width, width) },
            });
        });
        if let Some(gb) = gb {
            gb.fill(0.0);
            for bias in bias.values()[..slices * width].chunks_exact(width) {
                gb.iter_mut().zip(bias).for_each(|(gb, bias)| *gb += bias);
            }
        }
        const CHUNK: usize = 8;
        let chunks = self.in_channels.div_ceil(CHUNK);
        parallel::for_each(panels * chunks, true, |task| {
            let (panel, first) = (task / chunks, task % chunks * CHUNK);
            isa.run(Finish {
                gradient: self,
                sums: sums.values(),
                slices,
                planes,
                start: (panel * self.in_channels + first) * columns,
                channels: first..self.in_channels.min(first + CHUNK),
                panel,
                gw,
            });
        });
    }
}

/// How both sides lie once transformed: `x` as `[planes, blocks of in-channels, tiles, block]`, `gy` as `[planes, panels, tiles,
/// panel columns]`, so that a product reads either from its beginning to its end.
#[derive(Clone, Copy)]
struct Sides {
    tiles: usize,
    block: usize,
    left: Planes,
    right: Planes,
}

impl Sides {
    /// For `tiles` tiles and blocks of `block` in-channels, whole vectors.
    fn new(isa: Isa, gradient: &Gradient, tiles: usize, block: usize) -> Self {
        Self {
            tiles,
            block,
            left: Planes::new(gradient.in_channels.next_multiple_of(block) * tiles),
            right: Planes::new(gradient.panels(isa) * isa.panel_columns() * tiles),
        }
    }
}

/// Transforms both sides of some tiles, of which tile `t` becomes number `t − tiles.start + first`.
struct Transform<'a> {
    gradient: &'a Gradient<'a>,
    sides: Sides,
    zeros: &'a [f32],
    tiles: Range<usize>,
    first: usize,
    left: Shared<'a>,
    right: Shared<'a>,
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { gradient, sides, .. } = self;
        let Sides {
            block,
            left,
            right,
            tiles,
        } = sides;
        let columns = S::PANEL_VECTORS * S::LANES;
        assert!(self.first + self.tiles.len() <= tiles, "room for the tiles");
        let (to_left, _end) = (self.left.at(0), self.left.at(left.len()));
        let (to_right, _end) = (self.right.at(0), self.right.at(right.len()));
        let inputs_of = |tile| {
            gradient
                .tiling
                .inputs(tile, gradient.x, gradient.in_channels, self.zeros)
        };
        let outputs_of = |tile| {
            let pixels = gradient.tiling.outputs(tile);
            let pixel = |i: usize| pixels.pixel(i / OUTPUTS, i % OUTPUTS);
            std::array::from_fn(|i| match pixel(i) {
                Some(pixel) => gradient.gy[pixel * gradient.out_channels..][..gradient.out_channels].as_ptr(),
                None => self.zeros.as_ptr(),
            })
        };
        let last = self.tiles.end - 1;
        let (mut next, mut next_outputs) = (inputs_of(self.tiles.start), outputs_of(self.tiles.start));
        for (i, tile) in self.tiles.enumerate() {
            let i = self.first + i;
            let (inputs, outputs): (_, [*const f32; OUTPUTS * OUTPUTS]) = (next, next_outputs);
            (next, next_outputs) = (inputs_of(last.min(tile + 1)), outputs_of(last.min(tile + 1)));
            // SAFETY: the pointers lead to a pixel's channels or to as many zeros. Every block of whole vectors has a
            // row for this tile in each plane, and so has every panel; no other task writes them.
            unsafe {
                transform_inputs(
                    s,
                    &inputs,
                    &next,
                    gradient.in_channels,
                    #[inline(always)]
                    |plane, channel, value| {
                        let at = (channel / block * tiles + i) * block + channel % block;
                        s.store(to_left.add(plane * left.step + at), value);
                    },
                );
                for channel in (0..gradient.out_channels).step_by(S::LANES) {
                    let n = S::LANES.min(gradient.out_channels - channel);
                    let at = (channel / columns * tiles + i) * columns + channel % columns;
                    if channel.is_multiple_of(LINE_VALUES) {
                        next_outputs
                            .iter()
                            .for_each(|next| s.prefetch(next.wrapping_add(channel)));
                    }
                    both::<S, OfGradient, 4, 6>(
                        s,
                        #[inline(always)]
                        |i, j| load(s, outputs[i * OUTPUTS + j].add(channel), n),
                        #[inline(always)]
                        |i, j, value| s.store(to_right.add((i * 6 + j) * right.step + at), value),
                    );
                }
            }
        }
    }
}

/// A block of in-channels by some panels of out-channels, over all tiles.
struct Owner<'a> {
    gradient: &'a Gradient<'a>,
    isa: Isa,
    sides: Sides,
    left: &'a [f32],
    right: &'a [f32],
    block: usize,
    panels: Range<usize>,
    gw: Shared<'a>,
}

impl Kernel for Owner<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { gradient, sides, .. } = self;
        let Sides {
            block,
            left,
            right,
            tiles,
        } = sides;
        let columns = S::PANEL_VECTORS * S::LANES;
        let first = self.block * block;
        let rows = block.min(gradient.in_channels - first);
        let planes = Planes::new(self.panels.len() * rows * columns);
        let mut sums = planes.scratch();
        for plane in 0..PLANES {
            for start in (0..tiles).step_by(DEPTH) {
                for (i, panel) in self.panels.clone().enumerate() {
                    let product = Product {
                        rows,
                        depth: DEPTH.min(tiles - start),
                        vectors: gradient.vectors::<S>(panel),
                        a: Left {
                            start: self.left[plane * left.step + (self.block * tiles + start) * block..]
                                .as_ptr(),
                            row: 1,
                            column: block,
                        },
                        b: self.right[plane * right.step + (panel * tiles + start) * columns..].as_ptr(),
                        b_panel: 0,
                        c: sums.values_mut()[plane * planes.step + i * rows * columns..].as_mut_ptr(),
                        c_row: columns,
                        accumulate: start > 0,
                    };
                    // SAFETY: `Sides` has rows of a block and of a panel for every tile, and the sums one for every
                    // in-channel of the block.
                    unsafe { product.run(self.isa) };
                }
            }
        }
        for (i, panel) in self.panels.clone().enumerate() {
            self.isa.run(Finish {
                gradient,
                sums: sums.values(),
                slices: 1,
                planes,
                start: i * rows * columns,
                channels: first..first + rows,
                panel,
                gw: self.gw,
            });
        }
    }
}

impl Gradient<'_> {
    /// Vectors of a panel that hold out-channels.
    fn vectors<S: Simd>(&self, panel: usize) -> usize {
        let columns = self.out_channels - panel * S::PANEL_VECTORS * S::LANES;
        columns.div_ceil(S::LANES).min(S::PANEL_VECTORS)
    }
}

/// All channels, over some tiles: `[planes, panels, in_channels, panel columns]`.
struct Slice<'a> {
    gradient: &'a Gradient<'a>,
    isa: Isa,
    zeros: &'a [f32],
    tiles: Range<usize>,
    planes: Planes,
    sums: &'a mut [f32],
    /// `[panels, panel columns]`, zero at first: sums of `gy`.
    bias: &'a mut [f32],
}

impl Kernel for Slice<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { gradient, isa, .. } = self;
        let columns = S::PANEL_VECTORS * S::LANES;
        let channels = gradient.in_channels;
        let block = channels.next_multiple_of(S::LANES);
        let sides = Sides::new(isa, gradient, SLICE_TILES, block);
        let (mut left, mut right) = (sides.left.scratch(), sides.right.scratch());
        for start in self.tiles.clone().step_by(SLICE_TILES) {
            let tiles = start..self.tiles.end.min(start + SLICE_TILES);
            let depth = tiles.len();
            isa.run(Transform {
                gradient,
                sides,
                zeros: self.zeros,
                tiles,
                first: 0,
                left: Shared::new(left.values_mut()),
                right: Shared::new(right.values_mut()),
            });
            for plane in 0..PLANES {
                for panel in 0..gradient.panels(isa) {
                    let product = Product {
                        rows: channels,
                        depth,
                        vectors: gradient.vectors::<S>(panel),
                        a: Left {
                            start: left.values()[plane * sides.left.step..].as_ptr(),
                            row: 1,
                            column: block,
                        },
                        b: right.values()[plane * sides.right.step + panel * SLICE_TILES * columns..]
                            .as_ptr(),
                        b_panel: 0,
                        c: self.sums[plane * self.planes.step + panel * channels * columns..].as_mut_ptr(),
                        c_row: columns,
                        accumulate: start > self.tiles.start,
                    };
                    // SAFETY: `Sides` has rows of all in-channels and of a panel for every tile, and the sums one for
                    // every in-channel.
                    unsafe { product.run(isa) };
                }
            }
            for panel in 0..gradient.panels(isa) {
                let start = SUMS * sides.right.step + panel * SLICE_TILES * columns;
                let values = &right.values()[start..][..depth * columns];
                let bias = &mut self.bias[panel * columns..][..columns];
                for vector in 0..gradient.vectors::<S>(panel) {
                    let mut sum = s.zero();
                    for row in values.chunks_exact(columns) {
                        // SAFETY: a row has the panel's vectors; so has the bias.
                        sum = s.add(sum, unsafe { s.load(row.as_ptr().add(vector * S::LANES)) });
                    }
                    // SAFETY: as above.
                    unsafe {
                        let to = bias.as_mut_ptr().add(vector * S::LANES);
                        s.store(to, s.add(s.load(to), sum));
                    }
                }
            }
        }
    }
}

/// Adds the slices' sums of some in-channels and a panel, and transforms them back.
struct Finish<'a> {
    gradient: &'a Gradient<'a>,
    /// `[slices, planes, ..]`
    sums: &'a [f32],
    slices: usize,
    planes: Planes,
    /// Where in a plane the first in-channel's row begins.
    start: usize,
    channels: Range<usize>,
    panel: usize,
    gw: Shared<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = S::PANEL_VECTORS * S::LANES;
        let Gradient {
            in_channels,
            out_channels,
            ..
        } = *self.gradient;
        assert!(
            self.sums.len() >= self.slices * self.planes.len()
                && self.start + self.channels.len() * columns <= self.planes.step,
            "sums of every channel"
        );
        let first = self.panel * columns;
        for (row, channel) in self.channels.clone().enumerate() {
            for column in (first..out_channels.min(first + columns)).step_by(S::LANES) {
                let n = S::LANES.min(out_channels - column);
                let sums = self.sums[self.start + row * columns + column - first..].as_ptr();
                // SAFETY: every plane of every slice was just found to have this vector; `n` out-channels from `column`
                // on are there, and no other task writes them.
                unsafe {
                    both::<S, ToKernel, 6, 3>(
                        s,
                        #[inline(always)]
                        |i, j| {
                            let sums = sums.add((i * 6 + j) * self.planes.step);
                            let mut total = s.load(sums);
                            for slice in 1..self.slices {
                                total = s.add(total, s.load(sums.add(slice * self.planes.len())));
                            }
                            total
                        },
                        #[inline(always)]
                        |i, j, value| {
                            let at = ((i * 3 + j) * in_channels + channel) * out_channels + column;
                            store(s, self.gw.at(at), n, value);
                        },
                    );
                }
            }
        }
    }
}
