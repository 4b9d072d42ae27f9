//! How the learning rate changes over a run. Mirrors `diffusers.optimization.get_scheduler`.

use std::f64::consts::PI;

use super::LrSchedulerType;
use crate::{Error, Result};

/// What a schedule multiplies the learning rate with at each step.
#[derive(Clone, Debug, PartialEq)]
pub struct LrSchedule {
    shape: Shape,
    warmup: f64,
    steps: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Linear,
    Cosine {
        cycles: f64,
    },
    CosineWithRestarts {
        cycles: f64,
    },
    /// `end` is the last factor: the last learning rate over the first.
    Polynomial {
        power: f64,
        end: f64,
    },
    Constant,
    ConstantWithWarmup,
    /// γ to the power of the epoch.
    Exponential {
        gamma: f64,
        steps_per_epoch: usize,
    },
    /// The factor below each step, steps rising, and the one after them all.
    Piecewise {
        rules: Vec<(usize, f64)>,
        last: f64,
    },
}

/// The arguments of `get_scheduler`, with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct LrScheduleOptions {
    /// Steps over which the factor rises from zero.
    pub num_warmup_steps: usize,
    /// Steps of the whole run.
    pub num_training_steps: usize,
    /// Waves of the two cosine schedules; `None` is half a one, and one for restarts.
    pub num_cycles: Option<f64>,
    /// The power of `polynomial`.
    pub power: f64,
    /// The stretches of `piecewise_constant`.
    pub step_rules: Option<String>,
    /// γ of `exponential`.
    pub gamma: f64,
    /// Optimiser steps in an epoch, for `exponential`.
    pub steps_per_epoch: usize,
    /// The learning rate that the factors will multiply; `polynomial` ends at 1e-7 whatever it is.
    pub learning_rate: f64,
}

/// Where `polynomial` ends.
const POLYNOMIAL_END: f64 = 1e-7;

impl LrSchedule {
    /// The schedule of this name.
    ///
    /// # Errors
    /// If `piecewise_constant` has no rules or malformed ones, or `polynomial` would have to rise to its end.
    pub fn new(kind: LrSchedulerType, options: &LrScheduleOptions) -> Result<Self> {
        let shape = match kind {
            LrSchedulerType::Linear => Shape::Linear,
            LrSchedulerType::Cosine => Shape::Cosine {
                cycles: options.num_cycles.unwrap_or(0.5),
            },
            LrSchedulerType::CosineWithRestarts => Shape::CosineWithRestarts {
                cycles: options.num_cycles.unwrap_or(1.0),
            },
            LrSchedulerType::Polynomial if options.learning_rate <= POLYNOMIAL_END => {
                return Err(Error::Config(format!(
                    "the polynomial schedule ends at a learning rate of {POLYNOMIAL_END:e}, which {} is not above",
                    options.learning_rate
                )));
            }
            LrSchedulerType::Polynomial => Shape::Polynomial {
                power: options.power,
                end: POLYNOMIAL_END / options.learning_rate,
            },
            LrSchedulerType::Exponential => Shape::Exponential {
                gamma: options.gamma,
                steps_per_epoch: options.steps_per_epoch.max(1),
            },
            LrSchedulerType::Constant => Shape::Constant,
            LrSchedulerType::ConstantWithWarmup => Shape::ConstantWithWarmup,
            LrSchedulerType::PiecewiseConstant => parse_rules(options.step_rules.as_deref().unwrap_or(""))?,
        };
        let (warmup, steps) = (options.num_warmup_steps as f64, options.num_training_steps as f64);
        Ok(Self { shape, warmup, steps })
    }

