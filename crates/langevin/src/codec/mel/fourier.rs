//! Short-time Fourier transforms: a sound as overlapping windows' spectra.

use std::sync::Arc;

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex, num_complex::Complex};

/// What lies before and after a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Silence.
    Silence,
    /// The sound mirrored.
    Mirror,
}

/// Transforms of windows that are centred every `hop` samples. Mirrors `librosa.stft` and `librosa.istft`.
#[derive(Clone)]
pub(super) struct Fourier {
    n_fft: usize,
    hop: usize,
    /// A periodic Hann window, in the middle of `n_fft` values.
    window: Vec<f64>,
    padding: Padding,
    forward: Arc<dyn RealToComplex<f64>>,
    backward: Arc<dyn ComplexToReal<f64>>,
}

/// Memory that one thread works in.
pub(super) struct Scratch {
    frame: Vec<f64>,
    work: Vec<Complex<f64>>,
    back: Vec<Complex<f64>>,
}

impl Fourier {
    pub(super) fn new(n_fft: usize, window_length: usize, hop: usize, padding: Padding) -> Self {
        let mut planner = RealFftPlanner::new();
        let before = (n_fft - window_length) / 2;
        let hann = |i: usize| {
            let turn = 2.0 * std::f64::consts::PI * i as f64 / window_length as f64;
            0.5 - 0.5 * turn.cos()
        };
        let at = |i: usize| match i.checked_sub(before) {
            Some(i) if i < window_length => hann(i),
            _ => 0.0,
        };
        Self {
            n_fft,
            hop,
            window: (0..n_fft).map(at).collect(),
            padding,
            forward: planner.plan_fft_forward(n_fft),
            backward: planner.plan_fft_inverse(n_fft),
        }
    }

    /// How many windows lie over so many samples.
    pub(super) fn frames(&self, samples: usize) -> usize {
        1 + samples / self.hop
    }

    /// How many samples so many windows come to.
    pub(super) fn samples(&self, frames: usize) -> usize {
        self.hop * frames.saturating_sub(1)
    }

    pub(super) fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    pub(super) fn n_fft(&self) -> usize {
        self.n_fft
    }

    pub(super) fn scratch(&self) -> Scratch {
        Scratch {
            frame: vec![0.0; self.n_fft],
            work: self.forward.make_scratch_vec(),
            back: self.backward.make_scratch_vec(),
        }
    }

    /// The spectrum of the window at `frame`.
    pub(super) fn spectrum(
        &self,
        samples: &[f64],
        frame: usize,
        scratch: &mut Scratch,
        spectrum: &mut [Complex<f64>],
    ) {
        let start = (frame * self.hop) as isize - (self.n_fft / 2) as isize;
        let end = start + self.n_fft as isize;
        if start >= 0 && end <= samples.len() as isize {
            let part = &samples[start as usize..end as usize];
            for ((value, sample), weight) in scratch.frame.iter_mut().zip(part).zip(&self.window) {
                *value = sample * weight;
            }
        } else {
            for (i, (value, weight)) in scratch.frame.iter_mut().zip(&self.window).enumerate() {
                *value = self.sample(samples, start + i as isize) * weight;
            }
        }
        // It fails for slices of other lengths alone.
        let _ = self
            .forward
            .process_with_scratch(&mut scratch.frame, spectrum, &mut scratch.work);
    }

    /// The sample at a place that may lie outside.
    fn sample(&self, samples: &[f64], place: isize) -> f64 {
        let last = samples.len() as isize - 1;
        let place = match self.padding {
            Padding::Silence => place,
            Padding::Mirror if last < 1 => place.clamp(0, last),
            Padding::Mirror => {
                let turned = place.rem_euclid(2 * last);
                if turned > last { 2 * last - turned } else { turned }
            }
        };
        usize::try_from(place)
            .ok()
            .and_then(|place| samples.get(place))
            .copied()
            .unwrap_or(0.0)
    }

    /// The windowed samples of a spectrum, which is written over.
    pub(super) fn windowed(
        &self,
        spectrum: &mut [Complex<f64>],
        scratch: &mut Scratch,
        windowed: &mut [f64],
    ) {
        // As those of real samples are.
        spectrum[0].im = 0.0;
        if self.n_fft.is_multiple_of(2) {
            spectrum[self.n_fft / 2].im = 0.0;
        }
        let _ = self
            .backward
            .process_with_scratch(spectrum, windowed, &mut scratch.back);
        let scale = 1.0 / self.n_fft as f64;
        for (value, weight) in windowed.iter_mut().zip(&self.window) {
            *value *= *weight * scale;
        }
    }

    /// For each sample of so many windows, the inverse of the squared windows' sum there; 1 where there is none.
    pub(super) fn inverse_weights(&self, frames: usize) -> Vec<f64> {
        let mut sums = vec![0.0; self.n_fft + self.samples(frames)];
        for frame in 0..frames {
            for (sum, weight) in sums[frame * self.hop..].iter_mut().zip(&self.window) {
                *sum += weight * weight;
            }
        }
        let tiny = f64::from(f32::MIN_POSITIVE);
        let inverse = |sum: f64| if sum > tiny { 1.0 / sum } else { 1.0 };
        let half = self.n_fft / 2;
        let inside = sums.into_iter().skip(half).take(self.samples(frames));
        inside.map(inverse).collect()
    }

    /// The sum of windowed samples at a stretch of `hop` samples, the one at `number`.
    pub(super) fn overlap(&self, windowed: &[f64], number: usize, weights: &[f64], stretch: &mut [f64]) {
        let frames = windowed.len() / self.n_fft;
        // With the half window that is cut off before the first sample.
        let start = number * self.hop + self.n_fft / 2;
        stretch.fill(0.0);
        let first = (start + 1).saturating_sub(self.n_fft).div_ceil(self.hop);
        let last = ((start + stretch.len() - 1) / self.hop).min(frames - 1);
        for frame in first.saturating_sub(1)..=last {
            let from = frame * self.hop;
            let all = &windowed[frame * self.n_fft..(frame + 1) * self.n_fft];
            let (begin, skip) = (start.saturating_sub(from), from.saturating_sub(start));
            if begin >= self.n_fft || skip >= stretch.len() {
                continue;
            }
            for (sum, value) in stretch[skip..].iter_mut().zip(&all[begin..]) {
                *sum += value;
            }
        }
        for (sum, weight) in stretch.iter_mut().zip(weights) {
            *sum *= weight;
        }
    }

    pub(super) fn hop(&self) -> usize {
        self.hop
    }
}
