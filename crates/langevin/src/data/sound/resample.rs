//! Other rates: a windowed sinc, any sample of whose result can be asked for by itself.

use std::sync::LazyLock;

/// Crossings of zero on each side of the sinc, in samples of the lower of both rates.
const CROSSINGS: usize = 96;
/// Where the filter's pass band ends, in parts of the lower rate's half: between there and the half it falls.
const PASS: f64 = 0.957;
/// Kaiser's β: what lies beyond the fall is 120 dB below.
const BETA: f64 = 12.3;
/// Entries of the table for a crossing.
const FINE: usize = 1024;
/// Weights that are kept at most, for rates with few phases.
const MOST_KEPT: usize = 1 << 20;

/// Half of the filter.
static TABLE: LazyLock<Vec<f64>> = LazyLock::new(table);

/// From one rate to another by whole numbers: sample `n` of the result lies at `n · from / to`. Every sample is a function of those
/// around its place alone, so that a part of a sound comes out as it does of the whole.
#[derive(Clone, Debug)]
pub struct Resampler {
    /// The rates without their common divisor.
    from: u64,
    to: u64,
    /// How many samples around its place one looks at on each side.
    reach: usize,
    /// The rates' quotient where that is below 1.
    scale: f64,
    /// The weights of each phase, where they are kept.
    phases: Vec<f32>,
}

impl Resampler {
    /// From samples at `from` a second to `to`.
    pub fn new(from: u32, to: u32) -> Self {
        let divisor = greatest_common_divisor(from.max(1), to.max(1));
        let (from, to) = (u64::from(from.max(1) / divisor), u64::from(to.max(1) / divisor));
        let scale = (to as f64 / from as f64).min(1.0);
        let reach = (CROSSINGS as f64 / scale).ceil() as usize;
        let mut resampler = Self {
            from,
            to,
            reach,
            scale,
            phases: Vec::new(),
        };
        if to != from && to as usize * resampler.taps() <= MOST_KEPT {
            resampler.phases = (0..to).flat_map(|phase| resampler.weights(phase)).collect();
        }
        resampler
    }

    /// Whether both rates are the same.
    pub fn is_same(&self) -> bool {
        self.from == self.to
    }

    /// How many samples so many become.
    pub fn count(&self, samples: u64) -> u64 {
        let whole = u128::from(samples) * u128::from(self.to);
        u64::try_from(whole.div_ceil(u128::from(self.from))).unwrap_or(u64::MAX)
    }

    /// The samples that those from `first` on, `count` of them, are made of: where they begin, which may be before the first, and how many.
    pub fn needed(&self, first: u64, count: usize) -> (i64, usize) {
        if count == 0 || self.is_same() {
            return (first as i64, count);
        }
        let begin = self.place(first).0 as i64 - self.reach as i64 + 1;
        let end = self.place(first + count as u64 - 1).0 as i64 + self.reach as i64 + 1;
        (begin, (end - begin) as usize)
    }

    /// Samples from `first` on, `count` of them, from those that [`Self::needed`] names.
    pub fn resample(&self, samples: &[f32], first: u64, count: usize) -> Vec<f32> {
        if self.is_same() {
            return samples.to_vec();
        }
        let taps = self.taps();
        let (begin, _) = self.needed(first, count);
        let one = |number: u64| {
            let (place, phase) = self.place(number);
            let from = (place as i64 - self.reach as i64 + 1 - begin) as usize;
            let part = &samples[from..from + taps];
            let dot = |weights: &[f32]| part.iter().zip(weights).map(|(x, w)| x * w).sum();
            match self.phases.is_empty() {
                false => dot(&self.phases[phase as usize * taps..(phase as usize + 1) * taps]),
                true => dot(&self.weights(phase)),
            }
        };
        (first..first + count as u64).map(one).collect()
    }

    fn taps(&self) -> usize {
        2 * self.reach
    }

    /// The sample at or before a place, and how far that is behind it in parts of `to`.
    fn place(&self, number: u64) -> (u64, u64) {
        let whole = u128::from(number) * u128::from(self.from);
        let to = u128::from(self.to);
        ((whole / to) as u64, (whole % to) as u64)
    }

