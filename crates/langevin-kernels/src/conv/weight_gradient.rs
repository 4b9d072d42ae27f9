//! The weight gradient: for each tap, a matrix product that sums over pixels.
//!
//! `gw[tap, c, k] = Σ x[pixel + tap, c] · gy[pixel, k]`. A register tile holds some channels of `x` (its rows, the left
//! matrix) by a panel's channels of `gy` (its columns, the right one). A task owns a few tiles and all taps; it goes
//! through the pixels chunk by chunk, packs each chunk's values of its own channels so that tiles stream contiguous
//! memory (each packed value is used once for each tap and tile, so packing is cheap), and multiplies runs of pixels
//! between which no padding lies: padded taps cost nothing.
//!
//! Where the result is too small to occupy many threads, pixels are also cut into slices with sums of their own, which are
//! added in order at the end. The cut depends on the shape alone, as do the chunks.
//!
//! Two cases change roles. With few in-channels, left rows are pairs of tap and channel (im2col, chunk by chunk). With few
//! out-channels, `gy` is the left matrix and the result is stored transposed.

use super::Conv2dShape;
use super::chunk::Chunks;
use super::weight_task::{Layer, Roles, Task};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};

/// Tasks into which a layer is cut, if it is large enough.
const TASKS: usize = 16;

/// Chunks that a slice has at least.
const SLICE_CHUNKS: usize = 4;

/// Left tiles that a task has at most: with a chunk's pixels 256 KiB, which the second-level cache holds.
const MOST_TILES: usize = 32;

/// Left tiles that a task has at least, if it has not all: each packs the right side once more.
const LEAST_TILES: usize = 4;

/// In-channels below which taps and channels together make the rows.
const FEW_IN: usize = 8;

/// Out-channels up to which the roles change.
const FEW_OUT: usize = 4;

/// Computes `gw`; the slices' lengths have been checked.
pub(super) fn weight_gradient(shape: &Conv2dShape, x: &[f32], gy: &[f32], gw: &mut [f32]) {
    let isa = Isa::current();
    let shape = &flat(shape);
    let taps = shape.taps();
    let roles = if shape.out_channels <= FEW_OUT && shape.in_channels > FEW_OUT {
        Roles::Swapped
    } else if shape.in_channels < FEW_IN && taps > 1 {
        Roles::Expanded
    } else {
        Roles::Plain
    };
    let (rows, columns) = match roles {
        Roles::Plain => (shape.in_channels, shape.out_channels),
        Roles::Expanded => (shape.in_channels * taps, shape.out_channels),
        Roles::Swapped => (shape.out_channels, shape.in_channels),
    };
    if gw.is_empty() {
        return;
    }
    if x.is_empty() || gy.is_empty() {
        gw.fill(0.0);
        return;
    }
    let chunks = Chunks::new(shape);
    let tiles = rows.div_ceil(isa.tile_rows());
    let panels = columns.div_ceil(isa.tile_columns());
    // Packed values are used once for each tap and each tile or panel of the other side: without many taps a task needs
    // more tiles and panels to make packing cheap.
    let (panels_each, least_tiles) = if taps > 4 { (2, 4) } else { (4, 16) };
    let panel_groups = panels.div_ceil(panels_each);
    let tile_groups = TASKS
        .div_ceil(panel_groups)
        .min(tiles.div_ceil(least_tiles))
        .max(tiles.div_ceil(MOST_TILES));
    let tiles_each = tiles.div_ceil(tile_groups);
    let tile_groups = tiles.div_ceil(tiles_each);
    let parts = panel_groups * tile_groups;
    let slices = (TASKS / parts).min(chunks.list.len() / SLICE_CHUNKS).max(1);

    let products = gy.len() * taps * shape.in_channels;
    let worth = products > 2 * parallel::GRAIN_PRODUCTS;
    // Work for all threads; no sum depends on it.
    let wanted = if worth {
        (products / parallel::GRAIN_PRODUCTS).min(2 * rayon::current_num_threads())
    } else {
        1
    };
    let tiles_each = tiles_each
        .div_ceil(wanted.div_ceil(slices * parts))
        .max(LEAST_TILES)
        .min(tiles_each);
    let tile_groups = tiles.div_ceil(tiles_each);
    let parts = panel_groups * tile_groups;
    let len = gw.len();
    let mut partial = Scratch::new(if slices > 1 { slices * len } else { 0 });
    let sums = Shared::new(if slices > 1 {
        partial.values_mut()
    } else {
        &mut *gw
    });
    let layer = Layer {
        shape,
        x,
        gy,
        roles,
        rows,
        columns,
        chunks: &chunks,
    };
    parallel::for_each(slices * parts, worth, |task| {
        let (slice, part) = (task / parts, task % parts);
        let tile = part / panel_groups * tiles_each;
        let panel = part % panel_groups * panels_each;
        let count = chunks.list.len();
        isa.run(Task {
            layer: &layer,
            chunks: &chunks.list[slice * count / slices..(slice + 1) * count / slices],
            tiles: tile..(tile + tiles_each).min(tiles),
            panels: panel..(panel + panels_each).min(panels),
            sums,
            offset: slice * len,
        });
    });
    if slices > 1 {
        add_slices(isa, &partial.values()[..slices * len], gw);
    }
}

/// A 1x1 convolution as a linear layer: pixels are pictures of their own, and runs are long.
fn flat(shape: &Conv2dShape) -> Conv2dShape {
    let plain = shape.kernel == [1, 1] && shape.stride == [1, 1] && shape.padding == [[0, 0], [0, 0]];
    if plain {
        Conv2dShape {
            batch: 1,
            height: 1,
            width: shape.batch * shape.height * shape.width,
            ..*shape
        }
    } else {
        *shape
    }
}

/// `to = Σ slices`, in their order.
fn add_slices(isa: Isa, slices: &[f32], to: &mut [f32]) {
    struct Sum<'a>(&'a [f32], usize, usize, &'a mut [f32]);
    impl Kernel for Sum<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, _: S) {
            let Self(slices, len, start, to) = self;
            to.copy_from_slice(&slices[start..][..to.len()]);
            for slice in slices.chunks_exact(len).skip(1) {
                to.iter_mut()
                    .zip(&slice[start..])
                    .for_each(|(to, from)| *to += from);
            }
        }
    }
    let (len, shared) = (to.len(), Shared::new(to));
    let tasks = len.div_ceil(parallel::GRAIN);
    parallel::for_each(tasks, true, |task| {
        let start = task * parallel::GRAIN;
        // SAFETY: each task has a range of its own.
        let to = unsafe { shared.slice(start, parallel::GRAIN.min(len - start)) };
        isa.run(Sum(slices, len, start, to));
    });
}
