//! The pixels of a weight gradient, chunk by chunk.

use super::Conv2dShape;
use std::ops::Range;

/// Output pixels of a chunk, about: their values of one tile fit into the first-level cache and those of one panel
/// nearly do, and loading and storing a tile's sums for each chunk costs 2 % of its products.
const PIXELS: usize = 512;

/// The shortest run worth a loop, where the map allows it.
const RUN: usize = 32;

/// A box of output pixels: some pictures, rows and columns.
#[derive(Clone, Debug, PartialEq)]
struct Box {
    pictures: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// One step of the sum over pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Its first picture.
    pub picture: usize,
    /// Index into [`Chunks::pixels`].
    pub pixels: usize,
}

/// All chunks of a layer, in the order in which they are summed. It depends on the shape alone.
pub(super) struct Chunks {
    pub list: Vec<Chunk>,
    /// The boxes' pixels, which chunks of different pictures share.
    pub pixels: Vec<Pixels>,
}

/// Consecutive products of one tap: `len` values from index `x` of the chunk's input pixels with as many from index `y` of
/// its output pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub x: usize,
    pub y: usize,
    pub len: usize,
}

/// The pixels of a chunk in the order in which they are packed: rows, columns, pictures. Pictures run fastest,
/// so that on small maps runs are long although the padding interrupts them.
pub(super) struct Pixels {
    /// Input pixels that the chunk's products read, counted from its first picture; columns of one residue modulo the
    /// stride are neighbours.
    pub x: Vec<usize>,
    /// Output pixels, counted from the chunk's first picture.
    pub y: Vec<usize>,
    /// For each tap its runs.
    pub runs: Vec<Vec<Run>>,
}

impl Chunks {
    pub(super) fn new(shape: &Conv2dShape) -> Self {
        let (height, width) = (shape.out_height(), shape.out_width());
        let wanted = RUN.div_ceil(width).max(PIXELS.div_ceil(height * width));
        let pictures = wanted.clamp(1, shape.batch.max(1));
        let columns = width.min(PIXELS);
        let rows = (PIXELS / (columns * pictures)).clamp(1, height);
        let (mut list, mut boxes, mut pixels) = (vec![], vec![], vec![]);
        for n in (0..shape.batch).step_by(pictures) {
            for y in (0..height).step_by(rows) {
                for x in (0..width).step_by(columns) {
                    let new = Box {
                        pictures: pictures.min(shape.batch - n),
                        rows: y..(y + rows).min(height),
                        columns: x..(x + columns).min(width),
                    };
                    let known = boxes.iter().rposition(|known| *known == new);
                    let index = known.unwrap_or(boxes.len());
                    if known.is_none() {
                        pixels.push(new.pixels(shape));
                        boxes.push(new);
                    }
                    list.push(Chunk {
                        picture: n,
                        pixels: index,
                    });
                }
            }
        }
        Self { list, pixels }
    }

    /// The largest numbers of input and output pixels of a chunk.
    pub(super) fn largest(&self) -> (usize, usize) {
        let sizes = self.pixels.iter().map(|p| (p.x.len(), p.y.len()));
        sizes.fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)))
    }
}

/// The input coordinates along an axis that a range of output coordinates reads.
fn inputs(shape: &Conv2dShape, axis: usize, outputs: &Range<usize>) -> Range<usize> {
    let size = [shape.height, shape.width][axis];
    let (stride, before) = (shape.stride[axis], shape.padding[axis][0]);
    let end = ((outputs.end - 1) * stride + shape.kernel[axis])
        .saturating_sub(before)
        .min(size);
    (outputs.start * stride).saturating_sub(before).min(end)..end
}

impl Box {
    fn pixels(&self, shape: &Conv2dShape) -> Pixels {
        let (height, width) = (shape.out_height(), shape.out_width());
        let mut y = vec![];
        for oy in self.rows.clone() {
            for ox in self.columns.clone() {
                y.extend((0..self.pictures).map(|n| (n * height + oy) * width + ox));
            }
        }
        let rows = inputs(shape, 0, &self.rows);
        let (columns, places) = self.input_columns(shape);
        let mut x = vec![];
        for iy in rows.clone() {
            for ix in &columns {
                x.extend((0..self.pictures).map(|n| (n * shape.height + iy) * shape.width + ix));
            }
        }
        let runs = (0..shape.taps())
            .map(|tap| self.runs(shape, tap, &rows, &places))
            .collect();
        Pixels { x, y, runs }
    }

