//! The backward pass of a head.
//!
//! Scores are computed again, block by block, from queries, keys and the logarithms of the softmax's sums:
//! `p = exp(s − lse)`, `dp = gout · v`, `ds = p · (dp − Σ gout · out)`.

use super::{Input, Place, rows};
use crate::parallel::Shared;
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, TILE_VECTORS, exp, load};
use crate::tile::{self, Left, pack_rows};

/// What the forward pass made, and its gradient.
pub(super) struct Outcome<'a> {
    pub out: &'a [f32],
    pub log_sum_exp: &'a [f32],
    pub gout: &'a [f32],
}

pub(super) struct Backward<'a> {
    pub input: &'a Input<'a>,
    pub outcome: &'a Outcome<'a>,
    pub isa: Isa,
    pub head: usize,
    pub gq: Shared<'a>,
    pub gk: Shared<'a>,
    pub gv: Shared<'a>,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { input, outcome, .. } = self;
        let columns = TILE_VECTORS * S::LANES;
        let (keys, d) = (input.shape.keys, input.shape.head_dim);
        let panels = d.div_ceil(columns);
        let (mut block, mut weights, mut slopes) = (rows::<S>(d), rows::<S>(keys), rows::<S>(keys));
        let (mut gk, mut gv) = (rows::<S>(panels * keys), rows::<S>(panels * keys));
        for index in 0..input.shape.queries.div_ceil(columns) {
            let place = input.place(self.isa, self.head, index);
            input.transpose(s, input.q, place, input.scale, block.values_mut());
            input.scores(s, input.k, place, block.values(), weights.values_mut());
            input.hide_later_keys(s, place, weights.values_mut());
            input.transpose(s, outcome.gout, place, 1.0, block.values_mut());
            input.scores(s, input.v, place, block.values(), slopes.values_mut());
            self.softmax(s, place, weights.values_mut(), slopes.values_mut());
            input.weighted(s, input.k, place, slopes.values(), block.values_mut());
            input.untranspose(s, block.values_mut(), place, &[input.scale; 32], self.gq);
            let first = index == 0;
            self.accumulate(s, place, outcome.gout, weights.values(), gv.values_mut(), first);
            self.accumulate(s, place, input.q, slopes.values(), gk.values_mut(), first);
        }
        let key = input.place(self.isa, self.head, 0).key;
        for (from, factor, to) in [(&gk, input.scale, self.gk), (&gv, 1.0, self.gv)] {
            let from = &from.values()[..panels * keys * columns];
            for i in 0..keys {
                // SAFETY: each key's channels of a head are written by one task.
                let to = unsafe { to.slice(key + i * input.shape.width(), d) };
                if in_pairs::<S>(d) {
                    let pairs = from[i * columns..].chunks_exact(2);
                    to.iter_mut()
                        .zip(pairs)
                        .for_each(|(to, from)| *to = factor * (from[0] + from[1]));
                    continue;
                }
                for (panel, to) in to.chunks_mut(columns).enumerate() {
                    let from = &from[(panel * keys + i) * columns..][..to.len()];
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * from);
                }
            }
        }
    }
}

