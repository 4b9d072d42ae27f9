//! Between learning and updating: what several processes of one run would add up.

use super::gradients::Gradients;
use crate::Result;

/// The processes that train together, and the sum of their gradients. A file per transport.
pub trait Reduce: Send {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// The sum of all processes' gradients, the same in each.
    ///
    /// # Errors
    /// If another process is gone.
    fn sum(&mut self, gradients: Gradients) -> Result<Gradients>;
}

/// One process alone: its own gradients are the sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Reduce for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn sum(&mut self, gradients: Gradients) -> Result<Gradients> {
        Ok(gradients)
    }
}
