//! Timesteps that are drawn more often than others.

use crate::{Error, Result, named::named_enum, random::Generator};

named_enum! {
    /// Which timesteps are drawn more often.
    #[derive(Default)]
    pub enum TimestepBiasStrategy: "a bias of timesteps" {
        /// None.
        #[default]
        None = "none",
        /// Those of little noise.
        Earlier = "earlier",
        /// Those of much noise.
        Later = "later",
        /// Those from one to another.
        Range = "range",
    }
}

/// How often timesteps are drawn. Mirrors `generate_timestep_weights` of diffusers' `train_text_to_image_sdxl.py`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimestepBias {
    /// Which ones are drawn more often.
    pub strategy: TimestepBiasStrategy,
    /// How many times as often.
    pub multiplier: f64,
    /// The first of a range.
    pub begin: usize,
    /// The first behind it.
    pub end: usize,
    /// The part of all timesteps that is earlier or later.
    pub portion: f64,
}

impl Default for TimestepBias {
    /// All alike.
    fn default() -> Self {
        Self {
            strategy: TimestepBiasStrategy::None,
            multiplier: 1.0,
            begin: 0,
            end: 1000,
            portion: 0.25,
        }
    }
}

impl TimestepBias {
    /// For each of so many timesteps the probability of it or an earlier one; `None` where all are alike.
    ///
    /// # Errors
    /// If a number is none that it can be.
    pub(super) fn cumulative(&self, timesteps: usize) -> Result<Option<Vec<f32>>> {
        let part = (self.portion * timesteps as f64) as usize;
        let biased = match self.strategy {
            TimestepBiasStrategy::None => return Ok(None),
            TimestepBiasStrategy::Earlier => 0..part.min(timesteps),
            TimestepBiasStrategy::Later => timesteps.saturating_sub(part)..timesteps,
            TimestepBiasStrategy::Range => self.begin..self.end,
        };
        let refused = |option: &'static [&'static str], why: String| Err(Error::option(option, why));
        if !(self.multiplier.is_finite() && self.multiplier > 0.0) {
            return refused(
                &["timestep_bias_multiplier"],
                format!(
                    "`timestep_bias_multiplier` is {}; it must be a positive number",
                    self.multiplier
                ),
            );
        }
        if !(0.0..=1.0).contains(&self.portion) {
            return refused(
                &["timestep_bias_portion"],
                format!(
                    "`timestep_bias_portion` is {}; it must be between 0 and 1",
                    self.portion
                ),
            );
        }
        if biased.end > timesteps || biased.start >= biased.end {
            return refused(
                &["timestep_bias_begin", "timestep_bias_end"],
                format!(
                    "`timestep_bias_begin` is {} and `timestep_bias_end` {}: from one to the other there must be timesteps, of which there are {timesteps}",
                    biased.start, biased.end
                ),
            );
        }
        let mut weights = vec![1.0_f32; timesteps];
        weights[biased]
            .iter_mut()
            .for_each(|weight| *weight *= self.multiplier as f32);
        let sum: f32 = weights.iter().sum();
        let mut so_far = 0.0;
        for weight in &mut weights {
            so_far += *weight / sum;
            *weight = so_far;
        }
        weights.iter_mut().for_each(|weight| *weight /= so_far);
        Ok(Some(weights))
    }
}

/// Draws so many timesteps, as `torch.multinomial` draws several.
pub(super) fn draw(cumulative: &[f32], n: usize, generator: &mut Generator) -> Vec<usize> {
    let drawn = generator.rand_f64(n).into_iter();
    drawn
        .map(|u| cumulative.partition_point(|&sum| f64::from(sum) < u))
        // The sum of all is 1, rounded.
        .map(|timestep| timestep.min(cumulative.len() - 1))
        .collect()
}
