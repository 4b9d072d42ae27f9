//! The forward of a convolution by products of bf16 values, with sums in float32; and with stride 1 the gradient of its input, which is the
//! convolution of the output's with the kernel turned round.
//!
//! The input is rounded once into rows, one for each pixel. With stride 1 the rows are those of the padded pictures, so that a tap of the
//! kernel is the same rows some places on, and what an output row has beyond the picture's width is computed and dropped; with other
//! strides a row has the values of all taps. Weights are rounded into panels.
//!
//! Loop order: a task takes a chunk of rows, small enough to stay in the second-level cache, and some panels; of a panel as much of the depth at a
//! time as leaves room in the first-level cache. Every element is one chain of sums over taps and then channels, whatever the split.

use super::{Conv2dShape, Residual, winograd};
use crate::Stored;
use crate::half::{
    Bf16Unit, Block, COLUMNS, ROWS, STEP, STEP_VALUES, Segment, Session, round_panel, round_rows,
};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, load, store};

/// Bytes of the rows of a chunk, about: half of a second-level cache.
const CHUNK_BYTES: usize = 1 << 20;

/// Blocks of rows of a chunk at most, whose sums wait while the depth goes on: 64 KiB.
const CHUNK_BLOCKS: usize = 16;

/// Steps of the depth at a time: 64 KiB of a panel.
const DEPTH_STEPS: usize = 32;

/// In-channels and out-channels below which rounding costs more than it saves.
const LEAST_CHANNELS: [usize; 2] = [24, 4];

/// Whether a layer is computed here. It depends on the layer alone.
pub(super) fn suits(unit: Bf16Unit, shape: &Conv2dShape) -> bool {
    let worth = shape.in_channels >= LEAST_CHANNELS[0] && shape.out_channels >= LEAST_CHANNELS[1];
    match unit {
        Bf16Unit::Amx => worth,
        // Winograd's products are a quarter, which is less than half.
        Bf16Unit::Avx512 => worth && !winograd::suits(shape),
    }
}

/// As [`super::conv2d_forward`], lengths checked.
pub(super) fn forward(
    unit: Bf16Unit,
    shape: &Conv2dShape,
    x: &[f32],
    weight: Stored,
    bias: Option<&[f32]>,
    residual: Residual,
    y: &mut [f32],
) {
    convolve(unit, shape, x, weight, false, bias, residual, y);
}

/// The convolution whose result is the gradient of a layer's input; none where its steps are not 1, or it pads more than its kernel reaches.
pub(super) fn turned(shape: &Conv2dShape) -> Option<Conv2dShape> {
    let reach = |axis: usize| {
        let [before, after] = shape.padding[axis];
        let last = shape.kernel[axis] - 1;
        Some([last.checked_sub(before)?, last.checked_sub(after)?])
    };
    Some(Conv2dShape {
        height: shape.out_height(),
        width: shape.out_width(),
        in_channels: shape.out_channels,
        out_channels: shape.in_channels,
        padding: [reach(0)?, reach(1)?],
        ..*shape
    })
    .filter(|_| shape.stride == [1, 1])
}

/// As [`super::conv2d_input_gradient`], lengths checked, with the layer's shape [`turned`].
pub(super) fn input_gradient(
    unit: Bf16Unit,
    turned: &Conv2dShape,
    gy: &[f32],
    weight: Stored,
    gx: &mut [f32],
) {
    convolve(unit, turned, gy, weight, true, None, Residual::None, gx);
}

