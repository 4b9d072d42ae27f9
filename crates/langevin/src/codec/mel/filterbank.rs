//! Triangular filters that gather the bins of a Fourier transform into mel bands, and the least-squares way back.

use crate::named::named_enum;

named_enum! {
    /// A scale of pitches.
    #[derive(Default)]
    pub(super) enum MelScale: "a mel scale" {
        /// Slaney's (1998): linear below 1 kHz and logarithmic above, filters of equal area. librosa's.
        #[default]
        Slaney = "slaney",
        /// HTK's: logarithmic, filters of equal height.
        Htk = "htk",
    }
}

/// Slaney's scale: mels per hertz below the break, and where and how it goes on above.
const HERTZ_PER_MEL: f64 = 200.0 / 3.0;
const BREAK_HERTZ: f64 = 1000.0;
const BREAK_MEL: f64 = BREAK_HERTZ / HERTZ_PER_MEL;

fn log_step() -> f64 {
    6.4_f64.ln() / 27.0
}

impl MelScale {
    fn to_mel(self, hertz: f64) -> f64 {
        match self {
            Self::Slaney if hertz < BREAK_HERTZ => hertz / HERTZ_PER_MEL,
            Self::Slaney => BREAK_MEL + (hertz / BREAK_HERTZ).ln() / log_step(),
            Self::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
        }
    }

    fn to_hertz(self, mel: f64) -> f64 {
        match self {
            Self::Slaney if mel < BREAK_MEL => mel * HERTZ_PER_MEL,
            Self::Slaney => BREAK_HERTZ * (log_step() * (mel - BREAK_MEL)).exp(),
            Self::Htk => 700.0 * (10_f64.powf(mel / 2595.0) - 1.0),
        }
    }

    /// `count` frequencies from 0 to `highest`, evenly apart on the scale.
    pub(super) fn frequencies(self, count: usize, highest: f64) -> Vec<f64> {
        let end = self.to_mel(highest);
        let place = |i: usize| self.to_hertz(end * i as f64 / (count - 1) as f64);
        (0..count).map(place).collect()
    }
}

/// The part of a filter that is not zero.
#[derive(Clone, Debug)]
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

/// Filters with their pseudo-inverse. Mirrors `librosa.filters.mel`, and `librosa.feature.inverse.mel_to_stft` as it comes out for
/// spectrograms of 8 bits, where its solver ends at the point that it begins with: max(0, A⁺ M).
///
/// A filter overlaps with its neighbours only, so A Aᵀ is tridiagonal, and A⁺ M = Aᵀ (A Aᵀ)⁻¹ M takes a handful of operations for a bin.
#[derive(Clone, Debug)]
pub(super) struct FilterBank {
    filters: Vec<Filter>,
    bins: usize,
    /// Of A Aᵀ = L D Lᵀ: the inverse of D, 0 where a filter is empty or no other than those before it, and what is below L's diagonal.
    inverse_pivots: Vec<f64>,
    below: Vec<f64>,
}

impl FilterBank {
    /// `bands` filters over the `n_fft / 2 + 1` bins of transforms at `rate`, from 0 Hz to `highest`.
    pub(super) fn new(scale: MelScale, bands: usize, n_fft: usize, rate: u32, highest: f64) -> Self {
        let edges = scale.frequencies(bands + 2, highest);
        let bins = n_fft / 2 + 1;
        let hertz = |bin: usize| bin as f64 * f64::from(rate) / n_fft as f64;
        let filter = |band: usize| {
            let [low, centre, high] = [edges[band], edges[band + 1], edges[band + 2]];
            let height = match scale {
                MelScale::Slaney => 2.0 / (high - low),
                MelScale::Htk => 1.0,
            };
            let weight = |bin: usize| {
                let f = hertz(bin);
                let triangle = ((f - low) / (centre - low)).min((high - f) / (high - centre));
                triangle.max(0.0) * height
            };
            let is_inside = |bin: &usize| hertz(*bin) > low;
            let first = (0..bins).find(is_inside).unwrap_or(bins);
            let weights = (first..bins).map(weight).take_while(|weight| *weight > 0.0);
            Filter {
                first,
                weights: weights.collect(),
            }
        };
        let filters: Vec<Filter> = (0..bands).map(filter).collect();
        let (inverse_pivots, below) = factors(&filters);
        Self {
            filters,
            bins,
            inverse_pivots,
            below,
        }
    }

    pub(super) fn bins(&self) -> usize {
        self.bins
    }

    pub(super) fn filters(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.filters
            .iter()
            .map(|filter| (filter.first, filter.weights.as_slice()))
    }

