//! How good generated pictures are, judged by real ones: whether they show what was asked for, how far the two clouds are apart,
//! how much of one is within the other, and which real ones each is nearest to.

mod features;
mod frechet;
mod manifold;
mod matrix;
mod spectra;

pub use features::{SHAPE_SPACE, shape_features};
pub use frechet::{Gaussian, frechet_distance};
pub use manifold::{PrecisionRecall, precision_recall};
pub use spectra::{SPECTRUM_SPACE, spectrum_features};

use rayon::prelude::*;

use crate::{Error, Result};

/// Labels of `queries` by their `k` nearest neighbours among `train`, as scikit-learn's `KNeighborsClassifier`
/// with uniform weights predicts them: Euclidean distance, most votes; the smallest label wins a tie of votes,
/// the smaller index a tie of distances.
///
/// `train` and `queries` are rows of `features` numbers, one after the other; `labels` has one number for each
/// row of `train`.
///
/// # Errors
/// [`Error::Shape`] if the lengths do not fit together; [`Error::Config`] if `k` is zero or above the number of
/// rows in `train`.
pub fn nearest_neighbours(
    train: &[f32],
    labels: &[usize],
    queries: &[f32],
    features: usize,
    k: usize,
) -> Result<Vec<usize>> {
    if features == 0 || train.len() != labels.len() * features || !queries.len().is_multiple_of(features) {
        return Err(Error::Shape(format!(
            "{} and {} values are not rows of {features} features, the first with {} labels",
            train.len(),
            queries.len(),
            labels.len()
        )));
    }
    if k == 0 || k > labels.len() {
        return Err(Error::Config(format!(
            "{k} neighbours were asked for among {} pictures",
            labels.len()
        )));
    }
    let label_of = |query: &[f32]| {
        let nearest = nearest(train, query, features, k);
        most_frequent(nearest.into_iter().map(|index| labels[index]).collect())
    };
    Ok(queries.par_chunks_exact(features).map(label_of).collect())
}

/// The indices of the at most `k` rows of `features` numbers that are nearest to `query`, the nearest first; of two as near, the
/// first.
pub fn nearest(rows: &[f32], query: &[f32], features: usize, k: usize) -> Vec<usize> {
    let distances = rows
        .chunks_exact(features)
        .map(|row| squared_distance(row, query));
    let mut order: Vec<(f64, usize)> = distances.zip(0..).collect();
    let by_distance = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_distance);
        order.truncate(k);
    }
    order.sort_unstable_by(by_distance);
    order.into_iter().map(|(_, index)| index).collect()
}

/// A sum in four parts, which the processor adds side by side.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |a: f32, b: f32| (f64::from(a) - f64::from(b)).powi(2);
    let (a_parts, a_rest) = a.as_chunks::<4>();
    let (b_parts, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for i in 0..4 {
            sums[i] += square(a[i], b[i]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| square(a, b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// The label that occurs most often, the smallest of those that do; 0 for none.
fn most_frequent(mut votes: Vec<usize>) -> usize {
    votes.sort_unstable();
    let runs = votes.chunk_by(|a, b| a == b);
    runs.fold((0, 0), |best, run| {
        if run.len() > best.1 {
            (run[0], run.len())
        } else {
            best
        }
    })
    .0
}

/// How often the judged label is the asked one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// For each class: how many pictures were judged to show it, of how many that were asked for.
    pub per_class: Vec<(usize, usize)>,
}

impl Agreement {
    /// Compares labels with the classes that were asked for, of which there are `classes`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two differ in length, or a class asked for is not below `classes`.
    pub fn new(asked: &[usize], judged: &[usize], classes: usize) -> Result<Self> {
        let mut per_class = vec![(0, 0); classes];
        if asked.len() != judged.len() {
            return Err(Error::Shape(format!(
                "{} classes but {} labels",
                asked.len(),
                judged.len()
            )));
        }
        for (&asked, &judged) in asked.iter().zip(judged) {
            let (agreed, all) = per_class
                .get_mut(asked)
                .ok_or_else(|| Error::Shape(format!("class {asked} is not one of {classes} classes")))?;
            *agreed += usize::from(asked == judged);
            *all += 1;
        }
        Ok(Self { per_class })
    }

    /// The part of all pictures that agrees, from 0 to 1; not a number if there was none.
    pub fn fraction(&self) -> f64 {
        let agreed: usize = self.per_class.iter().map(|(agreed, _)| agreed).sum();
        let all: usize = self.per_class.iter().map(|(_, all)| all).sum();
        agreed as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, digits};

    #[test]
    fn digits_are_told_apart_as_by_scikit_learn() {
        // X, y = load_digits(return_X_y=True)
        // KNeighborsClassifier(5).fit(X[:1400], y[:1400]).predict(X[1400:]): 384 of 397 right.
        let digits = digits().unwrap();
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for index in 0..digits.len() {
            let example = digits.get(index).unwrap();
            features.extend(example.picture.pixels().iter().map(|&v| f32::from(v)));
            labels.push(example.class.unwrap());
        }
        let (train, queries) = features.split_at(1400 * 64);
        let judged = nearest_neighbours(train, &labels[..1400], queries, 64, 5).unwrap();
        let agreement = Agreement::new(&labels[1400..], &judged, 10).unwrap();
        assert_eq!(agreement.per_class, SCIKIT_LEARN);
        assert_eq!(agreement.fraction(), 384.0 / 397.0);
    }

    /// By digit: right, of all.
    const SCIKIT_LEARN: [(usize, usize); 10] = [
        (38, 39),
        (39, 39),
        (40, 40),
        (35, 39),
        (39, 41),
        (41, 41),
        (39, 39),
        (39, 39),
        (36, 39),
        (38, 41),
    ];

    #[test]
    fn ties_go_to_the_smallest_label_and_index() {
        let judge =
            |labels: &[usize], k| nearest_neighbours(&[1.0, -1.0, 3.0, -3.0], labels, &[0.0], 1, k).unwrap();
        assert_eq!(judge(&[7, 3, 0, 0], 2), [3]);
        assert_eq!(judge(&[7, 3, 0, 0], 1), [7]);
        assert_eq!(judge(&[5, 4, 9, 9], 3), [4]);
        assert_eq!(judge(&[5, 4, 9, 9], 4), [9]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(nearest_neighbours(&[0.0; 4], &[0, 1], &[0.0; 3], 2, 1).is_err());
        assert!(nearest_neighbours(&[0.0; 3], &[0, 1], &[0.0; 2], 2, 1).is_err());
        assert!(nearest_neighbours(&[0.0; 4], &[0, 1], &[0.0; 2], 2, 3).is_err());
        assert!(nearest_neighbours(&[], &[], &[], 0, 0).is_err());
        assert!(Agreement::new(&[0, 5], &[0, 1], 2).is_err());
        assert!(Agreement::new(&[0], &[0, 1], 2).is_err());
    }
}