    /// What the samples around a place count.
    fn weights(&self, phase: u64) -> Vec<f32> {
        let behind = phase as f64 / self.to as f64;
        let weight = |tap: usize| {
            let distance = (tap as f64 - (self.reach as f64 - 1.0) - behind).abs() * self.scale;
            let at = distance * FINE as f64;
            let (entry, part) = (at as usize, at.fract());
            match TABLE.get(entry..entry + 2) {
                Some(pair) => pair[0] + part * (pair[1] - pair[0]),
                None => 0.0,
            }
        };
        let weights: Vec<f64> = (0..self.taps()).map(weight).collect();
        // A constant stays what it is.
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| (weight / sum) as f32).collect()
    }
}

/// Half of a sinc that falls around the middle between the pass band and the half of the rate, under Kaiser's window.
fn table() -> Vec<f64> {
    let cutoff = 0.5 * (PASS + 1.0);
    let end = bessel(BETA);
    let entry = |i: usize| {
        let x = i as f64 / FINE as f64;
        let inside = 1.0 - (x / CROSSINGS as f64).powi(2);
        let turn = std::f64::consts::PI * x * cutoff;
        let sinc = if turn == 0.0 { 1.0 } else { turn.sin() / turn };
        cutoff * sinc * bessel(BETA * inside.max(0.0).sqrt()) / end
    };
    (0..=CROSSINGS * FINE).map(entry).collect()
}

/// The modified Bessel function of the first kind, of order 0.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..64 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hertz: f64, rate: u32, samples: usize) -> Vec<f32> {
        let turn = 2.0 * std::f64::consts::PI * hertz / f64::from(rate);
        (0..samples).map(|i| (turn * i as f64).sin() as f32).collect()
    }

    /// All of a sound at another rate.
    fn all(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
        let resampler = Resampler::new(from, to);
        let count = resampler.count(samples.len() as u64) as usize;
        part(&resampler, samples, 0, count)
    }

    fn part(resampler: &Resampler, samples: &[f32], first: u64, count: usize) -> Vec<f32> {
        let (begin, needed) = resampler.needed(first, count);
        let at = |i: usize| {
            usize::try_from(begin + i as i64)
                .ok()
                .and_then(|i| samples.get(i))
                .copied()
        };
        let padded: Vec<f32> = (0..needed).map(|i| at(i).unwrap_or(0.0)).collect();
        resampler.resample(&padded, first, count)
    }

    #[test]
    fn a_tone_stays_the_tone_at_every_rate() {
        for (from, to) in [
            (44_100, 22_050),
            (48_000, 22_050),
            (8_000, 22_050),
            (192_000, 22_050),
            (22_051, 22_050),
            (11_025, 44_100),
        ] {
            let hertz = 1234.5;
            let found = all(&sine(hertz, from, from as usize / 2), from, to);
            let expected = sine(hertz, to, found.len());
            // Half a second is a whole number of samples at neither rate.
            assert!(found.len().abs_diff(to as usize / 2) <= 1 + (to / from) as usize);
            // Away from the ends, where the sound begins from silence.
            let inside = found.len() / 5..found.len() * 4 / 5;
            let error = found[inside.clone()]
                .iter()
                .zip(&expected[inside])
                .map(|(a, b)| (a - b).abs());
            let error = error.fold(0.0, f32::max);
            assert!(error < 3e-6, "{from} {to}: {error}");
        }
    }

    #[test]
    fn what_a_rate_cannot_hold_is_gone() {
        let found = all(&sine(15_000.0, 44_100, 44_100), 44_100, 22_050);
        let loudest = found[4000..18_000]
            .iter()
            .fold(0.0_f32, |peak, x| peak.max(x.abs()));
        assert!(loudest < 2e-6, "{loudest}");
    }

    #[test]
    fn a_part_comes_out_as_of_the_whole() {
        let samples = sine(700.0, 48_000, 20_000);
        let resampler = Resampler::new(48_000, 22_050);
        let whole = all(&samples, 48_000, 22_050);
        assert_eq!(part(&resampler, &samples, 3333, 500), whole[3333..3833]);
    }
}
