//! What a spectrogram says of a sound's timbre, whatever is played and when.

use crate::data::Picture;

/// The name of the space of [`spectrum_features`]; other ways to compute them get other names.
pub const SPECTRUM_SPACE: &str = "spectra-1";

/// Of each band, in the picture's rows, the mean over time and the deviation from it, in parts of white.
pub fn spectrum_features(picture: &Picture) -> Vec<f32> {
    let (rows, columns) = (picture.height(), picture.width());
    let values = picture.to_chw();
    // From -1..1.
    let row = |row: usize| {
        values[row * columns..(row + 1) * columns]
            .iter()
            .map(|value| (value + 1.0) / 2.0)
    };
    let mean = |y: usize| row(y).sum::<f32>() / columns as f32;
    let means: Vec<f32> = (0..rows).map(mean).collect();
    let deviation =
        |y: usize| (row(y).map(|value| (value - means[y]).powi(2)).sum::<f32>() / columns as f32).sqrt();
    let deviations: Vec<f32> = (0..rows).map(deviation).collect();
    [means, deviations].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Channels;

    #[test]
    fn a_band_has_a_mean_and_a_deviation() {
        let picture = Picture::new(2, 2, Channels::Grey, vec![0, 255, 51, 51]).unwrap();
        let found = spectrum_features(&picture);
        for (found, expected) in found.iter().zip([0.5, 0.2, 0.5, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
