//! The Box–Muller transform as PyTorch's vectorised CPU kernel does it, to the last bit.

use crate::simd::{Isa, Kernel, Simd};

/// How many values a block has: eight radii, then eight angles.
pub const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

/// Turns blocks of 16 uniform values in [0, 1) into standard normal ones in place, as PyTorch's `normal_fill_16_AVX2`. What does
/// not fill a block at the end is left as it is. The bits are the same with every instruction set.
pub fn box_muller(values: &mut [f32]) {
    Isa::current().run(BoxMuller(values));
}

struct BoxMuller<'a>(&'a mut [f32]);

impl Kernel for BoxMuller<'_> {
    type Output = ();

    /// Plain loops over eight lanes, which the compiler turns into the instruction set's vectors; what matters is that `mul_add`
    /// is an instruction there, and not a call.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for block in self.0.as_chunks_mut::<BLOCK>().0 {
            let (radii, angles) = block.split_at_mut(HALF);
            for (u1, u2) in radii.iter_mut().zip(angles) {
                let radius = (-2.0 * ln(1.0 - *u1)).sqrt();
                let (sin, cos) = sin_cos(2.0 * std::f32::consts::PI * *u2);
                (*u1, *u2) = (radius * cos, radius * sin);
            }
        }
    }
}

// The next two are the Cephes approximations of `avx_mathfun.h`, which PyTorch's kernel calls. Each multiplication and
// addition is rounded, or fused into one rounding, as in PyTorch's builds for AVX2 and AVX-512: found by comparing the
// 36 ways to fuse them with a million values of PyTorch 2.15, of which this one alone gives them all, to the last bit.

/// The natural logarithm of a number in (0, 1].
#[inline(always)]
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
    let exponent = (bits >> 23) as i32 as f32 - 126.0;
    let small = m < std::f32::consts::FRAC_1_SQRT_2;
    let exponent = if small { exponent - 1.0 } else { exponent };
    let m = m - 1.0 + if small { m } else { 0.0 };
    let z = m * m;
    let mut polynomial = COEFFICIENTS[0];
    for c in &COEFFICIENTS[1..] {
        polynomial = polynomial.mul_add(m, *c);
    }
    let y = (polynomial * m).mul_add(z, exponent * -2.121_944_4e-4);
    let y = z.mul_add(-0.5, y);
    exponent.mul_add(0.693_359_4, m + y)
}

/// The sine and the cosine of an angle in [0, 2π).
#[inline(always)]
fn sin_cos(theta: f32) -> (f32, f32) {
    // The octant, made even; then what is left of theta in [-π/4, π/4], by π/4 in three parts.
    let octant = ((theta * 1.273_239_5) as i32 + 1) & !1;
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
    // Octants 2 and 6 swap the two; 4 and 6 turn the sine's sign, 2 and 4 the cosine's.
    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let turned = |value: f32, octant: i32| f32::from_bits(value.to_bits() ^ ((octant as u32 & 4) << 29));
    (turned(sin, octant), turned(cos, octant + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.manual_seed(0); torch.rand(16)` and `torch.manual_seed(0); torch.randn(16)`.
    #[test]
    fn sixteen_values_are_pytorchs_on_every_instruction_set() {
        const UNIFORM: [f32; BLOCK] = [
            0.4962566,
            0.7682218,
            0.08847743,
            0.13203049,
            0.30742282,
            0.6340787,
            0.4900934,
            0.89644474,
            0.45562798,
            0.6323063,
            0.34889346,
            0.4017173,
            0.022325754,
            0.16885895,
            0.29388845,
            0.5185218,
        ];
        const NORMAL: [f32; BLOCK] = [
            -1.1258398,
            -1.1523602,
            -0.25057858,
            -0.4338788,
            0.84871036,
            0.69200915,
            -0.31601277,
            -2.1152194,
            0.32227492,
            -1.2633348,
            0.3499832,
            0.30813393,
            0.11984151,
            1.2376579,
            1.1167772,
            -0.24727815,
        ];
        for &isa in Isa::ALL {
            let mut values = UNIFORM;
            isa.limit(|| box_muller(&mut values));
            assert_eq!(values, NORMAL, "{isa:?}");
        }
        // An incomplete block stays.
        let mut short = [0.5; BLOCK + 3];
        box_muller(&mut short);
        assert_eq!(short[BLOCK..], [0.5; 3]);
        assert_ne!(short[0], 0.5);
    }
}
