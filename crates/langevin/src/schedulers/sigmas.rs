//! Noise levels as σ, the noise's standard deviation beside a signal of 1 (Karras et al. 2022): the table of a discrete
//! schedule, and the ways in which a loop's levels are spread over it.

use super::{
    TimestepSpacing,
    options::{GivenLoop, check_timesteps, falls},
    quantile::beta_quantile,
};
use crate::{Error, Result, named::named_enum};

/// Karras's ρ for the spacing of discrete schedules, as diffusers has it.
const RHO: f64 = 7.0;
/// The shape of the beta spacing (Lee et al. 2024), as diffusers has it.
const BETA_SHAPE: f64 = 0.6;

named_enum! {
    /// The noise level that a loop ends at.
    #[derive(Default)]
    pub enum FinalSigmas: "a final noise level" {
        /// None: the last step is clean.
        #[default]
        Zero = "zero",
        /// The lowest that the schedule has.
        SigmaMin = "sigma_min",
    }
}

/// How the noise levels of a loop are spread between the highest and the lowest, in place of the timesteps' own levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigmaSpacing {
    /// Evenly in σ^(1/7) (Karras et al. 2022, eq. 5).
    Karras,
    /// Evenly in log σ.
    Exponential,
    /// By the quantiles of Beta(0.6, 0.6): more steps at both ends (Lee et al. 2024).
    Beta,
}

impl SigmaSpacing {
    /// The one that a config's flags ask for, if any.
    ///
    /// # Errors
    /// If more than one is asked for; the error names the class.
    pub(super) fn chosen(
        class_name: &str,
        karras: bool,
        exponential: bool,
        beta: bool,
    ) -> Result<Option<Self>> {
        match (karras, exponential, beta) {
            (false, false, false) => Ok(None),
            (true, false, false) => Ok(Some(Self::Karras)),
            (false, true, false) => Ok(Some(Self::Exponential)),
            (false, false, true) => Ok(Some(Self::Beta)),
            _ => Err(Error::Config(format!(
                "{class_name}: only one of use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas can be true"
            ))),
        }
    }

    /// `n` levels from `max` down to `min`.
    pub(super) fn spread(self, max: f64, min: f64, n: usize) -> Vec<f64> {
        match self {
            Self::Karras => karras(&linspace(0.0, 1.0, n), max, min, RHO),
            Self::Exponential => linspace(max.ln(), min.ln(), n)
                .into_iter()
                .map(f64::exp)
                .collect(),
            Self::Beta => linspace(0.0, 1.0, n)
                .into_iter()
                .map(|at| beta_quantile(1.0 - at, BETA_SHAPE, BETA_SHAPE))
                // Not min + share · (max - min), which loses the lesser of two levels that lie far apart.
                .map(|share| min * (1.0 - share) + max * share)
                .collect(),
        }
    }
}

/// The levels at the places `ramp` (0 is `max`, 1 is `min`) of Karras's spacing (Karras et al. 2022, eq. 5).
pub(crate) fn karras(ramp: &[f64], max: f64, min: f64, rho: f64) -> Vec<f64> {
    let (min_inv_rho, max_inv_rho) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    ramp.iter()
        .map(|at| (max_inv_rho + at * (min_inv_rho - max_inv_rho)).powf(rho))
        .collect()
}

/// `n` levels of a flow (σ in [0, 1], the sample is (1 - σ) x_0 + σ ε) from the noisiest down, without the last, 0: evenly
/// between 1 - 1/`train` and 0, then moved by `shift`. What diffusers calls flow sigmas.
pub(crate) fn flow(train: usize, shift: f64, n: usize) -> Vec<f64> {
    let alphas = linspace(1.0, 1.0 / train as f64, n + 1);
    alphas[1..]
        .iter()
        .rev()
        .map(|alpha| shifted(1.0 - alpha, shift))
        .collect()
}

/// A flow's level moved towards the noise (Esser et al. 2024, eq. 23).
pub(crate) fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// `numpy.linspace`, whose last value is its end exactly.
pub(crate) fn linspace(start: f64, end: f64, n: usize) -> Vec<f64> {
    let step = if n > 1 {
        (end - start) / (n - 1) as f64
    } else {
        0.0
    };
    let at = |i: usize| {
        if i > 0 && i + 1 == n {
            end
        } else {
            i as f64 * step + start
        }
    };
    (0..n).map(at).collect()
}

/// σ of every timestep of a discrete schedule, rising, in float32 as diffusers computes it.
#[derive(Clone, Debug)]
pub(crate) struct SigmaTable {
    sigmas: Vec<f32>,
    logs: Vec<f32>,
}

