//! What the tests share: values, comparison, and running on every instruction set and number of threads.

#![allow(dead_code, reason = "each test target uses a part of it")]

use langevin_kernels::simd::Isa;

/// Values of about a normal distribution, a function of the seed.
pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| 2.0 * (next() + next() + next())).collect()
}

/// Fails where a value differs from the truth by more than `tolerance` of the largest true value.
#[track_caller]
pub(crate) fn assert_close(what: &str, values: &[f32], truth: &[f64], tolerance: f64) {
    assert_close_at_least(what, values, truth, tolerance, 0.0);
}

/// [`assert_close`], with `least` where no true value is as large.
#[track_caller]
pub(crate) fn assert_close_at_least(what: &str, values: &[f32], truth: &[f64], tolerance: f64, least: f64) {
    assert_eq!(values.len(), truth.len(), "{what}: length");
    let largest = truth.iter().fold(least.max(1e-30), |m, t| m.max(t.abs()));
    for (i, (&v, &t)) in values.iter().zip(truth).enumerate() {
        let error = (f64::from(v) - t).abs() / largest;
        assert!(
            error <= tolerance,
            "{what}: element {i} is {v}, should be {t} (largest {largest})"
        );
    }
}

#[track_caller]
pub(crate) fn assert_same_bits(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}: length");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{what}: element {i} is {a:e} and {b:e}"
        );
    }
}

/// Every instruction set that this machine has.
pub(crate) fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.iter().copied().filter(|&isa| isa <= Isa::available())
}

/// Runs `f` in pools of 1, 2 and 5 threads and checks that its results have the same bits.
#[track_caller]
pub(crate) fn with_thread_counts(what: &str, f: impl Fn() -> Vec<f32> + Sync) -> Vec<f32> {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        pool.install(&f)
    };
    let one = run(1);
    for threads in [2, 5] {
        assert_same_bits(&format!("{what}, {threads} threads"), &run(threads), &one);
    }
    one
}

pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
