//! The quantiles of the beta distribution, by which the beta spacing of noise levels is made.

/// Bisection needs no more halvings of [0, 1] than a float64 has bits, counting its least exponent.
const MOST_STEPS: usize = 1100;

/// The x at which the cumulative distribution of Beta(a, b) is `p`: `scipy.stats.beta.ppf(p, a, b)`, to about twelve
/// digits. `a` and `b` are above 0, `p` in [0, 1].
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    if p > 0.5 {
        // The same from the other end, where x is small and so has more digits.
        return 1.0 - beta_quantile(1.0 - p, b, a);
    }
    let ln_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    // Where x is small, the distribution is x^a / (a B).
    let mut x = ((p * a).ln() + ln_beta).exp().powf(1.0 / a).min(0.5);
    let (mut low, mut high) = (0.0, 1.0);
    // Newton's method, held between the bounds that it finds on the way.
    for _ in 0..MOST_STEPS {
        let error = regularised_incomplete_beta(x, a, b, ln_beta) - p;
        if error > 0.0 {
            high = x;
        } else {
            low = x;
        }
        let density = ((a - 1.0) * x.ln() + (b - 1.0) * (-x).ln_1p() - ln_beta).exp();
        let mut next = x - error / density;
        if !(next > low && next < high) {
            next = low + (high - low) / 2.0;
        }
        let moved = (next - x).abs();
        x = next;
        if moved <= 4.0 * f64::EPSILON * x {
            break;
        }
    }
    x
}

/// I_x(a, b), by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated from the front (Lentz).
fn regularised_incomplete_beta(x: f64, a: f64, b: f64, ln_beta: f64) -> f64 {
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - regularised_incomplete_beta(1.0 - x, b, a, ln_beta);
    }
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta).exp() / a;
    let tiny = f64::MIN_POSITIVE;
    let nonzero = |value: f64| if value.abs() < tiny { tiny } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / nonzero(1.0 + coefficient * d);
            c = nonzero(1.0 + coefficient / c);
            change = d * c;
            fraction *= change;
        }
        if (change - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    front * fraction
}

/// ln Γ(x) for x above 0, by Lanczos's series with g = 7 and nine terms.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let series = TERMS
        .iter()
        .zip(1..)
        .fold(0.999_999_999_999_809_9, |sum, (term, i)| {
            sum + term / (x + f64::from(i))
        });
    let t = x + G + 0.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + series.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        // scipy.stats.beta.ppf
        for (p, a, b, expected) in [
            (0.0, 0.6, 0.6, 0.0),
            (1.0, 0.6, 0.6, 1.0),
            (0.5, 0.6, 0.6, 0.5),
            (0.25, 1.0, 1.0, 0.25),
            (0.001, 0.6, 0.6, 1.855_873_851_745_199e-5),
            (1.0 / 9.0, 0.6, 0.6, 0.047_091_817_549_042_43),
            (0.3, 0.6, 0.6, 0.234_017_003_875_235_72),
            (0.77, 0.6, 0.6, 0.846_162_414_232_350_2),
            (0.999_999, 0.6, 0.6, 0.999_999_999_814_411_8),
            // Beta(2, 1) has the distribution x².
            (0.09, 2.0, 1.0, 0.3),
            // Beta(½, ½) has the distribution 2/π asin √x.
            (1.0 / 3.0, 0.5, 0.5, 0.25),
        ] {
            let found = beta_quantile(p, a, b);
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    #[test]
    fn quantiles_invert_the_distribution() {
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            let x = beta_quantile(p, 0.6, 0.6);
            let ln_beta = 2.0 * ln_gamma(0.6) - ln_gamma(1.2);
            let again = regularised_incomplete_beta(x, 0.6, 0.6, ln_beta);
            assert!((again / p - 1.0).abs() < 1e-12, "{p}: {again}");
            assert!((x + beta_quantile(1.0 - p, 0.6, 0.6) - 1.0).abs() < 1e-12);
        }
    }
}
