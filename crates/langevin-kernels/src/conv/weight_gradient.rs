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
use super::chunk::{Chunk, Pixels, chunks, largest};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, TILE_VECTORS};
use crate::tile::{self, Tile, lanes_of, pack_rows};

/// Tasks into which a layer is cut, if it is large enough.
const TASKS: usize = 16;

/// Chunks that a slice has at least.
const SLICE_CHUNKS: usize = 4;

/// Left tiles that a task has at least, if there are as many: packing a panel is worth it for so many.
const GROUP_TILES: usize = 4;

/// In-channels below which taps and channels together make the rows.
const FEW_IN: usize = 8;

/// Out-channels up to which the roles change.
const FEW_OUT: usize = 4;

/// Which matrix is the left one.
#[derive(Clone, Copy, PartialEq)]
enum Roles {
    /// Rows are channels of `x`.
    Plain,
    /// Rows are pairs of a tap and a channel of `x`.
    Expanded,
    /// Rows are channels of `gy`.
    Swapped,
}

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
    let chunks = chunks(shape);
    let tiles = rows.div_ceil(isa.tile_rows());
    let panels = columns.div_ceil(isa.tile_columns());
    let groups = tiles.div_ceil(GROUP_TILES).min(TASKS.div_ceil(panels));
    let group = tiles.div_ceil(groups);
    let groups = tiles.div_ceil(group);
    let slices = (TASKS / (groups * panels))
        .min(chunks.len() / SLICE_CHUNKS)
        .max(1);

    let products = gy.len() * taps * shape.in_channels;
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
        largest: largest(shape, &chunks),
    };
    parallel::for_each(
        slices * groups * panels,
        products > 2 * parallel::GRAIN_PRODUCTS,
        |task| {
            let (slice, part) = (task / (groups * panels), task % (groups * panels));
            let (first, panel) = (part / panels * group, part % panels);
            isa.run(Task {
                layer: &layer,
                chunks: &chunks[slice * chunks.len() / slices..(slice + 1) * chunks.len() / slices],
                tiles: first..(first + group).min(tiles),
                panel,
                sums,
                offset: slice * len,
            });
        },
    );
    if slices > 1 {
        add_slices(isa, &partial.values()[..slices * len], gw);
    }
}

/// A 1x1 convolution or linear layer as a single row of pixels, so that runs are long.
fn flat(shape: &Conv2dShape) -> Conv2dShape {
    let plain = shape.kernel == [1, 1] && shape.stride == [1, 1] && shape.padding == [[0, 0], [0, 0]];
    if plain && shape.batch > 0 {
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

/// What all tasks share.
struct Layer<'a> {
    shape: &'a Conv2dShape,
    x: &'a [f32],
    gy: &'a [f32],
    roles: Roles,
    rows: usize,
    columns: usize,
    largest: (usize, usize),
}

/// Some tiles of one panel over some chunks.
struct Task<'a> {
    layer: &'a Layer<'a>,
    chunks: &'a [Chunk],
    tiles: std::ops::Range<usize>,
    panel: usize,
    sums: Shared<'a>,
    /// Where this slice's sums begin.
    offset: usize,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Layer {
            shape, x, gy, roles, ..
        } = *self.layer;
        let (most_x, most_y) = self.layer.largest;
        let swapped = roles == Roles::Swapped;
        let (most_left, most_right) = match roles {
            Roles::Plain => (most_x, most_y),
            Roles::Expanded => (most_y, most_y),
            Roles::Swapped => (most_y, most_x),
        };
        let columns = TILE_VECTORS * S::LANES;
        let mut left = Scratch::new(most_left * self.tiles.len() * S::TILE_ROWS);
        let mut right = Scratch::new(most_right * columns);
        for (i, chunk) in self.chunks.iter().enumerate() {
            let mut pixels = chunk.pixels(shape);
            if roles == Roles::Expanded {
                let len = pixels.y.len() * self.tiles.len() * S::TILE_ROWS;
                expand(
                    shape,
                    x,
                    &pixels,
                    self.tiles.start * S::TILE_ROWS,
                    S::TILE_ROWS,
                    &mut left.values_mut()[..len],
                );
                // Rows are taps by now, so what is left is one run over all output pixels.
                let len = pixels.y.len();
                pixels.runs = vec![vec![super::chunk::Run { x: 0, y: 0, len }]];
                pixels.x.clone_from(&pixels.y);
            } else {
                let (values, list, channels) = if swapped {
                    (gy, &pixels.y, shape.out_channels)
                } else {
                    (x, &pixels.x, shape.in_channels)
                };
                self.pack_left::<S>(values, channels, list, left.values_mut());
            }
            let (values, list, channels) = if swapped {
                (x, &pixels.x, shape.in_channels)
            } else {
                (gy, &pixels.y, shape.out_channels)
            };
            let first = self.panel * columns;
            let to = &mut right.values_mut()[..list.len() * columns];
            for (&pixel, to) in list.iter().zip(to.chunks_exact_mut(columns)) {
                let from = &values[pixel * channels..][..channels][first..];
                // SAFETY: `from` has the channels from the panel's first on, and `to` is a whole row.
                unsafe { pack_rows(s, 1, from.len().min(columns), from.as_ptr(), 0, to.as_mut_ptr()) };
            }
            self.multiply(s, &pixels, left.values(), right.values(), i == 0);
        }
    }
}

