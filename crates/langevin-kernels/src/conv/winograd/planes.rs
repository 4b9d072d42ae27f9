//! Matrices of a plane each, one beside the other.

use super::transform::PLANES;
use crate::buffer::LINE_VALUES;
use crate::scratch::Scratch;

/// How far the 36 matrices of one kind lie apart.
///
/// A transform writes to all of them at the same place, so their distance is an odd number of cache lines: with a power of
/// two all 36 would share one set of the first-level cache.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub step: usize,
}

impl Planes {
    /// Matrices of `len` values each.
    pub(super) fn new(len: usize) -> Self {
        Self {
            step: (len.div_ceil(LINE_VALUES) | 1) * LINE_VALUES,
        }
    }

    /// Values of all of them.
    pub(super) fn len(self) -> usize {
        PLANES * self.step
    }

    /// Room for them.
    pub(super) fn scratch(self) -> Scratch {
        Scratch::new(self.len())
    }
}
