//! Features that need no trained network: what is where, and which way its edges run.

use crate::data::{Channels, Picture};

/// The name of the space that [`shape_features`] makes.
pub const SHAPE_SPACE: &str = "pixels+gradients";

/// Cells a side that brightness and colours are averaged over.
const PIXEL_CELLS: usize = 8;
/// Cells a side that edges are counted in, and the directions that are told apart.
const EDGE_CELLS: usize = 4;
const DIRECTIONS: usize = 8;

/// A picture's features: the mean of each channel in 8 x 8 cells, then how strong edges of 8 directions are in 4 x 4 cells, as
/// histograms of oriented gradients have it (Dalal and Triggs 2005). 192 numbers for a grey picture, 320 for a coloured one.
///
/// They see shapes and colours in their places, and neither textures nor what a thing is: two numbers made of them can be
/// compared with each other, and with none made of Inception features.
pub fn shape_features(picture: &Picture) -> Vec<f32> {
    let channels = picture.channels().count();
    let mut features = Vec::with_capacity(channels * PIXEL_CELLS.pow(2) + DIRECTIONS * EDGE_CELLS.pow(2));
    let value = |x: usize, y: usize, channel: usize| {
        f32::from(picture.pixels()[(y * picture.width() + x) * channels + channel]) / 255.0
    };
    for channel in 0..channels {
        for cell in 0..PIXEL_CELLS.pow(2) {
            let rows = part(cell / PIXEL_CELLS, picture.height(), PIXEL_CELLS);
            let columns = part(cell % PIXEL_CELLS, picture.width(), PIXEL_CELLS);
            let count = rows.len() * columns.len();
            let inside = rows.flat_map(|y| columns.clone().map(move |x| (x, y)));
            let sum: f32 = inside.map(|(x, y)| value(x, y, channel)).sum();
            features.push(sum / count as f32);
        }
    }
    features.extend(edges(&picture.clone().into_channels(Channels::Grey)));
    features
}

/// For each cell, row by row, the mean strength of the edges of each direction.
fn edges(grey: &Picture) -> Vec<f32> {
    let (width, height) = (grey.width(), grey.height());
    let value = |x: usize, y: usize| f32::from(grey.pixels()[y * width + x]) / 255.0;
    let mut strengths = vec![0.0; DIRECTIONS * EDGE_CELLS.pow(2)];
    for y in 0..height {
        for x in 0..width {
            let dx = value((x + 1).min(width - 1), y) - value(x.saturating_sub(1), y);
            let dy = value(x, (y + 1).min(height - 1)) - value(x, y.saturating_sub(1));
            let turn = dy.atan2(dx) / std::f32::consts::TAU + 0.5;
            let direction = (turn * DIRECTIONS as f32) as usize % DIRECTIONS;
            let cell = (y * EDGE_CELLS / height) * EDGE_CELLS + x * EDGE_CELLS / width;
            strengths[cell * DIRECTIONS + direction] += dx.hypot(dy);
        }
    }
    let of_cell = (width * height) as f32 / EDGE_CELLS.pow(2) as f32;
    strengths.iter_mut().for_each(|strength| *strength /= of_cell);
    strengths
}

/// The pixels of the `cell`-th of `cells` parts of a side, at least one.
fn part(cell: usize, side: usize, cells: usize) -> std::ops::Range<usize> {
    let start = cell * side / cells;
    start..((cell + 1) * side / cells).max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(side: usize, channels: Channels, value: impl Fn(usize, usize) -> u8) -> Picture {
        let places = (0..side * side).map(|i| (i % side, i / side));
        let pixels = places
            .flat_map(|(x, y)| vec![value(x, y); channels.count()])
            .collect();
        Picture::new(side, side, channels, pixels).unwrap()
    }

    #[test]
    fn any_size_has_the_same_features() {
        for side in [1, 3, 8, 33, 64] {
            assert_eq!(
                shape_features(&picture(side, Channels::Grey, |_, _| 51)).len(),
                192
            );
            let features = shape_features(&picture(side, Channels::Rgb, |_, _| 51));
            assert_eq!(features.len(), 320);
            assert!(features[..192].iter().all(|v| (v - 0.2).abs() < 1e-6));
            assert!(features[192..].iter().all(|&v| v == 0.0));
        }
    }

    #[test]
    fn edges_are_told_by_their_direction_and_place() {
        let step = |x: usize, y: usize| if x >= 4 && y < 4 { 255 } else { 0 };
        let features = shape_features(&picture(8, Channels::Grey, step));
        let strength = |cell: usize, direction: usize| features[64 + cell * DIRECTIONS + direction];
        // Brighter to the right: half a turn on from the west that counting starts at.
        assert!(strength(1, 4) > 0.5 && strength(2, 4) > 0.5);
        // The lower left is empty.
        assert_eq!((0..DIRECTIONS).map(|d| strength(12, d)).sum::<f32>(), 0.0);
    }
}
