//! The Box–Muller transform in the three forms that PyTorch's CPU kernels have it.

use std::f64::consts::PI;

/// How many values a block of the vectorised path has: eight radii, then eight angles.
pub(super) const BLOCK: usize = 16;

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

/// Sixteen uniform float32 values into normal ones in place, as `normal_fill_16_AVX2`.
pub(super) fn transform_block(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (u1, u2) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * ln(1.0 - *u1)).sqrt();
        let (sin, cos) = sin_cos(2.0 * std::f32::consts::PI * *u2);
        (*u1, *u2) = (radius * cos, radius * sin);
    }
}

// The next two are the Cephes approximations of `avx_mathfun.h`, which PyTorch's kernel calls. Each multiplication and
// addition is rounded, or fused into one rounding, as in PyTorch's builds for AVX2 and AVX-512: found by comparing the
// 36 ways to fuse them with a million values of PyTorch 2.15, of which this one alone gives them all, to the last bit.

/// The natural logarithm of a number in (0, 1].
fn ln(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // x = m · 2^exponent with m in [√½, √2), then a polynomial in m - 1.
    let bits = x.to_bits();
    let m = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let exponent = (bits >> 23) as f32 - 126.0;
    let (m, exponent) = if m < std::f32::consts::FRAC_1_SQRT_2 {
        (m - 1.0 + m, exponent - 1.0)
    } else {
        (m - 1.0, exponent)
    };
    let z = m * m;
    let polynomial = COEFFICIENTS
        .into_iter()
        .reduce(|y, c| y.mul_add(m, c))
        .unwrap_or_default()
        * m;
    let y = polynomial.mul_add(z, exponent * -2.121_944_4e-4);
    let y = z.mul_add(-0.5, y);
    exponent.mul_add(0.693_359_4, m + y)
}

/// The sine and the cosine of an angle in [0, 2π).
fn sin_cos(theta: f32) -> (f32, f32) {
    // The octant, made even; then what is left of theta in [-π/4, π/4], by π/4 in three parts.
    let octant = ((theta * 1.273_239_5) as u32 + 1) & !1;
    let y = octant as f32;
    let x = y.mul_add(-0.785_156_25, theta);
    let x = y.mul_add(-2.418_756_5e-4, x);
    let x = y.mul_add(-3.774_895e-8, x);
    let z = x * x;
    let c = 2.443_315_7e-5_f32
        .mul_add(z, -1.388_731_6e-3)
        .mul_add(z, 4.166_664_6e-2)
        * z;
    let c = c.mul_add(z, -(z * 0.5)) + 1.0;
    let s = (-1.951_529_6e-4_f32)
        .mul_add(z, 8.332_161e-3)
        .mul_add(z, -1.666_665_5e-1)
        * z;
    let s = s.mul_add(x, x);
    match octant & 7 {
        0 => (s, c),
        2 => (c, -s),
        4 => (-s, -c),
        _ => (-c, s),
    }
}
