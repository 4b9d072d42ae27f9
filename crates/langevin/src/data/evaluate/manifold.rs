//! How much of the drawn pictures looks real, and how much of the real ones is drawn (Kynkäänniemi et al. 2019).

use rayon::prelude::*;

use super::squared_distance;
use crate::{Error, Result};

/// Both from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// The part of the drawn pictures that is inside the real ones' manifold.
    pub precision: f64,
    /// The part of the real pictures that is inside the drawn ones' manifold.
    pub recall: f64,
}

/// Compares rows of `features` numbers. A cloud's manifold is the balls around its rows that reach to the `k`-th nearest other
/// one; the paper has k = 3.
///
/// # Errors
/// [`Error::Shape`] if the values are not whole rows; [`Error::Config`] if `k` is 0, or a cloud has no `k` other rows.
pub fn precision_recall(real: &[f32], drawn: &[f32], features: usize, k: usize) -> Result<PrecisionRecall> {
    for rows in [real, drawn] {
        if features == 0 || !rows.len().is_multiple_of(features) {
            return Err(Error::Shape(format!(
                "{} values are not rows of {features} features",
                rows.len()
            )));
        }
        let count = rows.len() / features;
        if k == 0 || count <= k {
            return Err(Error::Config(format!(
                "{k} nearest neighbours of each were asked for among {count} pictures"
            )));
        }
    }
    Ok(PrecisionRecall {
        precision: part_inside(drawn, real, features, k),
        recall: part_inside(real, drawn, features, k),
    })
}

/// The part of `rows` that is inside the manifold of `cloud`.
fn part_inside(rows: &[f32], cloud: &[f32], features: usize, k: usize) -> f64 {
    let radii = radii(cloud, features, k);
    let is_inside = |row: &[f32]| {
        let mut balls = cloud.chunks_exact(features).zip(&radii);
        balls.any(|(centre, radius)| squared_distance(centre, row) <= *radius)
    };
    let inside = rows
        .par_chunks_exact(features)
        .filter(|row| is_inside(row))
        .count();
    inside as f64 / (rows.len() / features) as f64
}

/// The squared distance of each row to its `k`-th nearest other one.
fn radii(cloud: &[f32], features: usize, k: usize) -> Vec<f64> {
    let radius = |row: &[f32]| {
        // Itself is the nearest of all.
        let mut distances: Vec<f64> = cloud
            .chunks_exact(features)
            .map(|other| squared_distance(other, row))
            .collect();
        *distances.select_nth_unstable_by(k, f64::total_cmp).1
    };
    cloud.par_chunks_exact(features).map(radius).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_those_of_the_definition() {
        // By numpy, in scripts/evaluation_fixtures.py.
        let text = include_str!("../../../tests/reference/evaluation.json");
        let fixture: serde_json::Value = serde_json::from_str(text).unwrap();
        let rows = |name: &str| -> Vec<f32> {
            let rows = fixture[name].as_array().unwrap().iter();
            rows.flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32))
                .collect()
        };
        let features = fixture["real"][0].as_array().unwrap().len();
        let measured = precision_recall(&rows("real"), &rows("drawn"), features, 3).unwrap();
        assert_eq!(measured.precision, fixture["precision"].as_f64().unwrap());
        assert_eq!(measured.recall, fixture["recall"].as_f64().unwrap());
        assert!(
            measured.precision > 0.0 && measured.precision < 1.0 && measured.precision != measured.recall
        );
    }

    #[test]
    fn copies_and_strangers_are_told_apart() {
        let line: Vec<f32> = (0..20).map(|i| i as f32).collect();
        let far: Vec<f32> = line.iter().map(|v| v + 1000.0).collect();
        let of = |drawn: &[f32]| precision_recall(&line, drawn, 1, 3).unwrap();
        assert_eq!((of(&line).precision, of(&line).recall), (1.0, 1.0));
        assert_eq!((of(&far).precision, of(&far).recall), (0.0, 0.0));
        // A model that draws one corner only is precise, and recalls little.
        let corner: Vec<f32> = (0..20).map(|i| i as f32 / 20.0).collect();
        assert_eq!(of(&corner).precision, 1.0);
        assert!(of(&corner).recall < 0.2);
        assert!(precision_recall(&line, &line[..3], 1, 3).is_err());
        assert!(precision_recall(&line, &line, 1, 0).is_err());
    }
}
