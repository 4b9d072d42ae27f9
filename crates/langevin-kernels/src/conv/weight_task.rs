//! One task of a weight gradient: some tiles of some panels over some chunks of pixels.

use super::Conv2dShape;
use super::chunk::{Chunk, Chunks, Run};
use crate::buffer::LINE_VALUES;
use crate::parallel::Shared;
use crate::scratch::Scratch;
use crate::simd::{Kernel, Simd, TILE_VECTORS};
use crate::tile::{self, Tile, lanes_of, pack_rows};
use std::ops::Range;

/// Which matrix is the left one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Roles {
    /// Rows are channels of `x`.
    Plain,
    /// Rows are pairs of a tap and a channel of `x`.
    Expanded,
    /// Rows are channels of `gy`.
    Swapped,
}

/// How many pixels ahead a chunk's values are asked for.
const AHEAD: usize = 8;

/// What all tasks share.
pub(super) struct Layer<'a> {
    pub shape: &'a Conv2dShape,
    pub x: &'a [f32],
    pub gy: &'a [f32],
    pub roles: Roles,
    /// Channels of the left matrix.
    pub rows: usize,
    /// Channels of the right matrix.
    pub columns: usize,
    pub chunks: &'a Chunks,
}

/// Some tiles of some panels over some chunks.
pub(super) struct Task<'a> {
    pub layer: &'a Layer<'a>,
    pub chunks: &'a [Chunk],
    pub tiles: Range<usize>,
    pub panels: Range<usize>,
    pub sums: Shared<'a>,
    /// Where this slice's sums begin.
    pub offset: usize,
}

/// A chunk's values of one activation.
struct Side<'a> {
    values: &'a [f32],
    channels: usize,
    pixels: &'a [usize],
}

/// A packed chunk: which runs multiply, and where their values lie.
struct Packed<'a> {
    runs: &'a [Run],
    left: &'a [f32],
    /// Between tiles, and between pixels, of the left values.
    steps: [usize; 2],
    /// `[panels, right pixels, tile columns]`
    right: &'a [f32],
    /// Left and right pixels.
    pixels: [usize; 2],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Layer {
            shape, chunks, roles, ..
        } = *self.layer;
        let (most_x, most_y) = chunks.largest();
        let (most_left, most_right) = match roles {
            Roles::Plain => (most_x, most_y),
            Roles::Expanded => (most_y, most_y),
            Roles::Swapped => (most_y, most_x),
        };
        let row = self.tiles.len() * S::TILE_ROWS;
        let mut left = Scratch::new(self.tiles.len() * tile_step::<S>(most_left));
        let mut right = Scratch::new(most_right * self.panels.len() * TILE_VECTORS * S::LANES);
        for (i, chunk) in self.chunks.iter().enumerate() {
            let pixels = &chunks.pixels[chunk.pixels];
            let in_picture = shape.height * shape.width * shape.in_channels;
            let out_picture = shape.out_height() * shape.out_width() * shape.out_channels;
            let x = &self.layer.x[chunk.picture * in_picture..];
            let gy = &self.layer.gy[chunk.picture * out_picture..];
            let x = Side {
                values: x,
                channels: shape.in_channels,
                pixels: &pixels.x,
            };
            let gy = Side {
                values: gy,
                channels: shape.out_channels,
                pixels: &pixels.y,
            };
            // All taps at once where rows hold them, in one run over the output pixels.
            let all = [vec![Run {
                x: 0,
                y: 0,
                len: pixels.y.len(),
            }]];
            let (a, b, runs) = match roles {
                Roles::Plain => (&x, &gy, &pixels.runs[..]),
                Roles::Expanded => (&gy, &gy, &all[..]),
                Roles::Swapped => (&gy, &x, &pixels.runs[..]),
            };
            let steps = if roles == Roles::Expanded {
                self.expand(&x, &pixels.y, S::TILE_ROWS, left.values_mut());
                [S::TILE_ROWS, row]
            } else {
                a.pack_left(s, &self.tiles, left.values_mut());
                [tile_step::<S>(a.pixels.len()), S::TILE_ROWS]
            };
            b.pack_right(s, &self.panels, right.values_mut());
            for panel in self.panels.clone() {
                for (tap, runs) in runs.iter().enumerate() {
                    let (left, right) = (left.values(), right.values());
                    let pixels = [a.pixels.len(), b.pixels.len()];
                    let packed = Packed {
                        runs,
                        left,
                        steps,
                        right,
                        pixels,
                    };
                    self.multiply(s, tap, panel, i == 0, &packed);
                }
            }
        }
    }
}

