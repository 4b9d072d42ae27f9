//! How fast the moving average of the weights follows them.

use serde::{Deserialize, Serialize};

/// The decay of the average over a run. Mirrors the schedule of `diffusers.training_utils.EMAModel`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmaSchedule {
    /// The decay that the warm-up ends at.
    pub max_decay: f64,
    /// The decay that it never falls below once it has begun.
    pub min_decay: f64,
    /// Steps before it begins; until then the average is the model itself.
    pub update_after_step: u64,
    /// Whether the warm-up is 1 - (1 + n / inv_gamma)^-power; otherwise it is (1 + n) / (10 + n).
    pub use_ema_warmup: bool,
    /// The warm-up's unit of time, in steps.
    pub inv_gamma: f64,
    /// The warm-up's power: 2/3 for runs of a million steps and more, 3/4 for shorter ones.
    pub power: f64,
}

impl Default for EmaSchedule {
    fn default() -> Self {
        Self {
            max_decay: 0.9999,
            min_decay: 0.0,
            update_after_step: 0,
            use_ema_warmup: false,
            inv_gamma: 1.0,
            power: 2.0 / 3.0,
        }
    }
}

impl EmaSchedule {
    /// Over how many of the last steps the average looks back after `step` updates.
    pub fn looks_back(&self, step: u64) -> f64 {
        1.0 / (1.0 - self.decay(step)).max(f64::EPSILON)
    }

    /// Whether the average still looks back to where a model had learned little: over more than a quarter of its `step` updates.
    pub fn is_young(&self, step: u64) -> bool {
        self.looks_back(step) > step as f64 / 4.0
    }

    /// The decay of the average's `step`-th update, counted from 1: 0 makes it the model, 1 would leave it as it is.
    pub fn decay(&self, step: u64) -> f64 {
        let n = step.saturating_sub(self.update_after_step + 1);
        if n == 0 {
            return 0.0;
        }
        let n = n as f64;
        let decay = if self.use_ema_warmup {
            1.0 - (1.0 + n / self.inv_gamma).powf(-self.power)
        } else {
            (1.0 + n) / (10.0 + n)
        };
        decay.min(self.max_decay).max(self.min_decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warms_up_to_its_maximum() {
        let schedule = EmaSchedule {
            use_ema_warmup: true,
            power: 0.75,
            max_decay: 0.99,
            ..EmaSchedule::default()
        };
        let decays: Vec<f64> = [1, 2, 3, 12].iter().map(|&step| schedule.decay(step)).collect();
        // From a run of diffusers' EMAModel.
        let expected = [0.0, 0.4053964424986395, 0.5613086623491692, 0.8448991901496501];
        assert!(
            decays.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
            "{decays:?}"
        );
        assert_eq!(schedule.decay(1_000_000), 0.99);
    }

    #[test]
    fn it_is_young_while_it_looks_back_to_the_beginning() {
        let schedule = EmaSchedule {
            use_ema_warmup: true,
            power: 0.75,
            ..EmaSchedule::default()
        };
        // n^0.75 of n steps: a quarter at 4^4.
        assert!(schedule.is_young(250) && !schedule.is_young(265));
        let long = EmaSchedule {
            min_decay: 0.9999,
            ..schedule
        };
        assert!(long.is_young(39_000) && !long.is_young(41_000));
    }

    #[test]
    fn it_may_begin_late_and_has_a_floor() {
        let schedule = EmaSchedule {
            update_after_step: 10,
            min_decay: 0.5,
            ..EmaSchedule::default()
        };
        assert_eq!(schedule.decay(11), 0.0);
        assert_eq!(schedule.decay(12), 0.5);
        assert!((schedule.decay(111) - 101.0 / 110.0).abs() < 1e-12);
    }
}
