//! Changes of parameters that are made as a checkpoint reads them.

use crate::Result;

/// A change of a parameter, made as a [`Checkpoint`](super::Checkpoint) reads it.
pub trait Edit: Send + Sync {
    /// Changes a parameter's numbers, row-major in PyTorch's shape.
    ///
    /// # Errors
    /// If what the change is made of cannot be read.
    fn apply(&self, values: &mut [f32], shape: &[usize]) -> Result<()>;
}
