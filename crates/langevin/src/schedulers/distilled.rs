//! Which timesteps a distilled model is asked at: a few of those that it was distilled on.

use super::options::{self, GivenLoop, LoopOptions};
use crate::{Error, Result};

/// The model that a loop asks: how many timesteps it was trained with, how many of these it was distilled on, and whether a
/// loop that is given another number walks over all training timesteps, of which that number is the most (TCD), or over
/// as many of them as that number (LCM).
#[derive(Clone, Copy, Debug)]
pub(super) struct Distilled {
    pub class_name: &'static str,
    pub train: usize,
    pub original_steps: usize,
    pub walks_over_all: bool,
}

impl Distilled {
    /// The timesteps of a loop, falling: spread evenly over the first `strength` of the timesteps that the model was
    /// distilled on (Luo et al. 2023, section 4.3), or those given.
    ///
    /// # Errors
    /// If there are not as many to choose from.
    pub(super) fn timesteps(self, options: &LoopOptions) -> Result<Vec<f64>> {
        options.only(
            self.class_name,
            &["timesteps", "original_inference_steps", "strength"],
        )?;
        let strength = options.strength.unwrap_or(1.0);
        let original_steps = options.original_inference_steps.unwrap_or(self.original_steps);
        check_original_steps(original_steps, self.train)?;
        match options.given(self.class_name)? {
            GivenLoop::Timesteps(timesteps) => custom(timesteps, self.train, strength),
            GivenLoop::Steps(steps) if self.walks_over_all && options.original_inference_steps.is_some() => {
                let origin: Vec<usize> = (0..share(self.train, strength)?).collect();
                spread(&origin, original_steps, steps)
            }
            GivenLoop::Steps(steps) => {
                let stride = self.train / original_steps;
                let origin = (1..=share(original_steps, strength)?).map(|i| i * stride - 1);
                spread(&origin.collect::<Vec<_>>(), original_steps, steps)
            }
            GivenLoop::Sigmas(_) => Err(Error::Config(format!(
                "{} takes a number of steps or timesteps for its loop, not sigmas",
                self.class_name
            ))),
        }
    }
}

/// Checks the number of timesteps that a model was distilled on.
pub(super) fn check_original_steps(original_steps: usize, train: usize) -> Result<()> {
    if original_steps == 0 || original_steps > train {
        return Err(Error::Config(format!(
            "original_inference_steps is {original_steps}, but this schedule has 1 to {train} timesteps to distil on"
        )));
    }
    Ok(())
}

/// How many of `n` timesteps a loop of this strength may visit.
fn share(n: usize, strength: f64) -> Result<usize> {
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(Error::Config(format!(
            "strength is {strength}, but it must be above 0 and at most 1"
        )));
    }
    Ok((n as f64 * strength) as usize)
}

/// `steps` of the rising `origin`, falling from its last.
fn spread(origin: &[usize], original_steps: usize, steps: usize) -> Result<Vec<f64>> {
    let n = origin.len();
    let most = n.min(original_steps);
    if steps == 0 || steps > most {
        return Err(Error::Config(format!(
            "{steps} inference steps were asked for, but there are 1 to {most} to choose: the loop visits some of the \
             timesteps that the model was distilled on, whose number is original_inference_steps times the strength"
        )));
    }
    // numpy.linspace without its end, rounded down.
    let stride = n as f64 / steps as f64;
    Ok((0..steps)
        .map(|i| origin[n - 1 - (i as f64 * stride) as usize] as f64)
        .collect())
}

/// The last `strength` of these timesteps, checked to be some of a schedule with `train` of them.
///
/// # Errors
/// If there are none, they do not fall, one is not in the schedule, or the strength leaves none.
fn custom(timesteps: &[f64], train: usize, strength: f64) -> Result<Vec<f64>> {
    options::check_timesteps(timesteps, train)?;
    if let Some(t) = timesteps.iter().find(|t| t.fract() != 0.0) {
        return Err(Error::Config(format!(
            "custom timestep {t} is not a whole number"
        )));
    }
    let kept = share(timesteps.len(), strength)?;
    if kept == 0 {
        return Err(Error::Config(format!(
            "strength {strength} leaves none of the {} timesteps",
            timesteps.len()
        )));
    }
    Ok(timesteps[timesteps.len() - kept..].to_vec())
}
