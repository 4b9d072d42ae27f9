//! The exponential function and what is made of it.

use super::Simd;

/// `exp(x)` to about 1 unit in the last place: 0 below −104, infinity above 88.8, not a number for not a number.
///
/// `x = n · ln 2 + r` with `|r| ≤ ln 2 / 2`, `ln 2` in two parts so that `r` is exact to the last place, and the
/// polynomial of Cephes' `expf` for `exp(r)`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.splat(90.0), s.max(s.splat(-105.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.fma(p, s.mul(r, r), s.add(r, s.splat(1.0)));
    s.scale_by_power(p, n)
}

/// `1 / (1 + exp(−x))`.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// `x · sigmoid(x)`, with 0 for −∞.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    // Below −104 the result is 0 in any case, and −∞ · 0 would not be a number.
    let x = s.max(s.splat(-104.0), x);
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.zero(), x))))
}

/// The derivative of [`silu`]: `σ · (1 + x · (1 − σ))`.
#[inline(always)]
pub(crate) fn silu_slope<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond ±104 the slope is 0 or 1, and ∞ · 0 would not be a number.
    let x = s.min(s.splat(104.0), s.max(s.splat(-104.0), x));
    let sigmoid = sigmoid(s, x);
    s.mul(sigmoid, s.fma(x, s.sub(s.splat(1.0), sigmoid), s.splat(1.0)))
}

/// [`silu`] and [`silu_slope`] by one exponential; the first has the same bits.
#[inline(always)]
pub(crate) fn silu_and_slope<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let one = s.splat(1.0);
    let x = s.max(s.splat(-104.0), x);
    let denominator = s.add(one, exp(s, s.sub(s.zero(), x)));
    let sigmoid = s.div(one, denominator);
    let slope = s.fma(s.min(s.splat(104.0), x), s.sub(one, sigmoid), one);
    (s.div(x, denominator), s.mul(sigmoid, slope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel};

    struct Each<'a>(fn(f64) -> f64, u8, &'a [f32]);

    impl Kernel for Each<'_> {
        type Output = f64;
        /// The largest relative error, against the function in `f64`.
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f64 {
            let mut worst = 0.0f64;
            for &x in self.2 {
                let y = match self.1 {
                    0 => exp(s, s.splat(x)),
                    1 => sigmoid(s, s.splat(x)),
                    2 => silu(s, s.splat(x)),
                    _ => silu_slope(s, s.splat(x)),
                };
                let y = f64::from(s.sum(y)) / S::LANES as f64;
                let truth = self.0(f64::from(x));
                worst = worst.max((y - truth).abs() / truth.abs().max(f64::from(f32::MIN_POSITIVE)));
            }
            worst
        }
    }

    #[test]
    fn are_within_a_few_units_of_the_last_place() {
        let values = |range: f32| {
            (-20_000..=20_000)
                .map(|i| i as f32 / 20_000.0 * range)
                .collect::<Vec<_>>()
        };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for &isa in Isa::ALL {
            assert!(isa.run(Each(f64::exp, 0, &values(84.0))) < 2e-7, "{isa:?}");
            assert!(isa.run(Each(sigmoid, 1, &values(80.0))) < 3e-7, "{isa:?}");
            assert!(
                isa.run(Each(|x| x / (1.0 + (-x).exp()), 2, &values(80.0))) < 4e-7,
                "{isa:?}"
            );
        }
    }

    struct Extremes(f32);

    impl Kernel for Extremes {
        type Output = [f32; 4];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; 4] {
            let x = s.splat(self.0);
            [exp(s, x), sigmoid(s, x), silu(s, x), silu_slope(s, x)].map(|y| s.sum(y) / S::LANES as f32)
        }
    }

    #[test]
    fn hold_at_the_extremes() {
        for &isa in Isa::ALL {
            for x in [f32::NEG_INFINITY, f32::MIN, -1e4, -110.0] {
                let [e, s, silu, slope] = isa.run(Extremes(x));
                assert!(
                    e == 0.0 && s.abs() < 1e-37 && silu.abs() < 1e-37 && slope.abs() < 1e-37,
                    "{isa:?} {x}"
                );
            }
            for x in [1e4, 1e30, f32::INFINITY] {
                let [e, s, silu, slope] = isa.run(Extremes(x));
                assert!(e == f32::INFINITY && s == 1.0 && slope == 1.0, "{isa:?} {x}");
                assert!(silu == x || (silu / x - 1.0).abs() < 1e-6, "{isa:?} {x} {silu}");
            }
            assert!(isa.run(Extremes(f32::NAN)).iter().all(|y| y.is_nan()), "{isa:?}");
        }
    }
}