impl SigmaTable {
    /// The table of a schedule.
    ///
    /// # Errors
    /// If a timestep is without noise or without signal, so that it has no σ to divide by; the error names the class.
    pub(super) fn new(class_name: &str, alphas_cumprod: &[f32]) -> Result<Self> {
        let sigmas: Vec<f32> = alphas_cumprod
            .iter()
            .map(|alpha| ((1.0 - alpha) / alpha).sqrt())
            .collect();
        if let Some(t) = sigmas
            .iter()
            .position(|sigma| !(*sigma > 0.0 && sigma.is_finite()))
        {
            return Err(Error::Config(format!(
                "{class_name} divides by the ratio of noise to signal, which is {} at timestep {t}: \
                 its schedule must have some of both everywhere",
                sigmas[t]
            )));
        }
        let logs = sigmas.iter().map(|sigma| sigma.ln()).collect();
        Ok(Self { sigmas, logs })
    }

    /// σ of every timestep, rising.
    pub(super) fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// ln σ of every timestep, rising.
    pub(super) fn logs(&self) -> &[f32] {
        &self.logs
    }

    /// σ at a timestep that need not be whole, between its neighbours linearly: `numpy.interp`.
    pub(super) fn at(&self, t: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        if t >= last as f64 {
            return f64::from(self.sigmas[last]);
        }
        let below = t.max(0.0).floor() as usize;
        let (low, high) = (f64::from(self.sigmas[below]), f64::from(self.sigmas[below + 1]));
        (high - low) * (t.max(0.0) - below as f64) + low
    }

    /// The timestep, not whole as a rule, at which the schedule is as noisy as `sigma`, by interpolating in log σ.
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.max(1e-10).ln();
        let Some((low, high)) = self.neighbours(log_sigma) else {
            return 0.0;
        };
        let width = f64::from(self.logs[low] - self.logs[high]);
        let weight = if width == 0.0 {
            0.0
        } else {
            ((f64::from(self.logs[low]) - log_sigma) / width).clamp(0.0, 1.0)
        };
        (1.0 - weight) * low as f64 + weight * high as f64
    }

    /// [`Self::timestep`] in float32, as diffusers computes it for levels that are float32 themselves.
    pub(super) fn timestep_f32(&self, sigma: f32) -> f32 {
        let log_sigma = sigma.max(1e-10).ln();
        let Some((low, high)) = self.neighbours(log_sigma.into()) else {
            return 0.0;
        };
        let width = self.logs[low] - self.logs[high];
        let weight = if width == 0.0 {
            0.0
        } else {
            ((self.logs[low] - log_sigma) / width).clamp(0.0, 1.0)
        };
        (1.0 - weight) * low as f32 + weight * high as f32
    }

    /// The two places between which `log_sigma` lies, or the two nearest; none if the table has but one.
    fn neighbours(&self, log_sigma: f64) -> Option<(usize, usize)> {
        let last = self.logs.len().checked_sub(2)?;
        let above = self.logs.partition_point(|&log| f64::from(log) <= log_sigma);
        let low = above.saturating_sub(1).min(last);
        Some((low, low + 1))
    }
}

/// What the configs of the discrete schedulers in σ say about a loop.
#[derive(Clone, Debug)]
pub(crate) struct DiscreteSigmas {
    pub table: SigmaTable,
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: usize,
    /// How σ is spread, where that is not by the timesteps.
    pub spacing: Option<SigmaSpacing>,
    /// The lowest and the highest σ of such a spread, where they are not the timesteps'.
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
}

impl DiscreteSigmas {
    /// The timesteps of a loop and σ at each, from the noisiest to the cleanest.
    ///
    /// # Errors
    /// If the number of steps does not fit the schedule, the timesteps do not, or `sigmas` were given.
    pub(super) fn spread(&self, class_name: &str, given: GivenLoop<'_>) -> Result<(Vec<f64>, Vec<f64>)> {
        let train = self.table.sigmas.len();
        let timesteps: Vec<f64> = match given {
            GivenLoop::Steps(steps) => self
                .timestep_spacing
                .fractional(train, steps, self.steps_offset)?,
            GivenLoop::Timesteps(timesteps) => {
                check_timesteps(timesteps, train)?;
                if self.spacing.is_some() {
                    return Err(Error::Config(format!(
                        "{class_name} cannot be given timesteps where its config spreads the noise levels otherwise"
                    )));
                }
                timesteps.iter().map(|&t| f64::from(t as f32)).collect()
            }
            GivenLoop::Sigmas(_) => {
                return Err(Error::Config(format!(
                    "{class_name} has no use for `sigmas` in its loop"
                )));
            }
        };
        let sigmas: Vec<f64> = timesteps.iter().map(|&t| self.table.at(t)).collect();
        let Some(spacing) = self.spacing else {
            return Ok((timesteps, sigmas));
        };
        let max = self.sigma_max.unwrap_or(sigmas[0]);
        let min = self.sigma_min.unwrap_or(sigmas[sigmas.len() - 1]);
        let sigmas = spacing.spread(max, min, sigmas.len());
        let timesteps = sigmas.iter().map(|&sigma| self.table.timestep(sigma)).collect();
        Ok((timesteps, sigmas))
    }
}