#[allow(clippy::too_many_arguments)]
fn convolve(
    unit: Bf16Unit,
    shape: &Conv2dShape,
    x: &[f32],
    weight: Stored,
    is_turned: bool,
    bias: Option<&[f32]>,
    residual: Residual,
    y: &mut [f32],
) {
    if y.is_empty() {
        return;
    }
    let rows = Rows::of(shape);
    let depths = rows.depths();
    let matrix = Matrix {
        values: weight,
        is_turned,
        width: shape.out_channels,
        taps: rows.segments.len(),
        depth: rows.depth,
        padded: rows.padded,
    };
    let blocks = rows.blocks(shape);
    let panels = shape.out_channels.div_ceil(COLUMNS);
    let products = shape.output_len() * rows.segments.len() * rows.depth;
    let worth = products >= 2 * parallel::GRAIN_PRODUCTS;
    let threads = if worth { rayon::current_num_threads() } else { 1 };

    let mut activations = Scratch::halves_of(rows.len(shape) * rows.step);
    rows.round(shape, x, worth, Shared::new(activations.halves_mut()));
    let activations = activations.halves();

    let even = blocks.len().div_ceil(threads.div_ceil(panels));
    let chunk = (CHUNK_BYTES / (2 * ROWS * rows.step))
        .clamp(4, CHUNK_BLOCKS)
        .min(even)
        .max(1);
    let chunks = blocks.len().div_ceil(chunk);
    let wanted = (4 * threads).div_ceil(chunks).min(panels);
    let group = panels.div_ceil(if worth { wanted } else { 1 });
    let groups = panels.div_ceil(group);
    let packed = (chunks > 1).then(|| matrix.pack(worth));

    let y = Shared::new(y);
    parallel::for_each(chunks * groups, worth, |task| {
        let first = task % chunks * chunk;
        let blocks = &blocks[first..blocks.len().min(first + chunk)];
        let session = Session::new(unit);
        let mut sums = Scratch::new(blocks.len() * ROWS * COLUMNS);
        let mut own = Scratch::halves_of(if packed.is_none() {
            DEPTH_STEPS * STEP_VALUES
        } else {
            0
        });
        let group = task / chunks * group..panels.min((task / chunks + 1) * group);
        for panel in group {
            let mut start = 0;
            for (i, segments) in depths.iter().enumerate() {
                let steps: usize = segments.iter().map(|segment| segment.steps).sum();
                let values = match &packed {
                    Some(packed) => &packed.halves()[panel * matrix.panel_len() + start * STEP_VALUES..],
                    None => {
                        let own = &mut own.halves_mut()[..steps * STEP_VALUES];
                        matrix.pack_steps(panel, start, own);
                        &*own
                    }
                };
                assert!(values.len() >= steps * STEP_VALUES, "all steps of a panel");
                start += steps;
                let is_last = i + 1 == depths.len();
                for (b, block) in blocks.iter().enumerate() {
                    let sums = &mut sums.values_mut()[b * ROWS * COLUMNS..][..ROWS * COLUMNS];
                    // SAFETY: `Rows::len` has room for the rows and segments of every block; the panel has all steps, and
                    // sums are of a whole block.
                    unsafe {
                        session.multiply(&Block {
                            a: activations[block.row * rows.step..].as_ptr(),
                            a_step: rows.step,
                            segments,
                            b: values.as_ptr(),
                            c: sums.as_mut_ptr(),
                            c_step: COLUMNS,
                            is_tall: block.count > ROWS / 2,
                            accumulate: i > 0,
                        });
                    }
                    if is_last {
                        Isa::Avx512.run(Finish {
                            sums,
                            block,
                            width: shape.out_channels,
                            column: panel * COLUMNS,
                            bias,
                            residual,
                            y,
                        });
                    }
                }
            }
        }
    });
}

/// The input as rows of bf16 values.
struct Rows {
    /// Values of a row that are summed for each segment, and the same with zeros up to whole steps.
    depth: usize,
    padded: usize,
    /// Values from a row to the next: an odd number of cache lines, so that rows do not share sets of a cache.
    step: usize,
    /// Height and width of the pictures that rows are of, and what of their padding is on top and on the left; none where rows are of
    /// outputs.
    size: Option<[usize; 2]>,
    /// A segment for each tap.
    segments: Vec<Segment>,
}

/// Some neighbouring rows.
struct RowBlock {
    row: usize,
    count: usize,
    /// Where the outputs of rows go that have one.
    pixels: Vec<Option<usize>>,
}

