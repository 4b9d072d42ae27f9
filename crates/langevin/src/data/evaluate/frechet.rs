//! The Fréchet distance between two clouds of features, each taken for a Gaussian (Dowson and Landau 1982; Heusel et al. 2017).

use super::matrix::{eigenvalues, product, scatter, square_root, trace};
use crate::{Error, Result};

/// The mean and the covariance of rows of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    /// `[features]`.
    pub mean: Vec<f64>,
    /// `[features, features]`, symmetric.
    pub covariance: Vec<f64>,
}

impl Gaussian {
    /// The Gaussian of rows of `features` numbers, with the unbiased covariance, as `numpy.cov` has it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values are not whole rows; [`Error::Config`] if there are fewer than two rows.
    pub fn of(rows: &[f32], features: usize) -> Result<Self> {
        if features == 0 || !rows.len().is_multiple_of(features) {
            return Err(Error::Shape(format!(
                "{} values are not rows of {features} features",
                rows.len()
            )));
        }
        let count = rows.len() / features;
        if count < 2 {
            return Err(Error::Config(format!(
                "a covariance needs at least 2 pictures, and there is {count}"
            )));
        }
        let mut mean = vec![0.0; features];
        for row in rows.chunks_exact(features) {
            mean.iter_mut()
                .zip(row)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let mut centred = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(features) {
            centred.extend(
                row.iter()
                    .zip(&mean)
                    .map(|(&value, mean)| f64::from(value) - mean),
            );
        }
        let mut covariance = scatter(&centred, features);
        covariance.iter_mut().for_each(|sum| *sum /= (count - 1) as f64);
        Ok(Self { mean, covariance })
    }
}

/// The squared distance |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½).
///
/// The trace of the root is taken from the symmetric matrix Σ₁^½ Σ₂ Σ₁^½, which has the product's eigenvalues and real ones at that.
///
/// # Errors
/// [`Error::Shape`] if the two have not the same features; [`Error::Config`] if their numbers are not finite.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64> {
    let n = a.mean.len();
    if b.mean.len() != n || a.covariance.len() != n * n || b.covariance.len() != n * n {
        return Err(Error::Shape(format!(
            "Gaussians of {n} and {} features have no distance",
            b.mean.len()
        )));
    }
    let means: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let root = square_root(&a.covariance, n);
    let values = eigenvalues(&product(&product(&root, &b.covariance, n), &root, n), n);
    if !values.iter().all(|value| value.is_finite()) {
        return Err(Error::Config(
            "the Fréchet distance cannot be computed: a feature is no finite number, or far too large".into(),
        ));
    }
    let of_root: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok(means + trace(&a.covariance, n) + trace(&b.covariance, n) - 2.0 * of_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    fn rows(value: &serde_json::Value) -> Vec<f64> {
        let rows = value.as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
            .collect()
    }

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} is not {b}");
    }

    /// Of `scripts/evaluation_fixtures.py`.
    fn fixture() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/reference/evaluation.json")).unwrap()
    }

    #[test]
    fn square_roots_are_scipys() {
        for case in fixture()["square_roots"].as_array().unwrap() {
            let matrix = rows(&case["matrix"]);
            let n = case["matrix"].as_array().unwrap().len();
            let root = square_root(&matrix, n);
            for (ours, theirs) in root.iter().zip(rows(&case["sqrtm"])) {
                // The root of a singular matrix is known to half as many digits.
                close(*ours, theirs, 1e-6);
            }
            for (back, entry) in product(&root, &root, n).iter().zip(&matrix) {
                close(*back, *entry, 1e-12);
            }
        }
    }

    #[test]
    fn distances_are_scipys() {
        let fixture = fixture();
        let gaussian = |name: &str| {
            let rows: Vec<f32> = rows(&fixture[name]).into_iter().map(|v| v as f32).collect();
            Gaussian::of(&rows, fixture[name][0].as_array().unwrap().len()).unwrap()
        };
        let distance = frechet_distance(&gaussian("real"), &gaussian("drawn")).unwrap();
        close(distance, fixture["frechet"].as_f64().unwrap(), 1e-6);
        // Fewer rows than features: a singular covariance.
        let distance = frechet_distance(&gaussian("few"), &gaussian("drawn")).unwrap();
        close(distance, fixture["frechet_few"].as_f64().unwrap(), 1e-5);
    }

    #[test]
    fn synthetic_gaussians_have_the_distance_of_the_formula() {
        let diagonal = |mean: &[f64], variances: &[f64]| Gaussian {
            mean: mean.to_vec(),
            covariance: (0..9)
                .map(|i| if i % 4 == 0 { variances[i / 4] } else { 0.0 })
                .collect(),
        };
        let a = diagonal(&[0.0, 1.0, 2.0], &[1.0, 4.0, 0.0]);
        let b = diagonal(&[3.0, 1.0, 1.0], &[9.0, 4.0, 0.25]);
        // 3² + 1² between the means, (1 - 3)² + (0 - 0.5)² between the deviations.
        close(frechet_distance(&a, &b).unwrap(), 14.25, 1e-12);
        close(frechet_distance(&a, &a).unwrap(), 0.0, 1e-12);

        // Drawn: two standard normal clouds, one moved by 2 in one of four directions and twice as wide.
        let mut generator = Generator::new(1);
        let (count, features) = (20_000, 4);
        let first = generator.randn(count * features);
        let mut second = generator.randn(count * features);
        for row in second.chunks_exact_mut(features) {
            row.iter_mut().for_each(|value| *value *= 2.0);
            row[1] += 2.0;
        }
        let of = |rows: &[f32]| Gaussian::of(rows, features).unwrap();
        let distance = frechet_distance(&of(&first), &of(&second)).unwrap();
        close(distance, 4.0 + 4.0, 0.02);
    }

    #[test]
    fn what_is_no_cloud_is_refused() {
        assert!(Gaussian::of(&[0.0; 4], 4).is_err());
        assert!(Gaussian::of(&[0.0; 5], 2).is_err());
        let (a, b) = (
            Gaussian::of(&[0.0; 4], 2).unwrap(),
            Gaussian::of(&[0.0; 4], 1).unwrap(),
        );
        assert!(frechet_distance(&a, &b).is_err());
    }
}
