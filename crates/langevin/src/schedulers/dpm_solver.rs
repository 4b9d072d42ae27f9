//! What the solvers in λ, half the logarithm of the signal-to-noise ratio, have in common: the levels of a loop as (α, σ, λ),
//! the φ functions of exponential integrators, and the model's outputs of the steps behind.

use burn::tensor::Tensor;

use super::{NoiseLevel, PredictionType, VarianceType, ddpm, prediction::Bounds, same_shape};
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// What a model predicts, for the solvers that also know flows: the three things of [`PredictionType`], and a flow's
    /// velocity.
    #[derive(Default)]
    pub enum SolverPrediction: "a kind of prediction" {
        /// The noise ε in the sample.
        #[default]
        Epsilon = "epsilon",
        /// The clean sample x_0.
        Sample = "sample",
        /// The velocity v = √ᾱ ε - √(1 - ᾱ) x_0.
        VPrediction = "v_prediction",
        /// The velocity of a flow, ε - x_0, where the sample is (1 - σ) x_0 + σ ε.
        FlowPrediction = "flow_prediction",
    }
}

impl From<PredictionType> for SolverPrediction {
    fn from(kind: PredictionType) -> Self {
        match kind {
            PredictionType::Epsilon => Self::Epsilon,
            PredictionType::Sample => Self::Sample,
            PredictionType::VPrediction => Self::VPrediction,
        }
    }
}

/// How a sample is made of signal and noise at a noise level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mixture {
    /// α² + σ² = 1: the level is σ / α.
    VariancePreserving,
    /// α + σ = 1: the level is σ.
    Flow,
    /// α = 1: the level is σ.
    VarianceExploding,
}

impl Mixture {
    /// What a config's flag `use_flow_sigmas` says.
    pub(super) fn of_flow(use_flow_sigmas: bool) -> Self {
        if use_flow_sigmas {
            Self::Flow
        } else {
            Self::VariancePreserving
        }
    }

    /// α, σ and λ at the level `sigma`. In float64: differences of λ lose digits, which diffusers' float32 has fewer of.
    pub(super) fn level(self, sigma: f32) -> Level {
        let sigma = f64::from(sigma);
        let (alpha, sigma) = match self {
            Self::VariancePreserving => {
                let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
                (alpha, sigma * alpha)
            }
            Self::Flow => (1.0 - sigma, sigma),
            Self::VarianceExploding => (1.0, sigma),
        };
        Level {
            alpha,
            sigma,
            lambda: alpha.ln() - sigma.ln(),
        }
    }
}

/// The weights of signal and noise in a sample, and λ = ln (α / σ), which grows as the noise goes and is infinite without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub alpha: f64,
    pub sigma: f64,
    pub lambda: f64,
}

impl From<Level> for NoiseLevel {
    fn from(level: Level) -> Self {
        Self {
            signal: level.alpha as f32,
            noise: level.sigma as f32,
        }
    }
}

/// φ_1(z) = (exp z - 1) / z, φ_{k+1}(z) = (φ_k(z) - 1/k!) / z: the functions that exponential integrators are made of
/// (Hochbruck and Ostermann 2010, eq. 2.10), by their series where the quotients would cancel.
pub(super) fn phi(k: usize, z: f64) -> f64 {
    let reciprocal_factorial = |n: usize| (1..=n).fold(1.0, |product, i| product / i as f64);
    if z.abs() < 1.0 {
        let mut term = reciprocal_factorial(k);
        let mut sum = term;
        for j in 1..20 {
            term *= z / (k + j) as f64;
            sum += term;
        }
        return sum;
    }
    (1..k).fold(z.exp_m1() / z, |phi, j| (phi - reciprocal_factorial(j)) / z)
}

/// What the model said at the steps behind, newest last, as clean samples or as noise.
///
/// Steps without length, which a loop of nearly as many steps as the schedule has can hold, leave but one entry: no difference
/// of λ between two entries is zero.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    entries: Vec<(Level, Tensor<4>)>,
}

impl History {
    /// Adds an output, and forgets all but the newest `most`.
    pub(super) fn push(&mut self, level: Level, output: Tensor<4>, most: usize) {
        if self
            .entries
            .last()
            .is_some_and(|(last, _)| last.lambda == level.lambda)
        {
            self.entries.pop();
        }
        self.entries.push((level, output));
        if self.entries.len() > most {
            self.entries.remove(0);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry `back` steps before the newest.
    pub(super) fn get(&self, back: usize) -> Option<&(Level, Tensor<4>)> {
        self.entries.len().checked_sub(back + 1).map(|i| &self.entries[i])
    }

    /// The entries from the newest to the oldest.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &(Level, Tensor<4>)> {
        self.entries.iter().rev()
    }
}

/// Σ w · x over the terms whose weight is not zero.
pub(super) fn weighted_sum<'a>(
    first: Tensor<4>,
    terms: impl IntoIterator<Item = (f64, &'a Tensor<4>)>,
) -> Tensor<4> {
    terms
        .into_iter()
        .filter(|(weight, _)| *weight != 0.0)
        .fold(first, |sum, (weight, x)| sum + x.clone() * weight)
}

/// From what a model predicts to clean samples and noise, with the bounds that a config puts on the former.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predicted {
    pub kind: SolverPrediction,
    pub bounds: Bounds,
    pub variance_type: Option<VarianceType>,
}