impl Rows {
    fn of(shape: &Conv2dShape) -> Self {
        let taps = shape.kernel[0] * shape.kernel[1];
        let gathered = shape.stride != [1, 1];
        let depth = if gathered {
            taps * shape.in_channels
        } else {
            shape.in_channels
        };
        let padded = depth.next_multiple_of(STEP);
        let step = ((padded / STEP) | 1) * STEP;
        let size = (!gathered).then(|| {
            let [rows, columns] = shape.padding.map(|[before, after]| before + after);
            [shape.height + rows, shape.width + columns]
        });
        let segments = match size {
            None => vec![Segment {
                offset: 0,
                steps: padded / STEP,
            }],
            Some([_, width]) => (0..taps)
                .map(|tap| Segment {
                    offset: 2 * step * (tap / shape.kernel[1] * width + tap % shape.kernel[1]),
                    steps: padded / STEP,
                })
                .collect(),
        };
        Self {
            depth,
            padded,
            step,
            size,
            segments,
        }
    }

    /// The depth in parts of about [`DEPTH_STEPS`].
    fn depths(&self) -> Vec<Vec<Segment>> {
        let pieces = self.segments.iter().flat_map(|segment| {
            (0..segment.steps).step_by(DEPTH_STEPS).map(|first| Segment {
                offset: segment.offset + 2 * STEP * first,
                steps: DEPTH_STEPS.min(segment.steps - first),
            })
        });
        let (mut parts, mut steps) = (Vec::<Vec<Segment>>::new(), DEPTH_STEPS);
        for piece in pieces {
            steps += piece.steps;
            match parts.last_mut() {
                Some(part) if steps <= DEPTH_STEPS => part.push(piece),
                _ => {
                    steps = piece.steps;
                    parts.push(vec![piece]);
                }
            }
        }
        parts
    }

    /// Rows that there must be room for: a block's last rows may be nobody's, and so may be what its taps read.
    fn len(&self, shape: &Conv2dShape) -> usize {
        match self.size {
            None => shape.batch * shape.out_height() * shape.out_width() + ROWS,
            Some([height, width]) => shape.batch * height * width + ROWS + shape.kernel[1],
        }
    }

    fn blocks(&self, shape: &Conv2dShape) -> Vec<RowBlock> {
        let [height, width] = [shape.out_height(), shape.out_width()];
        // Without padding and taps, rows of all pictures are one after another.
        let (pictures, rows, picture, row_width) = match self.size {
            Some(size) if shape.kernel != [1, 1] || size != [height, width] => {
                (shape.batch, height * size[1], size[0] * size[1], size[1])
            }
            _ => (1, shape.batch * height * width, 0, width),
        };
        let mut blocks = vec![];
        for n in 0..pictures {
            for first in (0..rows).step_by(ROWS) {
                let count = ROWS.min(rows - first);
                let pixel = |row: usize| {
                    let (y, x) = (row / row_width, row % row_width);
                    (x < width).then_some((n * height + y) * width + x)
                };
                blocks.push(RowBlock {
                    row: n * picture + first,
                    count,
                    pixels: (first..first + count).map(pixel).collect(),
                });
            }
        }
        blocks
    }

    /// Writes the rows.
    fn round(&self, shape: &Conv2dShape, x: &[f32], worth: bool, to: Shared<u16>) {
        let Conv2dShape {
            batch,
            height,
            width,
            in_channels: channels,
            ..
        } = *shape;
        let Some([padded_height, padded_width]) = self.size else {
            return self.gather(shape, x, worth, to);
        };
        let [top, left] = shape.padding.map(|[before, _]| before);
        // A row of pixels is a task, or some where they are short.
        let at_once = (parallel::GRAIN / (padded_width * self.padded).max(1)).max(1);
        let total = batch * padded_height;
        parallel::for_each(total.div_ceil(at_once), worth, |task| {
            for row in task * at_once..total.min((task + 1) * at_once) {
                let (n, y) = (row / padded_height, (row % padded_height).wrapping_sub(top));
                // SAFETY: a row of pixels is one task's.
                let to = unsafe { to.slice(row * padded_width * self.step, padded_width * self.step) };
                if y >= height {
                    to.fill(0);
                    continue;
                }
                let (before, rest) = to.split_at_mut(left * self.step);
                let (within, after) = rest.split_at_mut(width * self.step);
                before.fill(0);
                after.fill(0);
                let from = &x[(n * height + y) * width * channels..][..width * channels];
                // SAFETY: a unit is there, or nobody were here; both have `width` rows.
                unsafe {
                    round_rows(
                        width,
                        [channels, self.padded],
                        from.as_ptr(),
                        channels,
                        within.as_mut_ptr(),
                        self.step,
                    );
                }
            }
        });
    }