    /// The factor of the step after `step` steps are done.
    pub fn factor(&self, step: usize) -> f64 {
        let now = step as f64;
        match &self.shape {
            Shape::Constant => return 1.0,
            Shape::Exponential {
                gamma,
                steps_per_epoch,
            } => return gamma.powf((step / steps_per_epoch) as f64),
            Shape::Piecewise { rules, last } => {
                return rules
                    .iter()
                    .find(|(until, _)| step < *until)
                    .map_or(*last, |(_, factor)| *factor);
            }
            _ if now < self.warmup => return now / self.warmup.max(1.0),
            _ => {}
        }
        let progress = (now - self.warmup) / (self.steps - self.warmup).max(1.0);
        match self.shape {
            Shape::Linear => ((self.steps - now) / (self.steps - self.warmup).max(1.0)).max(0.0),
            Shape::Cosine { cycles } => (0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos())).max(0.0),
            Shape::CosineWithRestarts { .. } if progress >= 1.0 => 0.0,
            Shape::CosineWithRestarts { cycles } => {
                (0.5 * (1.0 + (PI * (cycles * progress).fract()).cos())).max(0.0)
            }
            Shape::Polynomial { end, .. } if now > self.steps => end,
            Shape::Polynomial { power, end } => (1.0 - end) * (1.0 - progress).max(0.0).powf(power) + end,
            Shape::Constant
            | Shape::ConstantWithWarmup
            | Shape::Exponential { .. }
            | Shape::Piecewise { .. } => 1.0,
        }
    }
}

/// `1:10,0.1:20,0.01`: 1 below step 10, 0.1 below step 20, 0.01 from there.
fn parse_rules(text: &str) -> Result<Shape> {
    let wrong = || {
        Error::Config(format!(
            "`{text}` are no rules for piecewise_constant: write FACTOR:STEP for each stretch and a last FACTOR, such as 1:10,0.1:20,0.01"
        ))
    };
    let (rules, last) = text.rsplit_once(',').unwrap_or(("", text));
    let number = |text: &str| {
        text.trim()
            .parse::<f64>()
            .ok()
            .filter(|x| x.is_finite())
            .ok_or_else(wrong)
    };
    let mut parsed = vec![];
    for rule in rules.split(',').filter(|rule| !rule.is_empty()) {
        let (factor, until) = rule.split_once(':').ok_or_else(wrong)?;
        parsed.push((until.trim().parse().map_err(|_| wrong())?, number(factor)?));
    }
    parsed.sort_by_key(|(until, _)| *until);
    Ok(Shape::Piecewise {
        rules: parsed,
        last: number(last)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LrScheduleOptions {
        LrScheduleOptions {
            num_warmup_steps: 0,
            num_training_steps: 10,
            num_cycles: None,
            power: 1.0,
            step_rules: None,
            gamma: 0.9,
            steps_per_epoch: 4,
            learning_rate: 1e-3,
        }
    }

    #[test]
    fn rules_that_are_none_are_refused() {
        for rules in ["", "a", "1:2", "1:x,2", "1,2,3", "inf"] {
            let options = LrScheduleOptions {
                step_rules: Some(rules.into()),
                ..options()
            };
            let error = LrSchedule::new(LrSchedulerType::PiecewiseConstant, &options).unwrap_err();
            assert!(
                error.to_string().contains("piecewise_constant"),
                "{rules}: {error}"
            );
        }
    }

    #[test]
    fn exponential_decay_goes_by_epochs() {
        let schedule = LrSchedule::new(LrSchedulerType::Exponential, &options()).unwrap();
        // torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9), stepped after every fourth step
        let expected = [1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9, 0.81];
        for (step, expected) in expected.into_iter().enumerate() {
            assert!((schedule.factor(step) - expected).abs() < 1e-12, "{step}");
        }
    }

    #[test]
    fn a_schedule_survives_steps_beyond_its_end() {
        use crate::named::Named;
        for &kind in LrSchedulerType::ALL {
            let options = LrScheduleOptions {
                step_rules: Some("1:5,0.5".into()),
                ..options()
            };
            let schedule = LrSchedule::new(kind, &options).unwrap();
            assert!(
                (0..100).all(|step| (0.0..=1.0).contains(&schedule.factor(step))),
                "{kind}"
            );
        }
    }
}