impl Predicted {
    /// Refuses what cannot be together: a flow's velocity on anything but a flow, or for a solver that needs the noise.
    pub(super) fn check(&self, class_name: &str, mixture: Mixture, needs_noise: bool) -> Result<()> {
        self.bounds.check()?;
        if self.kind != SolverPrediction::FlowPrediction {
            return Ok(());
        }
        if mixture != Mixture::Flow {
            return Err(Error::Config(format!(
                "{class_name}: prediction_type is flow_prediction, which needs use_flow_sigmas to be true"
            )));
        }
        if needs_noise {
            return Err(Error::Config(format!(
                "{class_name}: prediction_type is flow_prediction, which this algorithm_type, a solver for the noise, does not \
                 take; those for the clean sample do"
            )));
        }
        Ok(())
    }

    /// The prediction without the variance that a model may predict in a second half of its channels.
    pub(super) fn without_variance(&self, prediction: Tensor<4>, x: &Tensor<4>) -> Result<Tensor<4>> {
        match self.variance_type {
            Some(variance_type) => Ok(ddpm::split_variance(variance_type, prediction, x)?.0),
            None => {
                same_shape("the prediction", &prediction, "the sample", x)?;
                Ok(prediction)
            }
        }
    }

    /// x̂_0, bounded.
    pub(super) fn clean(&self, prediction: &Tensor<4>, x: &Tensor<4>, at: Level) -> Tensor<4> {
        self.bounds.apply(match self.kind {
            SolverPrediction::Epsilon => (x.clone() - prediction.clone() * at.sigma) / at.alpha,
            SolverPrediction::Sample => prediction.clone(),
            SolverPrediction::VPrediction => x.clone() * at.alpha - prediction.clone() * at.sigma,
            SolverPrediction::FlowPrediction => x.clone() - prediction.clone() * at.sigma,
        })
    }

    /// ε̂, of the bounded clean sample where one is bounded, and that clean sample.
    pub(super) fn noise(&self, prediction: Tensor<4>, x: &Tensor<4>, at: Level) -> (Tensor<4>, Tensor<4>) {
        let clean = self.clean(&prediction, x, at);
        let noise = match self.kind {
            SolverPrediction::Epsilon if !self.bounds.are_set() => prediction,
            SolverPrediction::VPrediction if !self.bounds.are_set() => {
                prediction * at.alpha + x.clone() * at.sigma
            }
            _ => noise_between(&clean, x, at),
        };
        (noise, clean)
    }
}

/// The noise that leads from `clean` to `x`.
pub(super) fn noise_between(clean: &Tensor<4>, x: &Tensor<4>, at: Level) -> Tensor<4> {
    (x.clone() - clean.clone() * at.alpha) / at.sigma
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_is_the_same_by_series_and_by_quotients() {
        for k in 1..=4 {
            for sign in [-1.0, 1.0] {
                let (below, above) = (phi(k, sign * (1.0 - 1e-12)), phi(k, sign * (1.0 + 1e-12)));
                assert!((below / above - 1.0).abs() < 1e-10, "{k}: {below} {above}");
            }
            let at_zero = (1..=k).fold(1.0, |product, i| product / i as f64);
            assert_eq!(phi(k, 0.0), at_zero);
        }
        assert!((phi(1, 2.0) - (2_f64.exp() - 1.0) / 2.0).abs() < 1e-12);
        assert!((phi(2, -3.0) - ((-3_f64).exp() - 1.0 + 3.0) / 9.0).abs() < 1e-12);
    }

    #[test]
    fn levels_hold_what_their_mixture_says() {
        let level = Mixture::VariancePreserving.level(2.0);
        assert!((level.alpha.powi(2) + level.sigma.powi(2) - 1.0).abs() < 1e-12);
        assert!((level.lambda + 2_f64.ln()).abs() < 1e-12);
        assert_eq!(Mixture::VariancePreserving.level(0.0).lambda, f64::INFINITY);
        let level = Mixture::Flow.level(0.25);
        assert!((level.lambda - 3_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn history_forgets_and_holds_no_level_twice() {
        let x = Tensor::<4>::zeros([1, 1, 1, 1], &burn::tensor::Device::default());
        let mut history = History::default();
        for sigma in [4.0, 3.0, 3.0, 2.0] {
            history.push(Mixture::VariancePreserving.level(sigma), x.clone(), 3);
        }
        let sigmas: Vec<f64> = history
            .newest_first()
            .map(|(level, _)| level.sigma / level.alpha)
            .collect();
        assert_eq!(history.len(), 3);
        for (sigma, expected) in sigmas.into_iter().zip([2.0, 3.0, 4.0]) {
            assert!((sigma - expected).abs() < 1e-12);
        }
        assert!(history.get(2).is_some() && history.get(3).is_none());
    }
}
