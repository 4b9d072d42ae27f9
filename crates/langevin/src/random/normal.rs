//! The Box–Muller transform in the two float64 forms that PyTorch's CPU kernels have it; [`langevin_kernels::normal`] has the float32
//! one.

use std::f64::consts::PI;

use langevin_kernels::normal::BLOCK;

/// Two normal values from two uniform ones, as `at::normal_distribution<double>`.
pub(super) fn pair(u1: f64, u2: f64) -> (f64, f64) {
    let radius = (-2.0 * (-u2).ln_1p()).sqrt();
    let theta = 2.0 * PI * u1;
    (radius * theta.cos(), radius * theta.sin())
}

/// Sixteen uniform float64 values into normal ones in place, as `normal_fill_16<double>`.
pub(super) fn transform_block_f64(block: &mut [f64]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (u1, u2) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * (1.0 - *u1).ln()).sqrt();
        let theta = 2.0 * PI * *u2;
        (*u1, *u2) = (radius * theta.cos(), radius * theta.sin());
    }
}
