//! Phases for magnitudes (Griffin and Lim 1984), accelerated as Perraudin, Balazs and Søndergaard (2013) have it.

use rayon::prelude::*;
use realfft::num_complex::Complex;

use super::fourier::Fourier;

/// Perraudin's α, which librosa calls momentum.
const MOMENTUM: f64 = 0.99;

/// The sound whose short-time spectra have magnitudes close to these, `[frames, bins]`, after so many rounds from `phases` in turns.
/// Mirrors `librosa.griffinlim`.
///
/// It computes in 64 bits: where every phase is the same, as at the beginning of some, what a window leaves of a frame is so little that 32 bits
/// would be noise, and other phases would come of it.
pub(super) fn griffin_lim(fourier: &Fourier, magnitudes: &[f32], phases: &[f32], rounds: usize) -> Vec<f32> {
    let (bins, n_fft, hop) = (fourier.bins(), fourier.n_fft(), fourier.hop());
    let frames = magnitudes.len() / bins;
    let weights = fourier.inverse_weights(frames);
    let mut windowed = vec![0.0; frames * n_fft];
    let mut previous = vec![Complex::new(0.0, 0.0); frames * bins];
    let mut samples = vec![0.0; fourier.samples(frames)];

    magnitudes
        .par_chunks(bins)
        .zip(phases.par_chunks(bins))
        .zip(windowed.par_chunks_mut(n_fft))
        .for_each_init(
            || fourier.scratch(),
            |scratch, ((magnitudes, phases), windowed)| {
                let turns = magnitudes.iter().zip(phases);
                let turned = |(magnitude, phase): (&f32, &f32)| {
                    Complex::from_polar(f64::from(*magnitude), std::f64::consts::TAU * f64::from(*phase))
                };
                let mut spectrum: Vec<_> = turns.map(turned).collect();
                fourier.windowed(&mut spectrum, scratch, windowed);
            },
        );
    overlap(fourier, hop, &windowed, &weights, &mut samples);

    let pull = MOMENTUM / (1.0 + MOMENTUM);
    for round in 0..rounds {
        let before = if round == 0 { 0.0 } else { pull };
        magnitudes
            .par_chunks(bins)
            .zip(previous.par_chunks_mut(bins))
            .zip(windowed.par_chunks_mut(n_fft))
            .enumerate()
            .for_each_init(
                || (fourier.scratch(), vec![Complex::new(0.0, 0.0); bins]),
                |(scratch, spectrum), (frame, ((magnitudes, previous), windowed))| {
                    fourier.spectrum(&samples, frame, scratch, spectrum);
                    for ((value, last), magnitude) in spectrum.iter_mut().zip(previous).zip(magnitudes) {
                        let rebuilt = *value;
                        *value = unit(rebuilt - *last * before) * f64::from(*magnitude);
                        *last = rebuilt;
                    }
                    fourier.windowed(spectrum, scratch, windowed);
                },
            );
        overlap(fourier, hop, &windowed, &weights, &mut samples);
    }
    samples.into_iter().map(|sample| sample as f32).collect()
}

/// A number of the same phase and magnitude 1; 0 where it is too small to have a phase.
fn unit(value: Complex<f64>) -> Complex<f64> {
    let square = value.norm_sqr();
    if square > 1e-70 {
        value / square.sqrt()
    } else {
        Complex::new(0.0, 0.0)
    }
}

/// Puts windowed samples together.
fn overlap(fourier: &Fourier, hop: usize, windowed: &[f64], weights: &[f64], samples: &mut [f64]) {
    samples
        .par_chunks_mut(hop)
        .zip(weights.par_chunks(hop))
        .enumerate()
        .for_each(|(number, (stretch, weights))| fourier.overlap(windowed, number, weights, stretch));
}