/// Refuses noise levels that are none, not above zero but for the last, or do not fall.
pub(crate) fn check_sigmas(sigmas: &[f64], last_may_be_zero: bool) -> Result<()> {
    let (last, above) = match sigmas.split_last() {
        Some((last, above)) => (*last, above),
        None => {
            return Err(Error::Config(
                "custom sigmas were given, but there are none of them".to_owned(),
            ));
        }
    };
    let positive = |sigma: f64| sigma > 0.0 && sigma.is_finite();
    let wrong = above
        .iter()
        .copied()
        .find(|&sigma| !positive(sigma))
        .or_else(|| (!(positive(last) || last_may_be_zero && last == 0.0)).then_some(last));
    if let Some(sigma) = wrong {
        return Err(Error::Config(format!(
            "a custom sigma is {sigma}, but a noise level is above 0 and finite"
        )));
    }
    falls("sigmas", sigmas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> SigmaTable {
        SigmaTable::new("Test", &[0.99, 0.9, 0.5, 0.1, 0.01]).unwrap()
    }

    #[test]
    fn levels_between_timesteps_and_back() {
        let table = table();
        assert_eq!(table.at(-1.0), f64::from(table.sigmas()[0]));
        assert_eq!(table.at(9.0), f64::from(table.sigmas()[4]));
        assert!((table.at(2.5) - 2.0).abs() < 1e-6);
        for t in [0.0, 1.0, 3.0, 4.0] {
            assert!((table.timestep(table.at(t)) - t).abs() < 1e-6, "{t}");
            assert!(
                (table.timestep_f32(table.at(t) as f32) - t as f32).abs() < 1e-5,
                "{t}"
            );
        }
        // Beyond the table it is the table's end, and 0 has no logarithm.
        assert_eq!((table.timestep(0.0), table.timestep(100.0)), (0.0, 4.0));
    }

    #[test]
    fn spacings_keep_both_ends_and_fall() {
        for spacing in [
            SigmaSpacing::Karras,
            SigmaSpacing::Exponential,
            SigmaSpacing::Beta,
        ] {
            for n in [1, 2, 7, 1000] {
                let sigmas = spacing.spread(14.6, 0.03, n);
                assert_eq!(sigmas.len(), n);
                assert!((sigmas[0] - 14.6).abs() < 1e-12);
                assert!(n == 1 || (sigmas[n - 1] - 0.03).abs() < 1e-12);
                assert!(sigmas.windows(2).all(|pair| pair[1] < pair[0]), "{spacing:?} {n}");
            }
        }
        let karras = SigmaSpacing::Karras.spread(14.6, 0.03, 3);
        assert!(
            (karras[1] - ((14.6_f64.powf(1.0 / 7.0) + 0.03_f64.powf(1.0 / 7.0)) / 2.0).powi(7)).abs() < 1e-12
        );
        let exponential = SigmaSpacing::Exponential.spread(14.6, 0.03, 3);
        assert!((exponential[1] - (14.6_f64 * 0.03).sqrt()).abs() < 1e-12);
        assert!((SigmaSpacing::Beta.spread(14.6, 0.03, 3)[1] - 7.315).abs() < 1e-12);
        assert_eq!(SigmaSpacing::Beta.spread(0.003, 1e17, 1), [0.003]);
    }

    #[test]
    fn flows_fall_from_almost_one() {
        let sigmas = flow(1000, 3.0, 4);
        assert!((sigmas[0] - shifted(0.999, 3.0)).abs() < 1e-12);
        assert!(sigmas.windows(2).all(|pair| pair[1] < pair[0]) && sigmas[3] > 0.0);
    }

    #[test]
    fn schedules_without_a_ratio_of_noise_to_signal_are_refused() {
        for alphas_cumprod in [[1.0, 0.5], [0.5, 0.0]] {
            let error = SigmaTable::new("Test", &alphas_cumprod).unwrap_err().to_string();
            assert!(error.contains("must have some of both"), "{error}");
        }
        assert!(SigmaSpacing::chosen("Test", true, true, false).is_err());
    }

    #[test]
    fn impossible_custom_levels_are_refused() {
        assert!(check_sigmas(&[3.0, 1.0, 0.0], true).is_ok());
        for sigmas in [
            &[][..],
            &[3.0, 0.0, 0.0],
            &[1.0, 3.0],
            &[f64::NAN, 1.0],
            &[f64::INFINITY, 1.0],
        ] {
            assert!(check_sigmas(sigmas, true).is_err(), "{sigmas:?}");
        }
        assert!(check_sigmas(&[3.0, 0.0], false).is_err());
    }
}
