//! Multi-head attention without a stored score matrix.
//!
//! Work goes by head and by block of as many queries as the register tile is wide. Everything is computed transposed, with
//! queries in the lanes: scores are `[key, query]`, so that the softmax is a vertical maximum, exponential and sum;
//! keys and values are left matrices, whose values the register tile broadcasts from where they lie; and heads of 8
//! channels, diffusers' default, fill the lanes as well as heads of 128. Only one block's scores exist at a time.
//!
//! Each query is a lane of its own, so its result does not depend on its neighbours; gradients of keys and values sum over the
//! blocks of queries in order.

mod backward;
mod blocked;
mod forward;
mod half;

use crate::Bf16Unit;
use crate::parallel::{self, GRAIN_PRODUCTS, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Simd, TILE_VECTORS};
use crate::tile::{self, Left};
use backward::{Backward, Outcome};
use blocked::Blocked;
use forward::Forward;

/// The sizes of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Number of sequences.
    pub batch: usize,
    /// Tokens in each sequence of queries.
    pub queries: usize,
    /// Tokens in each sequence of keys and values.
    pub keys: usize,
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Whether a query sees only the keys up to its own place; there are then as many queries as keys.
    pub causal: bool,
}

impl AttentionShape {
    const fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn worth_threads(&self) -> bool {
        self.batch * self.queries * self.keys * self.width() >= GRAIN_PRODUCTS
    }

    fn check(&self, q: usize, k: usize, v: usize, lse: usize) {
        assert!(self.keys > 0, "attention needs at least one key");
        assert!(
            !self.causal || self.queries == self.keys,
            "causal attention is a sequence's with itself: {self:?}"
        );
        assert_eq!(
            q,
            self.batch * self.queries * self.width(),
            "q, out and their gradients: {self:?}"
        );
        assert_eq!(
            k,
            self.batch * self.keys * self.width(),
            "k and its gradient: {self:?}"
        );
        assert_eq!(
            v,
            self.batch * self.keys * self.width(),
            "v and its gradient: {self:?}"
        );
        assert_eq!(
            lse,
            self.batch * self.heads * self.queries,
            "log_sum_exp: {self:?}"
        );
    }
}

/// Computes `out = softmax(scale · q kᵀ) v` for each sequence and head; a causal softmax is over the keys up to the query's place.
///
/// # Shapes
/// - `q`, `out`: `[batch, queries, heads · head_dim]`
/// - `k`, `v`: `[batch, keys, heads · head_dim]`
/// - `log_sum_exp`: `[batch, heads, queries]`, written: the logarithm of each row's `Σ exp(scale · q k)`, which
///   [`attention_backward`] needs
///
/// # Panics
/// If a slice's length does not match the shape, or there are no keys.
pub fn attention_forward(
    shape: &AttentionShape,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    shape.check(q.len(), k.len(), v.len(), log_sum_exp.len());
    assert_eq!(out.len(), q.len(), "out must have q's shape");
    let isa = Isa::current();
    let blocks = shape.queries.div_ceil(isa.tile_columns());
    let (out, log_sum_exp) = (Shared::new(out), Shared::new(log_sum_exp));
    let input = Input {
        shape,
        scale,
        q,
        k,
        v,
    };
    let (heads, worth) = (shape.batch * shape.heads, shape.worth_threads());
    if blocked::suits(shape) {
        let tasks = blocks.div_ceil(blocked::BLOCKS);
        return parallel::for_each(heads * tasks, worth, |task| {
            let first = task % tasks * blocked::BLOCKS;
            isa.run(Blocked {
                input: &input,
                isa,
                head: task / tasks,
                first,
                count: blocked::BLOCKS.min(blocks - first),
                out,
                log_sum_exp,
            });
        });
    }
    parallel::for_each(heads * blocks, worth, |task| {
        let place = input.place(isa, task / blocks, task % blocks);
        isa.run(Forward {
            input: &input,
            place,
            out,
            log_sum_exp,
        });
    });
}

