//! Which tile covers which pixels.

use super::transform::{INPUTS, OUTPUTS};
use std::ops::Range;

/// The tiles of a batch: picture after picture, row after row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub batch: usize,
    /// Height and width of what is read.
    pub source: [usize; 2],
    /// Height and width of what tiles write.
    pub destination: [usize; 2],
    /// Padding at the top and on the left.
    pub before: [usize; 2],
}

/// A tile's place.
#[derive(Clone, Copy)]
pub(super) struct Place {
    picture: usize,
    /// Its first output row and column.
    start: [usize; 2],
}

impl Tiling {
    fn grid(&self) -> [usize; 2] {
        self.destination.map(|size| size.div_ceil(OUTPUTS))
    }

    /// How many tiles there are.
    pub(super) fn len(&self) -> usize {
        let [rows, columns] = self.grid();
        self.batch * rows * columns
    }

    pub(super) fn place(&self, tile: usize) -> Place {
        let [rows, columns] = self.grid();
        Place {
            picture: tile / (rows * columns),
            start: [tile / columns % rows * OUTPUTS, tile % columns * OUTPUTS],
        }
    }

    /// Where the channels of each of a tile's 6x6 inputs begin; those of `zeros` in the padding.
    pub(super) fn inputs(
        &self,
        tile: usize,
        source: &[f32],
        channels: usize,
        zeros: &[f32],
    ) -> [*const f32; 36] {
        let Place { picture, start } = self.place(tile);
        let mut inputs = [zeros.as_ptr(); INPUTS * INPUTS];
        let [rows, columns] = [0, 1].map(|axis| self.within(start[axis], axis));
        for i in rows {
            let y = start[0] + i - self.before[0];
            for j in columns.clone() {
                let x = start[1] + j - self.before[1];
                let pixel = (picture * self.source[0] + y) * self.source[1] + x;
                inputs[i * INPUTS + j] = source[pixel * channels..][..channels].as_ptr();
            }
        }
        inputs
    }

    /// Which of the inputs from output `start` on lie within the source, along an axis.
    fn within(&self, start: usize, axis: usize) -> Range<usize> {
        let before = self.before[axis];
        let end = (self.source[axis] + before).saturating_sub(start).min(INPUTS);
        before.saturating_sub(start).min(end)..end
    }

    /// Where a tile's 4x4 outputs go.
    pub(super) fn outputs(&self, tile: usize) -> Pixels {
        let Place { picture, start } = self.place(tile);
        let [height, width] = self.destination;
        Pixels {
            first: (picture * height + start[0]) * width + start[1],
            width,
            rows: height - start[0],
            columns: width - start[1],
        }
    }
}

/// The destination pixels of a tile's outputs.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    first: usize,
    /// Of the destination.
    width: usize,
    /// Rows and columns of the destination from the first pixel on.
    rows: usize,
    columns: usize,
}

impl Pixels {
    /// The pixel of an output; none beyond the edge.
    #[inline(always)]
    pub(super) fn pixel(&self, row: usize, column: usize) -> Option<usize> {
        (row < self.rows && column < self.columns).then_some(self.first + row * self.width + column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_output_once_and_find_its_inputs() {
        let tiling = Tiling {
            batch: 2,
            source: [7, 5],
            destination: [8, 4],
            before: [2, 0],
        };
        let source: Vec<f32> = (0..70).map(|i| i as f32).collect();
        let zeros = [-1.0];
        let mut seen = vec![0; 64];
        for tile in 0..tiling.len() {
            let inputs = tiling.inputs(tile, &source, 1, &zeros);
            for i in 0..OUTPUTS * OUTPUTS {
                let Some(pixel) = tiling.outputs(tile).pixel(i / 4, i % 4) else {
                    continue;
                };
                seen[pixel] += 1;
                let (n, y, x) = (pixel / 32, pixel / 4 % 8, pixel % 4);
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let pointer = inputs[(i / 4 + ky) * 6 + i % 4 + kx];
                    // SAFETY: it leads into `source` or to `zeros`.
                    let value = unsafe { *pointer };
                    let expected = match (y + ky).checked_sub(2) {
                        Some(y) if y < 7 && x + kx < 5 => ((n * 7 + y) * 5 + x + kx) as f32,
                        _ => -1.0,
                    };
                    assert_eq!(value, expected, "pixel {pixel}, tap {ky} {kx}");
                }
            }
        }
        assert!(seen.into_iter().all(|times| times == 1));
    }
}
