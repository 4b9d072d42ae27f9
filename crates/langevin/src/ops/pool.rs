//! Where kernels run, and the memory that they take.

pub use langevin_kernels::buffer::trim;

use super::{algorithm, computing, convolving, keeping, kept_as, precision};

/// Runs `work` on a thread of the pool that the kernels use, while its other threads stay awake for the kernels' jobs: of these there are
/// many small ones, and handing each over from outside, or to a thread that sleeps, costs more than some of them. A training
/// step, or a whole sampling loop, goes in at once. What [`convolving`], [`computing`] and [`keeping`] say here holds there.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let (algorithm, precision, kept_as) = (algorithm(), precision(), kept_as());
    langevin_kernels::parallel::lead(|| {
        convolving(algorithm, || computing(precision, || keeping(kept_as, work)))
    })
}
