//! How much the error at each noise level counts.

use super::PredictionType;
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// How a loss is weighted over the noise levels.
    ///
    /// SNR is the signal-to-noise ratio ᾱ / (1 - ᾱ). Each rule is stated for the error of the clean picture; the same
    /// error of the noise is SNR times as large, that of the velocity SNR + 1 times, and the weights follow.
    #[derive(Default)]
    pub enum LossWeighting: "a weighting of the loss" {
        /// As `train_unconditional.py`: none for noise and velocity, SNR for the clean picture.
        #[default]
        Script = "script",
        /// Every error counts 1, whatever is predicted.
        Uniform = "uniform",
        /// SNR: every prediction counts as that of the noise does (Salimans and Ho 2022, section 4).
        Snr = "snr",
        /// min(SNR, γ), γ = 5 (Hang et al. 2023).
        MinSnr = "min-snr",
        /// SNR γ / (SNR + γ), γ = 4: the same without the corner (Crowson et al. 2024, section 3.4).
        SoftMinSnr = "soft-min-snr",
        /// SNR / (1 + SNR): the noisy levels, where content is decided, count more than details (Choi et al. 2022, with
        /// their γ = k = 1).
        P2 = "p2",
    }
}

/// A rule and its number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weighting {
    /// The rule.
    pub rule: LossWeighting,
    /// γ of the rules that have one; `None` is theirs.
    pub gamma: Option<f64>,
}

impl Weighting {
    /// What the error of a prediction is multiplied with where the signal-to-noise ratio is `snr`; `None` where nothing is
    /// weighted at all.
    ///
    /// # Errors
    /// If it is infinite or no number: without any noise, or without any signal where noise is predicted.
    pub fn weight(&self, kind: PredictionType, snr: f64) -> Result<Option<f64>> {
        let of_clean = match self.rule {
            LossWeighting::Script if kind != PredictionType::Sample => return Ok(None),
            LossWeighting::Uniform => return Ok(None),
            LossWeighting::Script | LossWeighting::Snr => snr,
            LossWeighting::MinSnr => snr.min(self.gamma.unwrap_or(5.0)),
            LossWeighting::SoftMinSnr => {
                let gamma = self.gamma.unwrap_or(4.0);
                // The other way round it would be ∞ / ∞ where there is no noise.
                1.0 / (1.0 / snr + 1.0 / gamma)
            }
            LossWeighting::P2 => 1.0 / (1.0 / snr + 1.0),
        };
        let weight = match kind {
            PredictionType::Epsilon => of_clean / snr,
            PredictionType::Sample => of_clean,
            PredictionType::VPrediction => of_clean / (snr + 1.0),
        };
        if weight.is_finite() {
            return Ok(Some(weight));
        }
        Err(Error::Config(format!(
            "the error of a predicted {kind} cannot be weighted by {} where the signal-to-noise ratio is {snr}",
            self.rule
        )))
    }
}