    /// Writes rows that have the values of all taps.
    fn gather(&self, shape: &Conv2dShape, x: &[f32], worth: bool, to: Shared<u16>) {
        let (channels, [height, width]) = (shape.in_channels, [shape.out_height(), shape.out_width()]);
        parallel::for_each(shape.batch * height, worth, |row| {
            let (n, oy) = (row / height, row % height);
            let mut values = Scratch::new(self.depth);
            let values = &mut values.values_mut()[..self.depth];
            // SAFETY: a row of outputs is one task's.
            let to = unsafe { to.slice(row * width * self.step, width * self.step) };
            for (ox, to) in to.chunks_exact_mut(self.step).enumerate() {
                for (tap, to) in values.chunks_exact_mut(channels).enumerate() {
                    let y = (oy * shape.stride[0] + tap / shape.kernel[1]).wrapping_sub(shape.padding[0][0]);
                    let x_ = (ox * shape.stride[1] + tap % shape.kernel[1]).wrapping_sub(shape.padding[1][0]);
                    if y < shape.height && x_ < shape.width {
                        let pixel = (n * shape.height + y) * shape.width + x_;
                        to.copy_from_slice(&x[pixel * channels..][..channels]);
                    } else {
                        to.fill(0.0);
                    }
                }
                // SAFETY: a unit is there, or nobody were here; both have a row.
                unsafe {
                    round_rows(
                        1,
                        [self.depth, self.padded],
                        values.as_ptr(),
                        self.depth,
                        to.as_mut_ptr(),
                        self.step,
                    );
                }
            }
        });
    }
}

/// Weights as the right-hand matrix.
struct Matrix<'a> {
    /// `[taps, depth, width]`, or turned `[taps, width, depth]` with the taps from the last to the first.
    values: Stored<'a>,
    is_turned: bool,
    width: usize,
    taps: usize,
    depth: usize,
    /// The depth with zeros up to whole steps.
    padded: usize,
}

impl Matrix<'_> {
    /// Values of a panel.
    fn panel_len(&self) -> usize {
        self.taps * self.padded * COLUMNS
    }

    /// All panels.
    fn pack(&self, worth: bool) -> Scratch {
        let (panels, len) = (self.width.div_ceil(COLUMNS), self.padded * COLUMNS);
        let mut packed = Scratch::halves_of(panels * self.panel_len());
        let to = Shared::new(packed.halves_mut());
        parallel::for_each(panels * self.taps, worth, |task| {
            // SAFETY: each task writes a part of its own.
            let to = unsafe { to.slice(task * len, len) };
            self.pack_steps(task / self.taps, task % self.taps * (self.padded / STEP), to);
        });
        packed
    }

    /// The steps of a panel from step `start` on, as many as there is room for.
    fn pack_steps(&self, panel: usize, mut start: usize, mut to: &mut [u16]) {
        let (column, of_tap) = (panel * COLUMNS, self.padded / STEP);
        let width = COLUMNS.min(self.width - column);
        while !to.is_empty() {
            let (tap, first) = (start / of_tap, start % of_tap * STEP);
            let padded = (self.padded - first).min(to.len() / COLUMNS);
            let depth = self.depth.saturating_sub(first).min(padded);
            let (now, rest) = to.split_at_mut(padded * COLUMNS);
            if self.is_turned {
                self.pack_turned(tap, column, first, now);
                (start, to) = (start + padded / STEP, rest);
                continue;
            }
            let row = tap * self.depth + first.min(self.depth);
            let from = self
                .values
                .from((row * self.width + column).min(self.values.len()));
            assert!(
                depth == 0 || from.len() >= (depth - 1) * self.width + width,
                "rows of a panel"
            );
            // SAFETY: a unit is there, or nobody were here; lengths are as just found.
            unsafe { round_panel([depth, padded], width, from, self.width, now.as_mut_ptr()) };
            (start, to) = (start + padded / STEP, rest);
        }
    }
}