impl Backward<'_> {
    /// Turns scores into the softmax's weights, and gradients of weights into those of scores (before the scale).
    #[inline(always)]
    fn softmax<S: Simd>(&self, s: S, place: Place, weights: &mut [f32], slopes: &mut [f32]) {
        let Self { input, outcome, .. } = *self;
        let columns = TILE_VECTORS * S::LANES;
        let (keys, d) = (input.shape.keys, input.shape.head_dim);
        // Beyond the block's queries weights become 0.
        let (mut lse, mut delta) = ([f32::INFINITY; 32], [0.0f32; 32]);
        lse[..place.count].copy_from_slice(&outcome.log_sum_exp[place.row..][..place.count]);
        for (query, delta) in delta.iter_mut().enumerate().take(place.count) {
            let start = place.query + query * input.shape.width();
            let (out, gout) = (&outcome.out[start..][..d], &outcome.gout[start..][..d]);
            *delta = out.iter().zip(gout).map(|(o, g)| o * g).sum();
        }
        assert!(
            weights.len() >= keys * columns && slopes.len() >= keys * columns,
            "scores of all keys"
        );
        for v in 0..place.vectors::<S>() {
            let start = v * S::LANES;
            // SAFETY: there are `keys` rows of `columns` values in both, and `columns` is at most 32.
            unsafe {
                let (lse, delta) = (s.load(lse.as_ptr().add(start)), s.load(delta.as_ptr().add(start)));
                for key in 0..keys {
                    let p = weights.as_mut_ptr().add(key * columns + start);
                    let ds = slopes.as_mut_ptr().add(key * columns + start);
                    // The logarithms are the caller's: those of other scores give infinity, as they should.
                    let weight = exp(s, s.min(s.splat(89.0), s.sub(s.load(p), lse)));
                    s.store(p, weight);
                    s.store(ds, s.mul(weight, s.sub(s.load(ds), delta)));
                }
            }
        }
    }

    /// `sums[key][channel] += Σ weights[key][query] · values[query][channel]`, with `sums` in panels of channels, or as
    /// [`in_pairs`] says.
    #[inline(always)]
    fn accumulate<S: Simd>(
        &self,
        s: S,
        place: Place,
        values: &[f32],
        weights: &[f32],
        sums: &mut [f32],
        first: bool,
    ) {
        let columns = TILE_VECTORS * S::LANES;
        let (keys, d) = (self.input.shape.keys, self.input.shape.head_dim);
        let width = self.input.shape.width();
        let mut packed = Scratch::new(place.count * columns);
        assert!(weights.len() >= keys * columns && sums.len() >= d.div_ceil(columns) * keys * columns);
        assert!(
            values.len() >= place.query + (place.count - 1) * width + d,
            "the block's queries"
        );
        if in_pairs::<S>(d) {
            for query in (0..place.count).step_by(2) {
                // SAFETY: a query has `d` values, and two of them have a row of `packed`; the lengths were just checked.
                unsafe {
                    let from = values.as_ptr().add(place.query + query * width);
                    let next = if query + 1 < place.count {
                        load(s, from.add(width), d)
                    } else {
                        s.zero()
                    };
                    let to = packed.values_mut().as_mut_ptr().add(query * S::LANES);
                    s.store(to, s.interleave(load(s, from, d), next));
                }
            }
            let pairs = place.count.div_ceil(2);
            let (mut key, packed) = (0, packed.values().as_ptr());
            while key < keys {
                // SAFETY: `keys` rows of weights and of sums were just found to be there. Of the last query of an odd number the
                // neighbour's weights are 0.
                unsafe {
                    let (a, c) = (
                        weights.as_ptr().add(key * columns),
                        sums.as_mut_ptr().add(key * columns),
                    );
                    key += match keys - key {
                        12.. => multiply_pairs::<S, 12>(s, pairs, a, packed, c, first),
                        4.. => multiply_pairs::<S, 4>(s, pairs, a, packed, c, first),
                        _ => multiply_pairs::<S, 1>(s, pairs, a, packed, c, first),
                    };
                }
            }
            return;
        }
        for (panel, channel) in (0..d).step_by(columns).enumerate() {
            let channels = columns.min(d - channel);
            let a = Left {
                start: weights.as_ptr(),
                row: columns,
                column: 1,
            };
            let size = [keys, place.count];
            // SAFETY: the lengths were just checked.
            unsafe {
                let from = values.as_ptr().add(place.query + channel);
                pack_rows(
                    s,
                    place.count,
                    channels,
                    from,
                    width,
                    packed.values_mut().as_mut_ptr(),
                );
                let b = packed.values().as_ptr();
                let c = sums.as_mut_ptr().add(panel * keys * columns);
                if channels > S::LANES {
                    tile::product::<S, TILE_VECTORS>(s, size, a, b, c, !first);
                } else {
                    tile::product::<S, 1>(s, size, a, b, c, !first);
                }
            }
        }
    }
}

/// Whether the gradients of keys and values of heads with `d` channels are summed for two queries at a time: lanes hold a channel of
/// the one, then of the other, so that heads of 8 channels, diffusers' default, fill 16 of them. The two sums are added at the end.
#[inline(always)]
fn in_pairs<S: Simd>(d: usize) -> bool {
    S::LANES == 16 && 2 * d <= S::LANES
}

/// `c[r] = (c[r] unless first) + Σᵢ a[r][2i], a[r][2i + 1] in turns · b[i]` for `R` rows, which it returns.
///
/// # Safety
/// `a` has `R` rows of two values for each pair, `b` a vector for each, in rows of two vectors' width, and `c` has `R` such rows.
#[inline(always)]
unsafe fn multiply_pairs<S: Simd, const R: usize>(
    s: S,
    pairs: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    first: bool,
) -> usize {
    let columns = TILE_VECTORS * S::LANES;
    let mut acc = [s.zero(); R];
    // SAFETY: the caller's promise.
    unsafe {
        if !first {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = s.load(c.add(r * columns));
            }
        }
        for i in 0..pairs {
            let b = s.load(b.add(i * columns));
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = s.fma(s.splat_pair(a.add(r * columns + 2 * i)), b, *acc);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            s.store(c.add(r * columns), acc);
        }
    }
    R
}
