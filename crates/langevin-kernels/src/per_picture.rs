//! A vector of each picture, at all of its positions.

use crate::parallel;

/// Below this many elements a second thread costs more than it brings.
const PARALLEL_FROM: usize = 1 << 15;

/// `x[n, p, c] += vector[n, c]`.
///
/// `x` is `[batch, pixels, channels]`, `vector` is `[batch, channels]`.
///
/// # Panics
/// If the lengths do not fit together.
pub fn add_per_picture(channels: usize, vector: &[f32], x: &mut [f32]) {
    let batch = pictures(channels, vector.len(), x.len());
    if batch == 0 {
        return;
    }
    let (worth, length) = (x.len() >= PARALLEL_FROM, x.len() / batch);
    parallel::for_each_part(x, length, worth, |i, picture| {
        let vector = &vector[i * channels..][..channels];
        for position in picture.chunks_exact_mut(channels) {
            for (x, v) in position.iter_mut().zip(vector) {
                *x += v;
            }
        }
    });
}

/// `sums[n, c] = Σ_p x[n, p, c]`, position after position: the gradient of [`add_per_picture`] at the vector.
///
/// `x` is `[batch, pixels, channels]`, `sums` is `[batch, channels]`.
///
/// # Panics
/// If the lengths do not fit together.
pub fn sum_positions(channels: usize, x: &[f32], sums: &mut [f32]) {
    let batch = pictures(channels, sums.len(), x.len());
    if batch == 0 {
        return;
    }
    let (worth, length) = (x.len() >= PARALLEL_FROM, x.len() / batch);
    parallel::for_each_part(sums, channels, worth, |i, sums| {
        sums.fill(0.0);
        for position in x[i * length..][..length].chunks_exact(channels) {
            for (s, x) in sums.iter_mut().zip(position) {
                *s += x;
            }
        }
    });
}

/// How many pictures there are, once the lengths have been found to fit.
fn pictures(channels: usize, vectors: usize, elements: usize) -> usize {
    assert!(channels > 0, "per_picture: there are no channels");
    let batch = vectors / channels;
    assert!(
        vectors == batch * channels && (elements == 0 || elements.is_multiple_of(vectors)),
        "per_picture: {elements} elements and {vectors} vector elements do not make pictures of {channels} channels"
    );
    if elements == 0 { 0 } else { batch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_and_sums_by_picture() {
        let mut x = vec![0.0; 2 * 3 * 2];
        add_per_picture(2, &[1.0, 2.0, 3.0, 4.0], &mut x);
        assert_eq!(x, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0]);
        let mut sums = vec![f32::NAN; 4];
        sum_positions(2, &x, &mut sums);
        assert_eq!(sums, [3.0, 6.0, 9.0, 12.0]);
    }
}