/// [`attention_forward`] by products of values rounded to bf16, with sums and softmax in float32, where the processor has instructions for it and
/// the attention gains by them: it is not causal, and its heads have 16 channels and more, and 16 keys. What is otherwise is
/// [`attention_forward`]'s.
///
/// # Shapes
/// Those of [`attention_forward`].
///
/// # Panics
/// As [`attention_forward`].
pub fn attention_forward_bf16(
    shape: &AttentionShape,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    let unit = Bf16Unit::current().filter(|_| half::suits(shape));
    let Some(unit) = unit else {
        return attention_forward(shape, scale, q, k, v, out, log_sum_exp);
    };
    shape.check(q.len(), k.len(), v.len(), log_sum_exp.len());
    assert_eq!(out.len(), q.len(), "out must have q's shape");
    let input = Input {
        shape,
        scale,
        q,
        k,
        v,
    };
    half::forward(unit, &input, Shared::new(out), Shared::new(log_sum_exp));
}

/// The gradients of [`attention_forward`] with respect to `q`, `k` and `v`.
///
/// # Shapes
/// - `q`, `out`, `gout`, `gq`: `[batch, queries, heads · head_dim]`
/// - `k`, `v`, `gk`, `gv`: `[batch, keys, heads · head_dim]`
/// - `log_sum_exp`: `[batch, heads, queries]`, as the forward pass left it
///
/// `gq`, `gk` and `gv` are overwritten.
///
/// # Panics
/// If a slice's length does not match the shape.
#[expect(
    clippy::too_many_arguments,
    reason = "a gradient names all that it reads and writes"
)]
pub fn attention_backward(
    shape: &AttentionShape,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    log_sum_exp: &[f32],
    gout: &[f32],
    gq: &mut [f32],
    gk: &mut [f32],
    gv: &mut [f32],
) {
    shape.check(q.len(), k.len(), v.len(), log_sum_exp.len());
    shape.check(gq.len(), gk.len(), gv.len(), log_sum_exp.len());
    assert!(
        out.len() == q.len() && gout.len() == q.len(),
        "out and gout must have q's shape"
    );
    let isa = Isa::current();
    let (gq, gk, gv) = (Shared::new(gq), Shared::new(gk), Shared::new(gv));
    let input = Input {
        shape,
        scale,
        q,
        k,
        v,
    };
    let outcome = Outcome {
        out,
        log_sum_exp,
        gout,
    };
    // Sums over queries go through all of them in order, so a head is one task.
    parallel::for_each(shape.batch * shape.heads, shape.worth_threads(), |head| {
        isa.run(Backward {
            input: &input,
            outcome: &outcome,
            isa,
            head,
            gq,
            gk,
            gv,
        });
    });
}

/// What both passes read.
struct Input<'a> {
    shape: &'a AttentionShape,
    scale: f32,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

/// A block of queries of one head.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the first query's first channel into `q`, and of the first key's into `k` and `v`.
    query: usize,
    key: usize,
    /// Index of the first query into `log_sum_exp`.
    row: usize,
    /// The first query's place in its sequence.
    first: usize,
    /// Number of queries.
    count: usize,
}

impl Place {
    /// Vectors that hold the block's queries.
    #[inline(always)]
    fn vectors<S: Simd>(&self) -> usize {
        self.count.div_ceil(S::LANES)
    }

    /// [`tile::product`] of the columns that hold the block's queries.
    ///
    /// # Safety
    /// As its.
    #[inline(always)]
    unsafe fn product<S: Simd>(
        &self,
        s: S,
        size: [usize; 2],
        a: Left,
        b: *const f32,
        c: *mut f32,
        accumulate: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.vectors::<S>() {
                1 => tile::product::<S, 1>(s, size, a, b, c, accumulate),
                _ => tile::product::<S, TILE_VECTORS>(s, size, a, b, c, accumulate),
            }
        }
    }
}

