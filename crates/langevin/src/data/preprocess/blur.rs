//! Gaussian blur of a picture's bytes.

use crate::data::Picture;

/// The picture blurred by a Gaussian of this standard deviation, in pixels, over as many of them as OpenCV's `GaussianBlur` takes; beyond
/// its edges a picture is mirrored, without the outermost pixels.
pub(super) fn blur(picture: &Picture, sigma: f64) -> Picture {
    let (height, width) = (picture.height(), picture.width());
    let channels = picture.channels().count();
    let weights = weights(sigma);
    let radius = weights.len() / 2;
    let across: Vec<f64> = (0..height)
        .flat_map(|y| {
            let (row, weights) = (picture.row(y), &weights);
            (0..width * channels).map(move |place| {
                let (x, channel) = (place / channels, place % channels);
                let sum = weights.iter().enumerate().map(|(tap, weight)| {
                    let x = mirrored(x as isize + tap as isize - radius as isize, width);
                    weight * f64::from(row[x * channels + channel])
                });
                sum.sum::<f64>()
            })
        })
        .collect();
    let stride = width * channels;
    let pixels = (0..height * stride).map(|place| {
        let (y, column) = (place / stride, place % stride);
        let sum = weights.iter().enumerate().map(|(tap, weight)| {
            let y = mirrored(y as isize + tap as isize - radius as isize, height);
            weight * across[y * stride + column]
        });
        sum.sum::<f64>().round().clamp(0.0, 255.0) as u8
    });
    Picture::from_parts(height, width, picture.channels(), pixels.collect())
}

/// The Gaussian's values, which sum to 1.
fn weights(sigma: f64) -> Vec<f64> {
    let size = (sigma * 6.0 + 1.0).round_ties_even() as usize | 1;
    let middle = (size / 2) as f64;
    let values: Vec<f64> = (0..size)
        .map(|place| (-(place as f64 - middle).powi(2) / (2.0 * sigma * sigma)).exp())
        .collect();
    let sum: f64 = values.iter().sum();
    values.into_iter().map(|value| value / sum).collect()
}

/// The place in a row of `length` that a place beyond its ends is a mirror of.
fn mirrored(place: isize, length: usize) -> usize {
    let last = length as isize - 1;
    if last == 0 {
        return 0;
    }
    let place = place.rem_euclid(2 * last);
    place.min(2 * last - place) as usize
}