    /// What each filter gathers of a spectrum.
    pub(super) fn gather(&self, spectrum: &[f64], bands: &mut [f64]) {
        for (filter, band) in self.filters.iter().zip(bands) {
            let part = &spectrum[filter.first..filter.first + filter.weights.len()];
            *band = part.iter().zip(&filter.weights).map(|(x, w)| x * w).sum();
        }
    }

    /// The smallest spectrum that these bands are gathered from, without what of it is below zero.
    pub(super) fn spread(&self, bands: &[f64], spectrum: &mut [f64]) {
        let mut solved = bands.to_vec();
        for i in 1..solved.len() {
            solved[i] -= self.below[i - 1] * solved[i - 1];
        }
        for (value, inverse) in solved.iter_mut().zip(&self.inverse_pivots) {
            *value *= inverse;
        }
        for i in (1..solved.len()).rev() {
            solved[i - 1] -= self.below[i - 1] * solved[i];
        }
        spectrum.fill(0.0);
        for (filter, value) in self.filters.iter().zip(&solved) {
            let part = &mut spectrum[filter.first..filter.first + filter.weights.len()];
            for (x, weight) in part.iter_mut().zip(&filter.weights) {
                *x += weight * value;
            }
        }
        for x in spectrum {
            *x = x.max(0.0);
        }
    }
}

/// The factors of A Aᵀ.
fn factors(filters: &[Filter]) -> (Vec<f64>, Vec<f64>) {
    let product = |a: &Filter, b: &Filter| -> f64 {
        let first = a.first.max(b.first);
        let end = (a.first + a.weights.len()).min(b.first + b.weights.len());
        (first..end)
            .map(|bin| a.weights[bin - a.first] * b.weights[bin - b.first])
            .sum()
    };
    let largest = filters
        .iter()
        .map(|filter| product(filter, filter))
        .fold(0.0, f64::max);
    let (mut inverse_pivots, mut below) = (
        Vec::with_capacity(filters.len()),
        Vec::with_capacity(filters.len()),
    );
    let mut carried = 0.0;
    for (i, filter) in filters.iter().enumerate() {
        let pivot = product(filter, filter) - carried;
        // Narrow filters may hold one and the same bin, or none.
        let inverse = if pivot > 1e-12 * largest { 1.0 / pivot } else { 0.0 };
        inverse_pivots.push(inverse);
        if let Some(next) = filters.get(i + 1) {
            let overlap = product(filter, next);
            below.push(overlap * inverse);
            carried = overlap * overlap * inverse;
        }
    }
    (inverse_pivots, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank(bands: usize, n_fft: usize) -> FilterBank {
        FilterBank::new(MelScale::Slaney, bands, n_fft, 22_050, 11_025.0)
    }

    fn sum(bank: &FilterBank) -> f64 {
        bank.filters.iter().flat_map(|filter| &filter.weights).sum()
    }

    #[test]
    fn the_filters_are_librosas() {
        // librosa.filters.mel(sr=22050, n_fft=2048, n_mels=256), and 128
        let wide = bank(256, 2048);
        assert!((sum(&wide) - 23.771_917).abs() < 1e-5);
        assert_eq!((wide.filters[0].first, wide.filters[0].weights.len()), (1, 2));
        assert_eq!(
            (wide.filters[255].first, wide.filters[255].weights.len()),
            (998, 26)
        );
        let row = &bank(128, 2048).filters[0];
        assert_eq!(row.first, 1);
        for (found, expected) in
            row.weights
                .iter()
                .zip([0.016_182_85, 0.032_365_71, 0.028_990_09, 0.012_807_24])
        {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        let edges = MelScale::Slaney.frequencies(258, 11_025.0);
        assert!((edges[100] - 1_355.153_606_36).abs() < 1e-6 && (edges[257] - 11_025.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_spread_is_gathered_again() {
        let bank = bank(64, 2048);
        let bands: Vec<f64> = (0..64).map(|i| 1.0 + (f64::from(i) * 0.3).sin()).collect();
        let (mut spectrum, mut again) = (vec![0.0; bank.bins()], vec![0.0; 64]);
        bank.spread(&bands, &mut spectrum);
        bank.gather(&spectrum, &mut again);
        // What was below zero is lost.
        let error: f64 = bands
            .iter()
            .zip(&again)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(error < 0.05, "{error}");
    }

    #[test]
    fn filters_without_a_bin_do_no_harm() {
        let bank = bank(256, 512);
        assert!(bank.filters.iter().any(|filter| filter.weights.is_empty()));
        let mut spectrum = vec![0.0; bank.bins()];
        bank.spread(&vec![1.0; 256], &mut spectrum);
        assert!(spectrum.iter().all(|x| x.is_finite() && *x < 1e6));
    }
}