/// From one tile's packed pixels to the next one's: a cache line more than they need, or else the same pixel of all tiles
/// falls into one set of the first-level cache.
#[inline(always)]
fn tile_step<S: Simd>(pixels: usize) -> usize {
    pixels * S::TILE_ROWS + 16
}

impl Side<'_> {
    /// Asks for some channels of a pixel that comes soon after the chunk's pixel number `i`.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, i: usize, channels: Range<usize>) {
        let Some(&pixel) = self.pixels.get(i + AHEAD) else {
            return;
        };
        for channel in (channels.start..channels.end.min(self.channels)).step_by(LINE_VALUES) {
            s.prefetch(self.values.as_ptr().wrapping_add(pixel * self.channels + channel));
        }
    }

    /// `to[tile][pixel][row]`, zeros beyond the channels.
    #[inline(always)]
    fn pack_left<S: Simd>(&self, s: S, tiles: &Range<usize>, to: &mut [f32]) {
        let (rows, count) = (S::TILE_ROWS, self.pixels.len());
        let step = tile_step::<S>(count);
        let to = &mut to[..tiles.len() * step];
        let first = tiles.start * rows;
        let whole = tiles.len().min((self.channels - first) / rows);
        for (i, &pixel) in self.pixels.iter().enumerate() {
            let from = &self.values[pixel * self.channels..][..self.channels][first..];
            self.ask(s, i, first..first + tiles.len() * rows);
            for tile in 0..whole {
                let start = tile * step + i * rows;
                // SAFETY: `from` has `whole` tiles, and `to` has a place for each tile of each pixel.
                unsafe {
                    let (from, to) = (from.as_ptr().add(tile * rows), to.as_mut_ptr().add(start));
                    std::ptr::copy_nonoverlapping(from, to, S::TILE_ROWS);
                }
            }
            if whole < tiles.len() {
                let rest = &from[whole * rows..];
                let to = &mut to[whole * step + i * rows..][..rows];
                to.fill(0.0);
                to[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// `to[panel][pixel][column]`, zeros beyond the channels.
    #[inline(always)]
    fn pack_right<S: Simd>(&self, s: S, panels: &Range<usize>, to: &mut [f32]) {
        let (columns, count) = (TILE_VECTORS * S::LANES, self.pixels.len());
        let to = &mut to[..count * panels.len() * columns];
        for (i, &pixel) in self.pixels.iter().enumerate() {
            let from = &self.values[pixel * self.channels..][..self.channels];
            self.ask(s, i, panels.start * columns..panels.end * columns);
            for panel in panels.clone() {
                let from = &from[panel * columns..];
                let start = ((panel - panels.start) * count + i) * columns;
                // SAFETY: `from` has the channels from the panel's first on, and `to` has a row for each panel and pixel.
                unsafe {
                    let to = to.as_mut_ptr().add(start);
                    pack_rows(s, 1, from.len().min(columns), from.as_ptr(), 0, to);
                }
            }
        }
    }
}

impl Task<'_> {
    /// `to[output pixel][row]` where rows are pairs of tap and channel, from this task's first on: zeros in the padding.
    #[inline(always)]
    fn expand(&self, x: &Side, pixels: &[usize], tile_rows: usize, to: &mut [f32]) {
        let shape = self.layer.shape;
        let (height, width) = (shape.out_height(), shape.out_width());
        let c = x.channels;
        let first = self.tiles.start * tile_rows;
        let length = self.tiles.len() * tile_rows;
        for (&pixel, to) in pixels.iter().zip(to.chunks_exact_mut(length)) {
            let (n, oy, ox) = (pixel / (height * width), pixel / width % height, pixel % width);
            to.fill(0.0);
            for ky in 0..shape.kernel[0] {
                let iy = (oy * shape.stride[0] + ky).wrapping_sub(shape.padding[0][0]);
                if iy >= shape.height {
                    continue;
                }
                // The kernel's row covers neighbours of the picture's row, apart from what is in the padding.
                let (begin, left) = (ox * shape.stride[1], shape.padding[1][0]);
                let from = left.saturating_sub(begin);
                let until = (shape.width + left).saturating_sub(begin).min(shape.kernel[1]);
                if from >= until {
                    continue;
                }
                let source = ((n * shape.height + iy) * shape.width + begin + from - left) * c;
                let row = (ky * shape.kernel[1] + from) * c;
                // What of it is in this task's rows.
                let (skip, count) = (first.saturating_sub(row), (until - from) * c);
                let start = (row + skip).saturating_sub(first).min(length);
                let count = count.saturating_sub(skip).min(length - start);
                let skip = skip.min((until - from) * c);
                to[start..start + count].copy_from_slice(&x.values[source + skip..][..count]);
            }
        }
    }

    /// Adds a tap's products over a chunk to the sums of this task's tiles of a panel.
    #[inline(always)]
    fn multiply<S: Simd>(&self, s: S, tap: usize, panel: usize, first: bool, packed: &Packed) {
        let columns = TILE_VECTORS * S::LANES;
        let panel_len = packed.pixels[1] * columns;
        let row = self.tiles.len() * S::TILE_ROWS;
        assert!(
            packed.left.len() >= packed.pixels[0] * row,
            "all left values are packed"
        );
        let right = &packed.right[(panel - self.panels.start) * panel_len..][..panel_len];
        let wide = self.layer.columns - panel * columns > S::LANES;
        for tile in self.tiles.clone() {
            let place = Place {
                tap,
                tile,
                panel,
                first,
                right: right.as_ptr(),
            };
            // SAFETY: runs stay within the pixels, of which all are packed.
            unsafe {
                match (self.layer.rows - tile * S::TILE_ROWS, wide) {
                    (7.., true) if const { S::TILE_ROWS > 6 } => self.tile::<S, 8, 2>(s, place, packed),
                    (5.., true) if const { S::TILE_ROWS > 4 } => self.tile::<S, 6, 2>(s, place, packed),
                    (3.., true) => self.tile::<S, 4, 2>(s, place, packed),
                    (2, true) => self.tile::<S, 2, 2>(s, place, packed),
                    (_, true) => self.tile::<S, 1, 2>(s, place, packed),
                    (7.., false) if const { S::TILE_ROWS > 6 } => self.tile::<S, 8, 1>(s, place, packed),
                    (5.., false) if const { S::TILE_ROWS > 4 } => self.tile::<S, 6, 1>(s, place, packed),
                    (3.., false) => self.tile::<S, 4, 1>(s, place, packed),
                    (2, false) => self.tile::<S, 2, 1>(s, place, packed),
                    (_, false) => self.tile::<S, 1, 1>(s, place, packed),
                }
            }
        }
    }

    /// # Safety
    /// The runs' pixels are packed at `packed.left` and `place.right`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, s: S, place: Place, packed: &Packed) {
        let columns = TILE_VECTORS * S::LANES;
        let mut acc = tile::zeros::<S, R, V>(s);
        if !place.first {
            self.sums(s, &place, &mut acc, false);
        }
        let left = &packed.left[(place.tile - self.tiles.start) * packed.steps[0]..];
        for run in packed.runs {
            let (x, y) = if self.layer.roles == Roles::Swapped {
                (run.y, run.x)
            } else {
                (run.x, run.y)
            };
            // SAFETY: the caller's promise.
            unsafe {
                let a = left.as_ptr().add(x * packed.steps[1]);
                let mut rows = [a; R];
                for (r, row) in rows.iter_mut().enumerate() {
                    *row = a.add(r);
                }
                tile::multiply(
                    s,
                    run.len,
                    rows,
                    packed.steps[1],
                    place.right.add(y * columns),
                    columns,
                    &mut acc,
                );
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
            shape,
            roles,
            rows,
            columns,
            ..
        } = *self.layer;
        let out = shape.out_channels;
        let first_column = place.panel * TILE_VECTORS * S::LANES;
        let tap = self.offset + place.tap * shape.in_channels * out;
        for (r, acc) in acc.iter_mut().enumerate().take(rows - place.tile * S::TILE_ROWS) {
            let row = place.tile * S::TILE_ROWS + r;
            for (v, acc) in acc.iter_mut().enumerate() {
                let n = lanes_of::<S>(columns - first_column, v);
                let column = first_column + v * S::LANES;
                // SAFETY: `n` columns from `column` on lie within the result, and these elements are this task's own.
                unsafe {
                    if roles == Roles::Swapped {
                        let mut lanes = [0.0f32; 16];
                        let p = |lane: usize| self.sums.at(tap + (column + lane) * out + row);
                        if store {
                            s.store(lanes.as_mut_ptr(), *acc);
                            (0..n).for_each(|lane| p(lane).write(lanes[lane]));
                        } else {
                            (0..n).for_each(|lane| lanes[lane] = p(lane).read());
                            *acc = s.load(lanes.as_ptr());
                        }
                        continue;
                    }
                    let p = self.sums.at(tap + row * out + column);
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
struct Place {
    tap: usize,
    tile: usize,
    panel: usize,
    /// Whether the sums begin here.
    first: bool,
    /// The panel's values.
    right: *const f32,
}
