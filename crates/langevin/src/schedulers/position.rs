//! Which step of a loop a call is.

use crate::{Error, Result};

/// Where a loop stands: found by the timestep at its first step, counted from then on.
///
/// A timestep may come twice in a loop, as in methods that ask the model twice a step, so that it alone does not tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    begin: Option<usize>,
    step: Option<usize>,
}

impl Position {
    /// Says at which step the loop will begin, or begin anew.
    pub(super) fn begin_at(&mut self, index: usize) {
        *self = Self {
            begin: Some(index),
            step: None,
        };
    }

    /// The step that the call at timestep `t` is.
    ///
    /// # Errors
    /// If `t` is not where the loop stands.
    pub(super) fn find(&mut self, timesteps: &[f64], t: f64) -> Result<usize> {
        let index = self.at(timesteps, t)?;
        self.step = Some(index);
        Ok(index)
    }

    /// The same for whoever only looks, and leaves the loop where it is.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn at(&self, timesteps: &[f64], t: f64) -> Result<usize> {
        let index = match self.step.or(self.begin) {
            Some(index) => index,
            None => index_of(timesteps, t)?,
        };
        match timesteps.get(index) {
            Some(&here) if here == t => Ok(index),
            Some(here) => Err(Error::Config(format!(
                "timestep {t} was given where the loop stands at {here}; setting the timesteps again begins it anew"
            ))),
            None => Err(Error::Config(format!(
                "timestep {t} was given after the loop's {} steps; setting the timesteps again begins it anew",
                timesteps.len()
            ))),
        }
    }

    /// Counts a step.
    pub(super) fn advance(&mut self) {
        self.step = self.step.map(|step| step + 1);
    }

    /// The step that noise is added for whatever its timestep, where a beginning was set.
    pub(super) fn of_noise(&self) -> Option<usize> {
        self.begin.map(|begin| self.step.unwrap_or(begin))
    }
}

/// The place of timestep `t` in a loop that may begin there. Of two places it is the second, so that a loop which begins
/// in the middle does not begin half way through a step; but the loop's first timestep is its beginning.
///
/// # Errors
/// If `t` is not one of the timesteps.
pub(crate) fn index_of(timesteps: &[f64], t: f64) -> Result<usize> {
    let mut places = (0..timesteps.len()).filter(|&i| timesteps[i] == t);
    match places.next() {
        Some(0) => Ok(0),
        Some(first) => Ok(places.next().unwrap_or(first)),
        None => Err(Error::Config(format!(
            "timestep {t} is not one of this loop's {} timesteps",
            timesteps.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: [f64; 5] = [9.0, 4.5, 4.5, 1.0, 1.0];

    #[test]
    fn steps_are_found_once_and_counted_from_then_on() {
        let mut position = Position::default();
        for (i, t) in LOOP.into_iter().enumerate() {
            // Asking does not move.
            position.find(&LOOP, t).unwrap();
            assert_eq!(position.find(&LOOP, t).unwrap(), i);
            position.advance();
        }
        let error = position.find(&LOOP, 1.0).unwrap_err().to_string();
        assert!(error.contains("after the loop's 5 steps"), "{error}");
    }

    #[test]
    fn a_loop_can_begin_in_the_middle() {
        let mut position = Position::default();
        assert_eq!(position.find(&LOOP, 4.5).unwrap(), 2);
        let mut position = Position::default();
        position.begin_at(1);
        assert_eq!(position.of_noise(), Some(1));
        assert_eq!(position.find(&LOOP, 4.5).unwrap(), 1);
    }

    #[test]
    fn the_first_timestep_is_the_beginning_even_if_it_comes_twice() {
        assert_eq!(index_of(&[9.0, 9.0, 4.0], 9.0).unwrap(), 0);
    }

    #[test]
    fn a_timestep_out_of_turn_is_refused() {
        let mut position = Position::default();
        assert!(
            position
                .find(&LOOP, 5.0)
                .unwrap_err()
                .to_string()
                .contains("not one of")
        );
        position.find(&LOOP, 9.0).unwrap();
        position.advance();
        assert!(
            position
                .find(&LOOP, 9.0)
                .unwrap_err()
                .to_string()
                .contains("stands at 4.5")
        );
    }
}