    /// The input columns in their packed order, and each column's place in it, counted from the first column.
    fn input_columns(&self, shape: &Conv2dShape) -> (Vec<usize>, Vec<usize>) {
        let range = inputs(shape, 1, &self.columns);
        let stride = shape.stride[1];
        let columns: Vec<usize> = (0..stride)
            .flat_map(|residue| range.clone().filter(move |ix| ix % stride == residue))
            .collect();
        let mut places = vec![0; range.end];
        columns
            .iter()
            .enumerate()
            .for_each(|(place, &ix)| places[ix] = place);
        (columns, places)
    }

    fn runs(&self, shape: &Conv2dShape, tap: usize, rows: &Range<usize>, places: &[usize]) -> Vec<Run> {
        let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
        let source = |axis: usize, output: usize, k: usize| {
            let size = [shape.height, shape.width][axis];
            (output * shape.stride[axis] + k)
                .checked_sub(shape.padding[axis][0])
                .filter(|&i| i < size)
        };
        let pictures = self.pictures;
        let input_width = inputs(shape, 1, &self.columns).len();
        let mut columns = self.columns.clone().filter(|&ox| source(1, ox, kx).is_some());
        let Some(first) = columns.next() else {
            return vec![];
        };
        let count = 1 + columns.count();
        let Some(ix) = source(1, first, kx) else {
            return vec![];
        };
        let mut runs: Vec<Run> = vec![];
        for oy in self.rows.clone() {
            let Some(iy) = source(0, oy, ky) else { continue };
            let run = Run {
                x: ((iy - rows.start) * input_width + places[ix]) * pictures,
                y: ((oy - self.rows.start) * self.columns.len() + first - self.columns.start) * pictures,
                len: count * pictures,
            };
            match runs.last_mut() {
                Some(last) if last.x + last.len == run.x && last.y + last.len == run.y => last.len += run.len,
                _ => runs.push(run),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every product of a tap occurs in exactly one run, and pairs the right pixels.
    #[test]
    fn runs_pair_each_output_pixel_with_its_input_pixel_once() {
        let base = Conv2dShape {
            batch: 5,
            height: 9,
            width: 11,
            in_channels: 1,
            out_channels: 1,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [[1, 1], [1, 1]],
        };
        for shape in [
            base,
            Conv2dShape {
                stride: [2, 2],
                padding: [[0, 1], [0, 1]],
                ..base
            },
            Conv2dShape {
                stride: [3, 2],
                kernel: [5, 4],
                ..base
            },
            Conv2dShape {
                batch: 1,
                height: 30,
                width: 300,
                padding: [[5, 0], [4, 3]],
                ..base
            },
        ] {
            let (height, width) = (shape.out_height(), shape.out_width());
            let mut seen = vec![0; shape.batch * height * width * shape.taps()];
            let chunks = Chunks::new(&shape);
            for chunk in &chunks.list {
                let pixels = &chunks.pixels[chunk.pixels];
                let (first_x, first_y) = (
                    chunk.picture * shape.height * shape.width,
                    chunk.picture * height * width,
                );
                for (tap, runs) in pixels.runs.iter().enumerate() {
                    for (run, i) in runs.iter().flat_map(|run| (0..run.len).map(move |i| (run, i))) {
                        let (x, y) = (first_x + pixels.x[run.x + i], first_y + pixels.y[run.y + i]);
                        let (oy, ox) = (y / width % height, y % width);
                        let iy = oy * shape.stride[0] + tap / shape.kernel[1] - shape.padding[0][0];
                        let ix = ox * shape.stride[1] + tap % shape.kernel[1] - shape.padding[1][0];
                        assert_eq!(x, (y / (width * height) * shape.height + iy) * shape.width + ix);
                        seen[y * shape.taps() + tap] += 1;
                    }
                }
            }
            for (i, &times) in seen.iter().enumerate() {
                let (y, tap) = (i / shape.taps(), i % shape.taps());
                let iy = (y / width % height * shape.stride[0] + tap / shape.kernel[1])
                    .wrapping_sub(shape.padding[0][0]);
                let ix =
                    (y % width * shape.stride[1] + tap % shape.kernel[1]).wrapping_sub(shape.padding[1][0]);
                assert_eq!(
                    times,
                    u32::from(iy < shape.height && ix < shape.width),
                    "{shape:?}"
                );
            }
        }
    }
}
