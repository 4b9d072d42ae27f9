//! The exponential function and what is made of it.

use super::Simd;

/// `exp(x)` to about 1 unit in the last place for `x` up to 89, and not a number for not a number: 0 below −87.7, infinity above 88.4. A
/// softmax has taken off the largest score, and [`silu`] ends before.
///
/// `x = n · ln 2 + r` with `|r| ≤ ln 2 / 2`, `ln 2` in two parts so that `r` is exact to the last place, and the
/// polynomial of Cephes' `expf` for `exp(r)`. `n` is from −127 to 128, whose powers of two are 0 and infinity, as bits.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-88.0), x);
    // Numbers of this size have no fraction, so that adding one rounds, and 1.5 · 2²³ keeps them so for either sign. The lowest bits of the
    // sum are then `n` with the exponent's bias.
    let shift = s.splat(12_582_912.0 + 127.0);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), shift);
    let n = s.sub(shifted, shift);
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.fma(p, s.mul(r, r), s.add(r, s.splat(1.0)));
    s.mul(p, s.low_bits_as_exponent(shifted))
}

/// `2^x` of a difference to the largest, so of `x ≤ 0`, within 3e-6 of it, where rounding the weight to bf16 takes 2e-3. Below −126 it is
/// that of −126.
///
/// As [`exp`], with the polynomial of degree 4 whose largest relative error is least (found by Lawson's iteration).
#[inline(always)]
pub(crate) fn exp2_of_weight<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-126.0), x);
    let shift = s.splat(12_582_912.0 + 127.0);
    let shifted = s.add(x, shift);
    let r = s.sub(x, s.sub(shifted, shift));
    let mut p = s.splat(9.570_102e-3);
    for c in [5.591_786e-2, 0.240_247_44, 0.693_121_8, 0.999_999_3] {
        p = s.fma(p, r, s.splat(c));
    }
    s.mul(p, s.low_bits_as_exponent(shifted))
}

/// `x · sigmoid(x)`, with 0 below −88.4.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    silu_and_slope(s, x).0
}

/// The derivative of [`silu`]: `σ · (1 + x · (1 − σ))`.
#[inline(always)]
pub(crate) fn silu_slope<S: Simd>(s: S, x: S::F) -> S::F {
    silu_and_slope(s, x).1
}

/// [`silu`] and its derivative by one exponential; what is not used of them is not computed.
#[inline(always)]
pub(crate) fn silu_and_slope<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let one = s.splat(1.0);
    // −∞ · 0 would not be a number.
    let x = s.max(s.splat(-89.0), x);
    let denominator = s.add(one, exp(s, s.sub(s.zero(), x)));
    let sigmoid = s.div(one, denominator);
    // Beyond 104 the slope is 1, and ∞ · 0 would not be a number.
    let slope = s.fma(s.min(s.splat(104.0), x), s.sub(one, sigmoid), one);
    (s.div(x, denominator), s.mul(sigmoid, slope))
}

/// The error function, within 5e-7: the rational approximation of Eigen's `erf`, of odd degree 13 by even degree 8 on −4..4, beyond which it is
/// ±1 in float32.
#[inline(always)]
fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-4.0), s.min(s.splat(4.0), x));
    let square = s.mul(x, x);
    let polynomial = |coefficients: &[f32]| {
        let (first, rest) = (coefficients[0], &coefficients[1..]);
        rest.iter()
            .fold(s.splat(first), |p, &c| s.fma(p, square, s.splat(c)))
    };
    let above = polynomial(&[
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ]);
    let below = polynomial(&[
        -1.456_607_2e-5,
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_474e-2,
    ]);
    s.div(s.mul(x, above), below)
}

/// `x · Φ(x)`, Φ the normal distribution's, and its derivative `Φ(x) + x · φ(x)`.
#[inline(always)]
pub(crate) fn gelu_and_slope<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let half = s.splat(0.5);
    let below = s.fma(
        erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))),
        half,
        half,
    );
    // Far below zero Φ is 0 but for rounding, which a large factor must not bring to light.
    let x = s.max(s.splat(-6.0), x);
    let square = s.mul(s.mul(x, s.splat(-0.5)), x);
    let density = s.mul(exp(s, square), s.splat(0.398_942_3));
    (s.mul(x, below), s.fma(s.min(s.splat(20.0), x), density, below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel};

    /// One of a vector's values.
    #[inline(always)]
    fn lane<S: Simd>(s: S, y: S::F) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more values.
        unsafe { s.store(lanes.as_mut_ptr(), y) };
        lanes[S::LANES - 1]
    }

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
                    1 => silu(s, s.splat(x)),
                    _ => silu_slope(s, s.splat(x)),
                };
                let y = f64::from(lane(s, y));
                let truth = self.0(f64::from(x));
                worst = worst.max((y - truth).abs() / truth.abs().max(f64::from(f32::MIN_POSITIVE)));
            }
            worst
        }
    }

    #[test]
    fn are_within_a_few_units_of_the_last_place() {
        let slope = |x: f64| {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            sigmoid * (1.0 + x * (1.0 - sigmoid))
        };
        let values = |range: f32| {
            (-20_000..=20_000)
                .map(|i| i as f32 / 20_000.0 * range)
                .collect::<Vec<_>>()
        };
        for &isa in Isa::ALL {
            assert!(isa.run(Each(f64::exp, 0, &values(87.3))) < 2e-7, "{isa:?}");
            assert!(
                isa.run(Each(|x| x / (1.0 + (-x).exp()), 1, &values(80.0))) < 4e-7,
                "{isa:?}"
            );
            assert!(isa.run(Each(slope, 2, &values(0.9))) < 4e-7, "{isa:?}");
        }
    }

    struct Extremes(f32);

    impl Kernel for Extremes {
        type Output = [f32; 3];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; 3] {
            let x = s.splat(self.0);
            [exp(s, x), silu(s, x), silu_slope(s, x)].map(|y| lane(s, y))
        }
    }

    #[test]
    fn hold_at_the_extremes() {
        for &isa in Isa::ALL {
            for (x, least, most) in [
                (88.3, 2.2e38, f32::MAX),
                (88.5, f32::INFINITY, f32::INFINITY),
                (-87.6, 0.0, 9.1e-39),
                (-87.8, 0.0, 0.0),
            ] {
                let [e, ..] = isa.run(Extremes(x));
                assert!((least..=most).contains(&e), "{isa:?} {x} {e}");
            }
            for x in [f32::NEG_INFINITY, f32::MIN, -1e4, -110.0] {
                let [e, silu, slope] = isa.run(Extremes(x));
                assert!(e == 0.0 && silu == 0.0 && slope == 0.0, "{isa:?} {x}");
            }
            for x in [1e4, 1e30, f32::INFINITY] {
                let [_, silu, slope] = isa.run(Extremes(x));
                assert!(slope == 1.0, "{isa:?} {x}");
                assert!(silu == x || (silu / x - 1.0).abs() < 1e-6, "{isa:?} {x} {silu}");
            }
            assert!(isa.run(Extremes(f32::NAN)).iter().all(|y| y.is_nan()), "{isa:?}");
        }
    }
}