impl Task<'_> {
    /// `to[tile][pixel][row]`, zeros beyond the channels.
    #[inline(always)]
    fn pack_left<S: Simd>(&self, values: &[f32], channels: usize, pixels: &[usize], to: &mut [f32]) {
        let rows = S::TILE_ROWS;
        let to = &mut to[..pixels.len() * self.tiles.len() * rows];
        for (tile, to) in self
            .tiles
            .clone()
            .zip(to.chunks_exact_mut((pixels.len() * rows).max(1)))
        {
            let n = rows.min(channels - tile * rows);
            for (&pixel, to) in pixels.iter().zip(to.chunks_exact_mut(rows)) {
                let from = &values[pixel * channels + tile * rows..];
                if n == rows {
                    to.copy_from_slice(&from[..rows]);
                } else {
                    to[..n].copy_from_slice(&from[..n]);
                    to[n..].fill(0.0);
                }
            }
        }
    }

    /// Adds the products of a chunk to the sums.
    #[inline(always)]
    fn multiply<S: Simd>(&self, s: S, pixels: &Pixels, left: &[f32], right: &[f32], first: bool) {
        let swapped = self.layer.roles == Roles::Swapped;
        let (lefts, rights) = if swapped {
            (&pixels.y, &pixels.x)
        } else {
            (&pixels.x, &pixels.y)
        };
        assert!(
            left.len() >= lefts.len() * self.tiles.len() * S::TILE_ROWS,
            "all left values are packed"
        );
        assert!(
            right.len() >= rights.len() * TILE_VECTORS * S::LANES,
            "all right values are packed"
        );
        let wide = self.layer.columns - self.panel * TILE_VECTORS * S::LANES > S::LANES;
        for (tap, runs) in pixels.runs.iter().enumerate() {
            for tile in self.tiles.clone() {
                let left = &left[(tile - self.tiles.start) * lefts.len() * S::TILE_ROWS..];
                let rows = self.layer.rows - tile * S::TILE_ROWS;
                let place = Place {
                    tap,
                    tile,
                    first,
                    left: left.as_ptr(),
                    right: right.as_ptr(),
                    runs,
                };
                // SAFETY: runs stay within the pixels, of which all are packed.
                unsafe {
                    match (rows, wide) {
                        (5.., true) if S::TILE_ROWS > 4 => self.tile::<S, 8, 2>(s, place),
                        (3.., true) => self.tile::<S, 4, 2>(s, place),
                        (2, true) => self.tile::<S, 2, 2>(s, place),
                        (_, true) => self.tile::<S, 1, 2>(s, place),
                        (5.., false) if S::TILE_ROWS > 4 => self.tile::<S, 8, 1>(s, place),
                        (3.., false) => self.tile::<S, 4, 1>(s, place),
                        (2, false) => self.tile::<S, 2, 1>(s, place),
                        (_, false) => self.tile::<S, 1, 1>(s, place),
                    }
                }
            }
        }
    }

    /// # Safety
    /// The runs' pixels are packed at `left`, `TILE_ROWS` values each, and at `right`, a panel's row each.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, s: S, place: Place) {
        let mut acc = tile::zeros::<S, R, V>(s);
        if !place.first {
            self.sums(s, &place, &mut acc, false);
        }
        let swapped = self.layer.roles == Roles::Swapped;
        for run in place.runs {
            let (left, right) = if swapped { (run.y, run.x) } else { (run.x, run.y) };
            // SAFETY: the caller's promise.
            unsafe {
                let left = place.left.add(left * S::TILE_ROWS);
                let mut a = [left; R];
                for (r, a) in a.iter_mut().enumerate() {
                    *a = left.add(r);
                }
                let columns = TILE_VECTORS * S::LANES;
                let b = place.right.add(right * columns);
                tile::multiply(s, run.len, a, S::TILE_ROWS, b, columns, &mut acc);
            }
        }
        self.sums(s, &place, &mut acc, true);
    }

    /// Loads a tile from the sums, or stores it.
    #[inline(always)]
    fn sums<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        place: &Place,
        acc: &mut Tile<S, R, V>,
        store: bool,
    ) {
        let Layer {
            shape, rows, columns, ..
        } = *self.layer;
        let (from, to) = (shape.in_channels, shape.out_channels);
        let first_column = self.panel * TILE_VECTORS * S::LANES;
        let tap = self.offset + place.tap * from * to;
        for (r, acc) in acc.iter_mut().enumerate().take(rows - place.tile * S::TILE_ROWS) {
            let row = place.tile * S::TILE_ROWS + r;
            for (v, acc) in acc.iter_mut().enumerate() {
                let n = lanes_of::<S>(columns - first_column, v);
                let column = first_column + v * S::LANES;
                // SAFETY: `n` columns from `column` on lie within the result, and these elements are this task's own.
                unsafe {
                    if self.layer.roles == Roles::Swapped {
                        let mut lanes = [0.0f32; 16];
                        let p = |lane: usize| self.sums.at(tap + (column + lane) * to + row);
                        if store {
                            s.store(lanes.as_mut_ptr(), *acc);
                            (0..n).for_each(|lane| p(lane).write(lanes[lane]));
                        } else {
                            (0..n).for_each(|lane| lanes[lane] = p(lane).read());
                            *acc = s.load(lanes.as_ptr());
                        }
                        continue;
                    }
                    let p = self.sums.at(tap + row * to + column);
                    match (store, n == S::LANES) {
                        (true, true) => s.store(p, *acc),
                        (true, false) => s.store_partial(p, n, *acc),
                        (false, true) => *acc = s.load(p),
                        (false, false) => *acc = s.load_partial(p, n),
                    }
                }
            }
        }
    }
}

/// One tile of a chunk.
#[derive(Clone, Copy)]
struct Place<'a> {
    tap: usize,
    tile: usize,
    /// Whether the sums begin here.
    first: bool,
    left: *const f32,
    right: *const f32,
    runs: &'a [super::chunk::Run],
}

/// `to[tile][pixel][row]` where rows are pairs of tap and channel from `first_row` on: zeros in the padding.
fn expand(
    shape: &Conv2dShape,
    x: &[f32],
    pixels: &Pixels,
    first_row: usize,
    tile_rows: usize,
    to: &mut [f32],
) {
    let (c, count) = (shape.in_channels, pixels.y.len());
    to.fill(0.0);
    let tiles = to.len() / (count * tile_rows);
    for (i, &pixel) in pixels.y.iter().enumerate() {
        shape.for_each_tap(pixel, |tap, source| {
            for channel in 0..c {
                let Some(row) = (tap * c + channel).checked_sub(first_row) else {
                    continue;
                };
                if row / tile_rows < tiles {
                    to[(row / tile_rows * count + i) * tile_rows + row % tile_rows] = x[source * c + channel];
                }
            }
        });
    }
}
