//! The forward by products of bf16 values, with scores, softmax and sums in float32.
//!
//! Keys and values of every head are rounded once, values turned so that keys are their depth. A task then takes a block of queries through the
//! keys, some at a time, so that the scores stay in the first-level cache: where a larger score comes, what was summed is scaled
//! down (Milakov & Gimelshein 2018; Dao et al. 2022). Queries are in the lanes, as in [`super::forward`], and their weights become the right-hand
//! panel of the second product as they are.

use super::{AttentionShape, Input, Place, online_softmax};
use crate::Stored;
use crate::half::{Bf16Unit, Block, COLUMNS, ROWS, STEP, Segment, Session, round_panel, round_rows};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, exp2_of_weight};

/// Keys at a time: 32 KiB of scores.
const KEYS: usize = 256;

/// Whether an attention is computed here. It depends on the sequences' shape alone.
pub(super) fn suits(shape: &AttentionShape) -> bool {
    !shape.causal && shape.head_dim >= 16 && shape.keys >= 16
}

/// As [`super::attention_forward`], lengths checked.
pub(super) fn forward(unit: Bf16Unit, input: &Input, out: Shared, log_sum_exp: Shared) {
    let shape = input.shape;
    let heads = shape.batch * shape.heads;
    if heads * shape.queries == 0 {
        return;
    }
    let layout = Layout::of(shape);
    let blocks = shape.keys.div_ceil(layout.keys);
    let mut rounded = Scratch::halves_of(heads * blocks * layout.len());
    let worth = shape.worth_threads();
    let to = Shared::new(rounded.halves_mut());
    parallel::for_each(heads * blocks, worth, |task| {
        // SAFETY: each task writes a block of its own.
        let to = unsafe { to.slice(task * layout.len(), layout.len()) };
        Isa::Avx512.run(Round {
            input,
            layout,
            head: task / blocks,
            first: task % blocks * layout.keys,
            to,
        });
    });
    let query_blocks = shape.queries.div_ceil(COLUMNS);
    parallel::for_each(heads * query_blocks, worth, |task| {
        let head = task / query_blocks;
        Isa::Avx512.run(Queries {
            session: Session::new(unit),
            input,
            layout,
            place: input.place(Isa::Avx512, head, task % query_blocks),
            keys_and_values: &rounded.halves()[head * blocks * layout.len()..][..blocks * layout.len()],
            out,
            log_sum_exp,
        });
    });
}

/// How a block of keys and values lies: `[keys, channels]` and `[channels, keys]`, with zeros up to whole tiles.
#[derive(Clone, Copy)]
struct Layout {
    /// Keys of a block, a multiple of [`ROWS`].
    keys: usize,
    /// Channels as a depth, and as rows.
    depth: usize,
    rows: usize,
    /// From a row to the next: odd numbers of cache lines.
    key_step: usize,
    value_step: usize,
}

impl Layout {
    fn of(shape: &AttentionShape) -> Self {
        let odd = |values: usize| (values.div_ceil(STEP) | 1) * STEP;
        let keys = KEYS.min(shape.keys.next_multiple_of(ROWS));
        let depth = shape.head_dim.next_multiple_of(STEP);
        Self {
            keys,
            depth,
            rows: shape.head_dim.next_multiple_of(16),
            key_step: odd(depth),
            value_step: odd(keys),
        }
    }

    /// Values of the keys' part.
    fn key_len(&self) -> usize {
        self.keys * self.key_step
    }

    fn len(&self) -> usize {
        self.key_len() + self.rows * self.value_step
    }
}

/// Rounds a block of keys and values.
struct Round<'a> {
    input: &'a Input<'a>,
    layout: Layout,
    head: usize,
    /// The first key.
    first: usize,
    to: &'a mut [u16],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { input, layout, .. } = self;
        let (d, width) = (input.shape.head_dim, input.shape.width());
        let count = layout.keys.min(input.shape.keys - self.first);
        let key = (self.head / input.shape.heads * input.shape.keys + self.first) * width
            + self.head % input.shape.heads * d;
        let [k, v] = [input.k, input.v].map(|of| &of[key..][..(count - 1) * width + d]);
        let (keys, values) = self.to.split_at_mut(layout.key_len());
        // SAFETY: a unit is there, or nobody were here; the rows of both are there.
        unsafe {
            round_rows(
                count,
                [d, layout.depth],
                k.as_ptr(),
                width,
                keys.as_mut_ptr(),
                layout.key_step,
            );
        }
        keys[count * layout.key_step..].fill(0);
        let mut turned = [0.0f32; 16 * 16];
        for channel in (0..layout.rows).step_by(16) {
            for key in (0..layout.keys).step_by(16) {
                let (channels, rows) = (16.min(d - channel), 16.min(count.saturating_sub(key)));
                if channels == 16 && rows == 16 && S::LANES == 16 {
                    // SAFETY: a whole square of values is there, and `turned` has room for it.
                    unsafe {
                        s.transpose(
                            v[key * width + channel..].as_ptr(),
                            width,
                            turned.as_mut_ptr(),
                            16,
                        )
                    };
                } else {
                    turned.fill(0.0);
                    for row in 0..rows {
                        for c in 0..channels {
                            turned[c * 16 + row] = v[(key + row) * width + channel + c];
                        }
                    }
                }
                let to = &mut values[channel * layout.value_step + key..][..15 * layout.value_step + 16];
                // SAFETY: as above.
                unsafe {
                    round_rows(
                        16,
                        [16, 16],
                        turned.as_ptr(),
                        16,
                        to.as_mut_ptr(),
                        layout.value_step,
                    )
                };
            }
        }
    }
}

