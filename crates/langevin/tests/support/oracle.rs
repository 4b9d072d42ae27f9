//! Data whose optimal denoiser is known in closed form, and so is where the probability flow carries every sample.
//!
//! Each value of a picture is drawn from a mixture of normal distributions, independently. A sample at a noise level is
//! `signal · x_0 + noise · ε`, so its distribution is a mixture of normals too. In one dimension the probability flow keeps
//! every sample's rank: what is at the quantile p at one level is at the quantile p at every other.

#![allow(dead_code)]

use burn::tensor::{Device, Tensor, TensorData};

/// A sample is `signal · x_0 + noise · ε` here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub signal: f64,
    pub noise: f64,
}

impl Level {
    /// The clean data.
    pub(crate) const CLEAN: Self = Self {
        signal: 1.0,
        noise: 0.0,
    };

    /// Noise of standard deviation σ beside a signal of 1.
    pub(crate) fn exploding(sigma: f64) -> Self {
        Self {
            signal: 1.0,
            noise: sigma,
        }
    }

    /// The same ratio of noise to signal, where the squares of both sum to 1.
    pub(crate) fn preserving(sigma: f64) -> Self {
        let total = sigma.hypot(1.0);
        Self {
            signal: 1.0 / total,
            noise: sigma / total,
        }
    }

    /// A flow's level.
    pub(crate) fn flow(sigma: f64) -> Self {
        Self {
            signal: 1.0 - sigma,
            noise: sigma,
        }
    }

    /// A mixture at an angle, 0 for the clean data and 1 for noise.
    pub(crate) fn angle(t: f64) -> Self {
        let (noise, signal) = (t * std::f64::consts::FRAC_PI_2).sin_cos();
        Self { signal, noise }
    }
}

/// The data: a mixture of normal distributions.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    weight: f64,
    mean: f64,
    deviation: f64,
}

impl Data {
    /// One normal distribution.
    pub(crate) fn gaussian() -> Self {
        Self::new(&[(1.0, 0.3, 0.5)])
    }

    /// Two of them, which overlap little.
    pub(crate) fn mixture() -> Self {
        Self::new(&[(0.6, -0.5, 0.25), (0.4, 0.6, 0.15)])
    }

    fn new(parts: &[(f64, f64, f64)]) -> Self {
        let part = |&(weight, mean, deviation)| Part {
            weight,
            mean,
            deviation,
        };
        Self {
            parts: parts.iter().map(part).collect(),
        }
    }

    /// The parts' mean and standard deviation at a level.
    fn at(&self, level: Level) -> impl Iterator<Item = (Part, f64, f64)> + '_ {
        self.parts.iter().map(move |&part| {
            let deviation = (level.signal * part.deviation).hypot(level.noise);
            (part, level.signal * part.mean, deviation)
        })
    }

    /// E[x_0 | x]: what the optimal denoiser makes of a value.
    pub(crate) fn denoised(&self, x: f64, level: Level) -> f64 {
        // The parts' likelihoods relative to the largest so far, so that none of them comes to nothing.
        let (mut most, mut sum, mut total) = (f64::NEG_INFINITY, 0.0, 0.0);
        for (part, mean, deviation) in self.at(level) {
            let log = (part.weight / deviation).ln() - ((x - mean) / deviation).powi(2) / 2.0;
            let slope = level.signal * part.deviation * part.deviation / (deviation * deviation);
            let clean = part.mean + slope * (x - mean);
            if log > most {
                let shrink = (most - log).exp();
                (sum, total, most) = (sum * shrink, total * shrink, log);
            }
            let share = (log - most).exp();
            sum += share * clean;
            total += share;
        }
        sum / total
    }

    /// The share of values below x.
    fn below(&self, x: f64, level: Level) -> f64 {
        self.at(level)
            .map(|(part, mean, deviation)| part.weight * normal_below((x - mean) / deviation))
            .sum()
    }

    /// The value that a share of p is below.
    pub(crate) fn quantile(&self, p: f64, level: Level) -> f64 {
        let ends = self
            .at(level)
            .map(|(_, mean, deviation)| (mean - 12.0 * deviation, mean + 12.0 * deviation));
        let (mut low, mut high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (a, b)| {
            (low.min(a), high.max(b))
        });
        while high - low > 1e-13 * (low.abs() + high.abs()) {
            let middle = 0.5 * (low + high);
            if middle == low || middle == high {
                break;
            }
            if self.below(middle, level) < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }

    /// Where the probability flow carries a value from one level to another.
    pub(crate) fn carried(&self, x: f64, from: Level, to: Level) -> f64 {
        if let [_] = self.parts.as_slice() {
            // As many standard deviations from the mean.
            let mut ends = self.at(from).chain(self.at(to));
            if let (Some((_, mean, deviation)), Some((_, to_mean, to_deviation))) = (ends.next(), ends.next())
            {
                return to_mean + (x - mean) / deviation * to_deviation;
            }
        }
        self.quantile(self.below(x, from), to)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.parts.iter().map(|part| part.weight * part.mean).sum()
    }

    pub(crate) fn deviation(&self) -> f64 {
        let square = |part: &Part| part.weight * (part.deviation.powi(2) + part.mean.powi(2));
        (self.parts.iter().map(square).sum::<f64>() - self.mean().powi(2)).sqrt()
    }
}

/// The share of the standard normal distribution below z, by Marsaglia's series.
fn normal_below(z: f64) -> f64 {
    if z.abs() > 9.0 {
        return if z > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut i) = (z, z, 3.0);
    while sum + term != sum {
        term *= z * z / i;
        sum += term;
        i += 2.0;
    }
    0.5 + sum * (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// Applies a function of one value to each of a tensor's.
pub(crate) fn map(x: &Tensor<4>, f: impl Fn(f64) -> f64) -> Tensor<4> {
    let values: Vec<f32> = super::support::values(x.clone())
        .into_iter()
        .map(|x| f(x.into()) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, x.dims()), &Device::default())
}

/// Standard normal values at evenly spaced ranks, `[1, 1, side, side]`: all that a deterministic sampler can tell apart.
pub(crate) fn ranks(side: usize) -> Tensor<4> {
    let standard = Data::new(&[(1.0, 0.0, 1.0)]);
    let n = side * side;
    let values: Vec<f32> = (0..n)
        .map(|i| standard.quantile((i as f64 + 0.5) / n as f64, Level::CLEAN) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, [1, 1, side, side]), &Device::default())
}

/// The root of the mean of the squares.
pub(crate) fn root_mean_square(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for value in values {
        sum += value * value;
        n += 1.0;
    }
    (sum / n).sqrt()
}
