//! The forward pass of a block of queries.

use super::{Input, Place, rows};
use crate::parallel::Shared;
use crate::simd::{Kernel, Simd, TILE_VECTORS, exp};

pub(super) struct Forward<'a> {
    pub input: &'a Input<'a>,
    pub place: Place,
    pub out: Shared<'a>,
    pub log_sum_exp: Shared<'a>,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { input, place, .. } = self;
        let columns = TILE_VECTORS * S::LANES;
        let (keys, d) = (input.shape.keys, input.shape.head_dim);
        let (mut block, mut scores) = (rows::<S>(d), rows::<S>(keys));
        input.transpose(s, input.q, place, input.scale, block.values_mut());
        input.scores(s, input.k, place, block.values(), scores.values_mut());
        input.hide_later_keys(s, place, scores.values_mut());
        let (mut max, mut sum) = ([0.0f32; 32], [0.0f32; 32]);
        for v in 0..place.vectors::<S>() {
            let start = v * S::LANES;
            // SAFETY: there are `keys` rows of `columns` values, and `columns` is at most 32.
            unsafe {
                let p = scores.values_mut().as_mut_ptr().add(start);
                let mut m = s.splat(f32::NEG_INFINITY);
                for key in 0..keys {
                    m = s.max(m, s.load(p.add(key * columns)));
                }
                let mut total = s.zero();
                for key in 0..keys {
                    let weight = exp(s, s.sub(s.load(p.add(key * columns)), m));
                    s.store(p.add(key * columns), weight);
                    total = s.add(total, weight);
                }
                s.store(max.as_mut_ptr().add(start), m);
                s.store(sum.as_mut_ptr().add(start), total);
            }
        }
        input.weighted(s, input.v, place, scores.values(), block.values_mut());
        input.untranspose(s, block.values_mut(), place, &sum.map(|sum| 1.0 / sum), self.out);
        // SAFETY: each block's rows are written by one task.
        let log_sum_exp = unsafe { self.log_sum_exp.slice(place.row, place.count) };
        for ((row, max), sum) in log_sum_exp.iter_mut().zip(max).zip(sum) {
            *row = max + sum.ln();
        }
    }
}
