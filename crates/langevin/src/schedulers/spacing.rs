//! Which of the training timesteps a sampling loop visits.

use serde::{Deserialize, Serialize};

use super::sigmas::linspace;
use crate::{Error, Result};

/// How the steps of a loop are spread over the training timesteps (Lin et al. 2023, table 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Evenly with both ends included, each rounded.
    Linspace,
    /// Every `train / steps`-th from 0 up, then moved by `steps_offset`.
    #[default]
    Leading,
    /// Every `train / steps`-th from the last one down.
    Trailing,
}

impl TimestepSpacing {
    /// The whole timesteps of a loop of `steps`, from the noisiest to the cleanest, of a schedule with `train` of them.
    /// `steps_offset` moves the leading spacing alone, as in diffusers.
    ///
    /// # Errors
    /// If `steps` is zero or more than `train`, or the offset moves a timestep beyond the schedule.
    pub fn timesteps(self, train: usize, steps: usize, steps_offset: usize) -> Result<Vec<usize>> {
        if steps == 0 || steps > train {
            return Err(Error::Config(format!(
                "{steps} inference steps were asked for, but this schedule has 1 to {train} of them"
            )));
        }
        let (last, n) = ((train - 1) as f64, steps as f64);
        let timesteps: Vec<usize> = match self {
            Self::Linspace => {
                let rising = linspace(0.0, last, steps).into_iter();
                rising.rev().map(|t| t.round_ties_even() as usize).collect()
            }
            Self::Leading => (0..steps)
                .rev()
                .map(|i| (i * (train / steps)).saturating_add(steps_offset))
                .collect(),
            Self::Trailing => {
                // numpy.arange(train, 0, -train / n), which counts by the rounded difference of its first two values.
                // Its length can come out one too many, with a timestep of -1 at the end (61 of 1000, for one); here
                // there are always as many steps as were asked for.
                let start = train as f64;
                let step = (start - start / n) - start;
                (0..steps)
                    .map(|i| ((start + i as f64 * step).round_ties_even() - 1.0).max(0.0) as usize)
                    .collect()
            }
        };
        match timesteps.first() {
            Some(&first) if first >= train => Err(Error::Config(format!(
                "steps_offset {steps_offset} moves the first of {steps} timesteps to {first}, beyond the schedule's last, {last}"
            ))),
            _ => Ok(timesteps),
        }
    }

    /// The timesteps of a loop of `steps` as the schedulers in σ take them, which may lie between the training timesteps:
    /// those of the linspace spacing are not rounded. In float32, as in diffusers.
    ///
    /// # Errors
    /// As [`Self::timesteps`].
    pub fn fractional(self, train: usize, steps: usize, steps_offset: usize) -> Result<Vec<f64>> {
        let whole = self.timesteps(train, steps, steps_offset)?;
        if self != Self::Linspace {
            return Ok(whole.into_iter().map(|t| t as f64).collect());
        }
        let rising = linspace(0.0, (train - 1) as f64, steps).into_iter();
        Ok(rising.rev().map(|t| f64::from(t as f32)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_are_numpys() {
        let timesteps = |spacing: TimestepSpacing, n, offset| spacing.timesteps(1000, n, offset).unwrap();
        assert_eq!(timesteps(TimestepSpacing::Leading, 5, 1), [801, 601, 401, 201, 1]);
        assert_eq!(timesteps(TimestepSpacing::Trailing, 4, 1), [999, 749, 499, 249]);
        // np.linspace(0, 999, 3) is 0, 499.5, 999, and np.round goes to the even neighbour.
        assert_eq!(timesteps(TimestepSpacing::Linspace, 3, 1), [999, 500, 0]);
        assert_eq!(timesteps(TimestepSpacing::Linspace, 1, 0), [0]);
        assert_eq!(timesteps(TimestepSpacing::Trailing, 1, 0), [999]);
    }

    #[test]
    fn every_number_of_steps_gives_as_many_falling_timesteps() {
        for spacing in [
            TimestepSpacing::Linspace,
            TimestepSpacing::Leading,
            TimestepSpacing::Trailing,
        ] {
            for train in [1, 2, 37, 1000] {
                for steps in 1..=train {
                    let timesteps = spacing.timesteps(train, steps, 0).unwrap();
                    assert_eq!(timesteps.len(), steps);
                    assert!(
                        timesteps.windows(2).all(|pair| pair[1] < pair[0]),
                        "{spacing:?} {train} {steps}"
                    );
                    assert!(timesteps[0] < train);
                }
            }
        }
    }

    #[test]
    fn impossible_numbers_of_steps_are_refused() {
        let refused = |steps, offset| {
            TimestepSpacing::Leading
                .timesteps(100, steps, offset)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(0, 0).contains("0 inference steps"));
        assert!(refused(101, 0).contains("1 to 100"));
        assert!(refused(100, 1).contains("to 100, beyond"));
        assert!(refused(10, usize::MAX).contains("beyond"));
    }
}
