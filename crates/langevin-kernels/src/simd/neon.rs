//! NEON: four lanes. Every 64-bit ARM processor has it.

use super::{Kernel, Simd};
use std::arch::aarch64::*;

/// Proof that the processor has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// # Safety
/// The processor has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// Calls intrinsics.
macro_rules! with {
    ($($body:tt)*) => {{
        // SAFETY: the token proves that the processor has the instructions; pointers are the caller's promise.
        unsafe { $($body)* }
    }};
}

impl Simd for Neon {
    type F = float32x4_t;
    const LANES: usize = 4;
    const TILE_ROWS: usize = 8;
    const PANEL_VECTORS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        with!(vdupq_n_f32(value))
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        with!(vsqrtq_f32(a))
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        with!(vfmaq_f32(c, a, b))
    }
    /// A comparison and a choice: NEON's own minimum is not a number wherever one operand is not.
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with!(vbslq_f32(vcltq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn low_bits_as_exponent(self, a: float32x4_t) -> float32x4_t {
        with!(vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a))))
    }
    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        with!({
            let pairs = vpadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(vpadd_f32(pairs, pairs))
        })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        with!(vld1q_f32(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: float32x4_t) {
        with!(vst1q_f32(p, a))
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> float32x4_t {
        let mut values = [0.0; 4];
        with!({
            std::ptr::copy_nonoverlapping(p, values.as_mut_ptr(), n.min(4));
            vld1q_f32(values.as_ptr())
        })
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, a: float32x4_t) {
        let mut values = [0.0; 4];
        with!({
            vst1q_f32(values.as_mut_ptr(), a);
            std::ptr::copy_nonoverlapping(values.as_ptr(), p, n.min(4));
        })
    }

    #[inline(always)]
    fn round_to_bf16(self, a: float32x4_t) -> float32x4_t {
        with!({
            let bits = vreinterpretq_u32_f32(a);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(vdupq_n_u32(0x7fff), odd));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            let chosen = vbslq_u32(vceqq_f32(a, a), rounded, quiet);
            vreinterpretq_f32_u32(vandq_u32(chosen, vdupq_n_u32(0xffff_0000)))
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> float32x4_t {
        with!(vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(p)))))
    }
    /// As [`super::widened_f16`], in whole numbers: the intrinsics for half precision are not stable yet.
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> float32x4_t {
        with!({
            let bits = vmovl_u16(vld1_u16(p));
            let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
            let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
            let infinite = vdupq_n_u32(super::INFINITE_F16);
            let finite = vmulq_n_f32(vreinterpretq_f32_u32(magnitude), super::F16_EXPONENTS);
            let quiet = vandq_u32(vcgtq_u32(magnitude, infinite), vdupq_n_u32(0x0040_0000));
            let others = vorrq_u32(vorrq_u32(magnitude, vdupq_n_u32(0x7f80_0000)), quiet);
            let wide = vbslq_u32(
                vcgeq_u32(magnitude, infinite),
                others,
                vreinterpretq_u32_f32(finite),
            );
            vreinterpretq_f32_u32(vorrq_u32(sign, wide))
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, a: float32x4_t) {
        with!(vst1_u16(p, vshrn_n_u32::<16>(vreinterpretq_u32_f32(a))))
    }

    /// Interleaves pairs of rows, then pairs of pairs.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        with!({
            let row = |i: usize| vld1q_f32(from.add(i * from_step));
            let (even, odd) = (vtrn1q_f32(row(0), row(1)), vtrn2q_f32(row(0), row(1)));
            let (even2, odd2) = (vtrn1q_f32(row(2), row(3)), vtrn2q_f32(row(2), row(3)));
            let [even, odd, even2, odd2] = [even, odd, even2, odd2].map(|v| vreinterpretq_f64_f32(v));
            let columns = [
                vtrn1q_f64(even, even2),
                vtrn1q_f64(odd, odd2),
                vtrn2q_f64(even, even2),
                vtrn2q_f64(odd, odd2),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                vst1q_f32(to.add(i * to_step), vreinterpretq_f32_f64(column));
            }
        })
    }
}