/// A block of queries.
struct Queries<'a> {
    session: Session,
    input: &'a Input<'a>,
    layout: Layout,
    place: Place,
    /// This head's blocks.
    keys_and_values: &'a [u16],
    out: Shared<'a>,
    log_sum_exp: Shared<'a>,
}

impl Kernel for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            session,
            input,
            layout,
            place,
            ..
        } = self;
        let d = input.shape.head_dim;
        // `[channel, query]`: the queries, and then what they find.
        let mut block = Scratch::new(layout.rows.max(d) * COLUMNS);
        let mut queries = Scratch::halves_of(layout.depth * COLUMNS);
        let mut scores = Scratch::new(layout.keys * COLUMNS);
        let mut weights = Scratch::halves_of(layout.keys * COLUMNS);
        // Scores in powers of two, whose exponential is shorter.
        let factor = input.scale * std::f32::consts::LOG2_E;
        input.transpose(s, input.q, place, factor, block.values_mut());
        let (scores, weights) = (scores.values_mut(), weights.halves_mut());
        // SAFETY: a unit is there, or nobody were here; both have the depth.
        unsafe {
            let to = queries.halves_mut().as_mut_ptr();
            round_panel(
                [d, layout.depth],
                COLUMNS,
                Stored::Float32(block.values()),
                COLUMNS,
                to,
            );
        }
        let (mut largest, mut sums) = ([f32::NEG_INFINITY; COLUMNS], [0.0f32; COLUMNS]);
        for (i, part) in self.keys_and_values.chunks_exact(layout.len()).enumerate() {
            let count = layout.keys.min(input.shape.keys - i * layout.keys);
            let (keys, values) = part.split_at(layout.key_len());
            let found = &mut block.values_mut()[..layout.rows * COLUMNS];
            for first in (0..count).step_by(ROWS) {
                // SAFETY: keys are padded to whole blocks, and scores have room for them.
                unsafe {
                    session.multiply(&Block {
                        a: keys[first * layout.key_step..].as_ptr(),
                        a_step: layout.key_step,
                        segments: &[Segment {
                            offset: 0,
                            steps: layout.depth / STEP,
                        }],
                        b: queries.halves().as_ptr(),
                        c: scores[first * COLUMNS..][..ROWS * COLUMNS].as_mut_ptr(),
                        c_step: COLUMNS,
                        is_tall: true,
                        accumulate: false,
                    });
                }
            }
            let scores = &mut scores[..count * COLUMNS];
            let shrink = online_softmax(
                s,
                scores,
                &mut largest,
                &mut sums,
                #[inline(always)]
                |s, x| exp2_of_weight(s, x),
            );
            if i > 0 {
                for found in found.chunks_exact_mut(COLUMNS) {
                    found
                        .iter_mut()
                        .zip(&shrink)
                        .for_each(|(found, shrink)| *found *= shrink);
                }
            }
            let padded = count.next_multiple_of(STEP);
            // SAFETY: a unit is there, or nobody were here; both have the keys.
            unsafe {
                round_panel(
                    [count, padded],
                    COLUMNS,
                    Stored::Float32(scores),
                    COLUMNS,
                    weights.as_mut_ptr(),
                );
            }
            for first in (0..layout.rows).step_by(ROWS) {
                let rows = ROWS.min(layout.rows - first);
                // SAFETY: values have `rows` rows, 32 or 16, and as many channels are found.
                unsafe {
                    session.multiply(&Block {
                        a: values[first * layout.value_step..].as_ptr(),
                        a_step: layout.value_step,
                        segments: &[Segment {
                            offset: 0,
                            steps: padded / STEP,
                        }],
                        b: weights.as_ptr(),
                        c: found[first * COLUMNS..][..rows * COLUMNS].as_mut_ptr(),
                        c_step: COLUMNS,
                        is_tall: rows == ROWS,
                        accumulate: i > 0,
                    });
                }
            }
        }
        input.untranspose(s, block.values_mut(), place, &sums.map(|sum| 1.0 / sum), self.out);
        // SAFETY: each block's rows are written by one task.
        let log_sum_exp = unsafe { self.log_sum_exp.slice(place.row, place.count) };
        for ((row, largest), sum) in log_sum_exp.iter_mut().zip(largest).zip(sums) {
            *row = (largest + sum.log2()) * std::f32::consts::LN_2;
        }
    }
}
