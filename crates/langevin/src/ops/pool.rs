//! Where kernels run.

/// Runs `work` on a thread of the pool that the kernels use: handing each of their many small jobs over from outside costs more than some of
/// them. A training step, or a whole sampling loop, goes in at once.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    langevin_kernels::parallel::lead(work)
}
