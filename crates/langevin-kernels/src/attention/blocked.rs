//! The forward over many keys, some at a time.
//!
//! Where a head's keys and values are more than a core's cache holds, each block of queries would fetch all of them anew. Here a task takes
//! several blocks of queries through the keys together: some keys and values are laid out in a row, and every block finds what it finds
//! there before the next ones come. Scores stay in the first-level cache. Where a larger score comes, what was summed is scaled down (Milakov &
//! Gimelshein 2018; Dao et al. 2022), so that a query's result depends on the number of keys alone.

use super::{AttentionShape, Input, Place, online_softmax, rows};
use crate::parallel::Shared;
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, TILE_VECTORS, exp};
use crate::tile::Left;

/// Keys at a time: with AVX-512 32 KiB of scores, and of heads of 64 channels 128 KiB of keys and values.
const KEYS: usize = 256;

/// Blocks of queries that a task takes.
pub(super) const BLOCKS: usize = 4;

/// Whether an attention is computed here. It depends on the sequences' shape alone.
pub(super) fn suits(shape: &AttentionShape) -> bool {
    !shape.causal && shape.keys > 2 * KEYS
}

/// Some blocks of queries of a head.
pub(super) struct Blocked<'a> {
    pub input: &'a Input<'a>,
    pub isa: Isa,
    pub head: usize,
    /// The first block and how many there are, at most [`BLOCKS`].
    pub first: usize,
    pub count: usize,
    pub out: Shared<'a>,
    pub log_sum_exp: Shared<'a>,
}

impl Kernel for Blocked<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { input, count, .. } = self;
        let columns = TILE_VECTORS * S::LANES;
        let AttentionShape { keys, head_dim, .. } = *input.shape;
        let size = head_dim * columns;
        let places: [Place; BLOCKS] =
            std::array::from_fn(|i| input.place(self.isa, self.head, self.first + i.min(count - 1)));
        let places = &places[..count];
        let (mut queries, mut found) = (rows::<S>(count * head_dim), rows::<S>(count * head_dim));
        let (queries, found) = (queries.values_mut(), found.values_mut());
        for (&place, queries) in places.iter().zip(queries.chunks_exact_mut(size)) {
            input.transpose(s, input.q, place, input.scale, queries);
        }
        let mut scores = rows::<S>(KEYS);
        let (mut k, mut v) = (Scratch::new(KEYS * head_dim), Scratch::new(KEYS * head_dim));
        let (mut largest, mut sums) = ([[f32::NEG_INFINITY; 32]; BLOCKS], [[0.0f32; 32]; BLOCKS]);
        for first in (0..keys).step_by(KEYS) {
            let n = KEYS.min(keys - first);
            self.copy(input.k, first, n, k.values_mut());
            self.copy(input.v, first, n, v.values_mut());
            let (k, v, scores) = (k.values().as_ptr(), v.values().as_ptr(), scores.values_mut());
            for (i, place) in places.iter().enumerate() {
                let queries = &queries[i * size..][..size];
                let found = &mut found[i * size..][..size];
                let row_by_key = Left {
                    start: k,
                    row: head_dim,
                    column: 1,
                };
                // SAFETY: `n` keys were just copied, and there are scores for as many.
                unsafe {
                    let to = scores.as_mut_ptr();
                    place.product(s, [n, head_dim], row_by_key, queries.as_ptr(), to, false);
                }
                let scores = &mut scores[..n * columns];
                let shrink = online_softmax(
                    s,
                    scores,
                    &mut largest[i],
                    &mut sums[i],
                    // As a closure it is inlined, and so compiled for the instructions that are there.
                    #[inline(always)]
                    |s, x| exp(s, x),
                );
                if first > 0 {
                    for found in found.chunks_exact_mut(columns) {
                        let pairs = found.iter_mut().zip(&shrink);
                        pairs.for_each(|(found, shrink)| *found *= shrink);
                    }
                }
                let row_by_channel = Left {
                    start: v,
                    row: 1,
                    column: head_dim,
                };
                // SAFETY: `n` values were just copied, and as many channels are found as they have.
                unsafe {
                    let to = found.as_mut_ptr();
                    let size = [head_dim, n];
                    place.product(s, size, row_by_channel, scores.as_ptr(), to, first > 0);
                }
            }
        }
        for (i, &place) in places.iter().enumerate() {
            let found = &mut found[i * size..][..size];
            let sums = &sums[i];
            input.untranspose(s, found, place, &sums.map(|sum| 1.0 / sum), self.out);
            // SAFETY: each block's rows are written by one task.
            let log_sum_exp = unsafe { self.log_sum_exp.slice(place.row, place.count) };
            for ((row, largest), sum) in log_sum_exp.iter_mut().zip(largest[i]).zip(sums) {
                *row = largest + sum.ln();
            }
        }
    }
}

impl Blocked<'_> {
    /// `n` of the head's keys or values from the `first` one on, one after another.
    #[inline(always)]
    fn copy(&self, from: &[f32], first: usize, n: usize, to: &mut [f32]) {
        let AttentionShape { head_dim, .. } = *self.input.shape;
        let width = self.input.shape.width();
        let start = self.input.place(self.isa, self.head, 0).key + first * width;
        let from = &from[start..][..(n - 1) * width + head_dim];
        for (from, to) in from.chunks(width).zip(to.chunks_exact_mut(head_dim)) {
            to.copy_from_slice(&from[..head_dim]);
        }
    }
}