/// Values of a panel's step, a row for each of its columns.
type Turning = [[u16; STEP]; COLUMNS];

impl Matrix<'_> {
    /// The steps of a tap's panel from this depth on, where columns lie in one piece.
    fn pack_turned(&self, tap: usize, column: usize, first: usize, to: &mut [u16]) {
        let width = COLUMNS.min(self.width - column);
        let rows = (self.taps - 1 - tap) * self.width + column;
        for (step, to) in to.chunks_exact_mut(STEP_VALUES).enumerate() {
            let first = first + step * STEP;
            let depth = self.depth.saturating_sub(first).min(STEP);
            let mut turning: Turning = [[0; STEP]; COLUMNS];
            if depth > 0 {
                self.round_columns(rows, width, first, depth, &mut turning);
            }
            // Neighbours in depth side by side, for each column.
            for (pair, to) in to.chunks_exact_mut(2 * COLUMNS).enumerate() {
                for (values, to) in turning.iter().zip(to.chunks_exact_mut(2)) {
                    to.copy_from_slice(&values[2 * pair..2 * pair + 2]);
                }
            }
        }
    }

    /// `depth` values of each of `width` columns, the first of which is row `row` of the stored ones.
    fn round_columns(&self, row: usize, width: usize, first: usize, depth: usize, to: &mut Turning) {
        let place = |i: usize| (row + i) * self.depth + first;
        match self.values {
            Stored::Float32(values) => {
                let from = &values[place(0)..place(width - 1) + depth];
                // SAFETY: a unit is there, or nobody were here; `width` rows of `depth` values lie in `from`, and `to` has rows of a step.
                unsafe {
                    let to = to.as_mut_ptr().cast();
                    round_rows(width, [depth, STEP], from.as_ptr(), self.depth, to, STEP);
                }
            }
            // They are what they would be rounded to.
            Stored::Bfloat16(values) => {
                for (i, to) in to.iter_mut().take(width).enumerate() {
                    to[..depth].copy_from_slice(&values[place(i)..][..depth]);
                }
            }
            Stored::Float16(values) => {
                let mut wide = [0.0; STEP];
                for (i, to) in to.iter_mut().take(width).enumerate() {
                    Stored::Float16(&values[place(i)..][..depth]).widen(&mut wide[..depth]);
                    // SAFETY: a unit is there, or nobody were here; both have a step's values.
                    unsafe { round_rows(1, [depth, STEP], wide.as_ptr(), STEP, to.as_mut_ptr(), STEP) };
                }
            }
        }
    }
}

/// Writes the sums of a block with bias and residual.
struct Finish<'a> {
    /// `[ROWS, COLUMNS]`
    sums: &'a [f32],
    block: &'a RowBlock,
    width: usize,
    column: usize,
    bias: Option<&'a [f32]>,
    residual: Residual<'a>,
    y: Shared<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = COLUMNS.min(self.width - self.column);
        for offset in (0..columns).step_by(S::LANES) {
            let n = S::LANES.min(columns - offset);
            let column = self.column + offset;
            // SAFETY: `n` values from `column` on lie within the width of bias, residual and result, as the caller of `forward` checked; no
            // other task writes these.
            unsafe {
                let bias = self
                    .bias
                    .map_or(s.zero(), |bias| load(s, bias[column..].as_ptr(), n));
                for (sums, pixel) in self.sums.chunks_exact(COLUMNS).zip(&self.block.pixels) {
                    let Some(pixel) = *pixel else { continue };
                    let place = pixel * self.width + column;
                    let mut value = s.add(s.load(sums[offset..][..S::LANES].as_ptr()), bias);
                    if let Some(residual) = self.residual.at(self.y, place) {
                        value = s.add(value, load(s, residual, n));
                    }
                    store(s, self.y.part(place, n), n, value);
                }
            }
        }
    }
}
