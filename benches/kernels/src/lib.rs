//! What the benchmarks of `langevin-kernels` have in common.

use criterion::{Bencher, Criterion};
use langevin_kernels::parallel::lead;
use std::time::Duration;

/// Measurements of a second each: a kernel takes milliseconds at most.
pub fn brief() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
}

/// Numbers of either sign about one in size.
pub fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 37) as f32 * 0.05 - 0.9).collect()
}

/// Measures `kernel` as models run it: within a step, whose threads stay awake.
pub fn run<R: Send>(bencher: &mut Bencher, kernel: impl FnMut() -> R + Send) {
    lead(|| bencher.iter(kernel));
}