impl Input<'_> {
    /// Block `block` of head `head` of all sequences' heads.
    fn place(&self, isa: Isa, head: usize, block: usize) -> Place {
        let AttentionShape {
            queries,
            keys,
            heads,
            head_dim,
            ..
        } = *self.shape;
        let (n, h, first) = (head / heads, head % heads, block * isa.tile_columns());
        Place {
            query: (n * queries + first) * self.shape.width() + h * head_dim,
            key: n * keys * self.shape.width() + h * head_dim,
            row: head * queries + first,
            first,
            count: isa.tile_columns().min(queries - first),
        }
    }

    /// This head's keys or values as a matrix `[keys, head_dim]`.
    fn tokens(&self, values: &[f32], place: Place) -> Left {
        let end = place.key + (self.shape.keys - 1) * self.shape.width() + self.shape.head_dim;
        assert!(end <= values.len(), "keys and values of the whole sequence");
        Left {
            start: values[place.key..].as_ptr(),
            row: self.shape.width(),
            column: 1,
        }
    }

    /// `to[channel][query] = factor · from[query][channel]`, zeros beyond the block's queries.
    #[inline(always)]
    fn transpose<S: Simd>(&self, s: S, from: &[f32], place: Place, factor: f32, to: &mut [f32]) {
        let columns = TILE_VECTORS * S::LANES;
        let (d, width) = (self.shape.head_dim, self.shape.width());
        let to = &mut to[..d * columns];
        if place.count < columns {
            to.fill(0.0);
        }
        let from = &from[place.query..][..(place.count - 1) * width + d];
        squares::<S>(
            [place.count, d],
            #[inline(always)]
            |[query, channel], [rows, n]| {
                let (start, end) = (query * width + channel, channel * columns + query);
                if rows == S::LANES && (n == S::LANES || 2 * n == S::LANES) {
                    // SAFETY: each query has `n` channels from `channel` on, and each channel a place for all of the block's queries.
                    unsafe {
                        let (from, to) = (from.as_ptr().add(start), to.as_mut_ptr().add(end));
                        if n == S::LANES {
                            s.transpose(from, width, to, columns);
                        } else {
                            s.transpose_narrow(from, width, to, columns);
                        }
                    }
                    return;
                }
                for row in 0..rows {
                    let from = &from[start + row * width..][..n];
                    for (column, &value) in from.iter().enumerate() {
                        to[end + column * columns + row] = value;
                    }
                }
            },
        );
        if factor != 1.0 {
            to.iter_mut().for_each(|to| *to *= factor);
        }
    }

    /// `to[query][channel] = factor[query] · from[channel][query]`; `from` is left so multiplied.
    #[inline(always)]
    fn untranspose<S: Simd>(&self, s: S, from: &mut [f32], place: Place, factor: &[f32], to: Shared) {
        let columns = TILE_VECTORS * S::LANES;
        let (d, width) = (self.shape.head_dim, self.shape.width());
        let (from, factor) = (&mut from[..d * columns], &factor[..columns]);
        for from in from.chunks_exact_mut(columns) {
            let queries = from[..place.count].iter_mut();
            queries.zip(factor).for_each(|(from, factor)| *from *= factor);
        }
        squares::<S>(
            [place.count, d],
            #[inline(always)]
            |[query, channel], [rows, n]| {
                let start = channel * columns + query;
                let place = place.query + query * width + channel;
                if rows == S::LANES && (n == S::LANES || 2 * n == S::LANES) {
                    let to = to.part(place, (rows - 1) * width + n);
                    // SAFETY: each channel has the block's queries; the rows of `to` were just found to be there, and each
                    // query's channels of a head are written by one task.
                    unsafe {
                        let from = from.as_ptr().add(start);
                        if n == S::LANES {
                            s.transpose(from, columns, to, width);
                        } else {
                            s.transpose_low(from, columns, to, width);
                        }
                    }
                    return;
                }
                for row in 0..rows {
                    // SAFETY: as above.
                    let to = unsafe { to.slice(place + row * width, n) };
                    for (column, to) in to.iter_mut().enumerate() {
                        *to = from[start + column * columns + row];
                    }
                }
            },
        );
    }

    /// `to[key][query] = Σ tokens[key][channel] · block[channel][query]`.
    #[inline(always)]
    fn scores<S: Simd>(&self, s: S, tokens: &[f32], place: Place, block: &[f32], to: &mut [f32]) {
        let columns = TILE_VECTORS * S::LANES;
        let AttentionShape { keys, head_dim, .. } = *self.shape;
        assert!(
            block.len() >= head_dim * columns && to.len() >= keys * columns,
            "a block and its scores"
        );
        let a = self.tokens(tokens, place);
        // SAFETY: `tokens` checked the left matrix, and the others just were.
        unsafe {
            place.product(s, [keys, head_dim], a, block.as_ptr(), to.as_mut_ptr(), false);
        }
    }

    /// Takes the scores of keys that a query does not see out of the softmax.
    #[inline(always)]
    fn hide_later_keys<S: Simd>(&self, _: S, place: Place, scores: &mut [f32]) {
        let columns = TILE_VECTORS * S::LANES;
        if self.shape.causal {
            // The first query's own key is the last that every query of the block sees.
            for key in place.first + 1..self.shape.keys {
                let blind = columns.min(key - place.first);
                scores[key * columns..][..blind].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// `to[channel][query] = Σ tokens[key][channel] · weights[key][query]`.
    #[inline(always)]
    fn weighted<S: Simd>(&self, s: S, tokens: &[f32], place: Place, weights: &[f32], to: &mut [f32]) {
        let columns = TILE_VECTORS * S::LANES;
        let AttentionShape { keys, head_dim, .. } = *self.shape;
        assert!(
            to.len() >= head_dim * columns && weights.len() >= keys * columns,
            "a block and its weights"
        );
        let Left { start, row, column } = self.tokens(tokens, place);
        let a = Left {
            start,
            row: column,
            column: row,
        };
        // SAFETY: `tokens` checked the left matrix, and the others just were.
        unsafe {
            place.product(s, [head_dim, keys], a, weights.as_ptr(), to.as_mut_ptr(), false);
        }
    }
}

/// Makes weights of some keys' scores, relative to the largest score so far, by the exponential `exp`; what earlier sums are to be multiplied
/// with. A score is a row as wide as the register tile, which has at most 32 columns.
#[inline(always)]
fn online_softmax<S: Simd>(
    s: S,
    scores: &mut [f32],
    largest: &mut [f32; 32],
    sums: &mut [f32; 32],
    exp: impl Fn(S, S::F) -> S::F,
) -> [f32; 32] {
    let columns = TILE_VECTORS * S::LANES;
    let mut shrink = [0.0f32; 32];
    let keys = scores.len() / columns;
    for start in (0..columns).step_by(S::LANES) {
        // SAFETY: there are `keys` rows of `columns` values, `columns` is a multiple of the lanes, and at most 32.
        unsafe {
            let p = scores.as_mut_ptr().add(start);
            let before = s.load(largest.as_ptr().add(start));
            let mut m = before;
            for key in 0..keys {
                m = s.max(m, s.load(p.add(key * columns)));
            }
            let mut total = s.zero();
            for key in 0..keys {
                let weight = exp(s, s.sub(s.load(p.add(key * columns)), m));
                s.store(p.add(key * columns), weight);
                total = s.add(total, weight);
            }
            let factor = exp(s, s.sub(before, m));
            s.store(shrink.as_mut_ptr().add(start), factor);
            s.store(largest.as_mut_ptr().add(start), m);
            let sum = s.fma(s.load(sums.as_ptr().add(start)), factor, total);
            s.store(sums.as_mut_ptr().add(start), sum);
        }
    }
    shrink
}

/// Calls `f(start, size)` for the squares, as wide as a vector, that a matrix of this size falls into, and for what is left at its edges.
#[inline(always)]
fn squares<S: Simd>([rows, columns]: [usize; 2], mut f: impl FnMut([usize; 2], [usize; 2])) {
    for row in (0..rows).step_by(S::LANES) {
        for column in (0..columns).step_by(S::LANES) {
            f(
                [row, column],
                [S::LANES.min(rows - row), S::LANES.min(columns - column)],
            );
        }
    }
}

/// Scratch for `rows` rows as wide as the register tile.
fn rows<S: Simd>(rows: usize) -> Scratch {
    Scratch::new(rows * TILE_VECTORS * S::LANES)
}
