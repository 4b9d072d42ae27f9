//! AVX2 with FMA: eight lanes.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// A window into this, `8 − n` from its start, is a mask of the first `n` lanes.
static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Calls intrinsics.
macro_rules! with {
    ($($body:tt)*) => {{
        // SAFETY: the token proves that the processor has the instructions; pointers are the caller's promise.
        unsafe { $($body)* }
    }};
}

impl Avx2 {
    #[inline(always)]
    fn mask(self, n: usize) -> __m256i {
        let window = &MASK[8 - n..][..8];
        with!(_mm256_loadu_si256(window.as_ptr().cast()))
    }
}

impl Simd for Avx2 {
    type F = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const PANEL_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        with!(_mm256_set1_ps(value))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        with!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        with!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        with!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        with!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        with!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        with!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        with!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        with!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn low_bits_as_exponent(self, a: __m256) -> __m256 {
        with!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(
            a
        ))))
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        with!({
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        with!(_mm256_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: __m256) {
        with!(_mm256_storeu_ps(p, a))
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m256 {
        with!(_mm256_maskload_ps(p, self.mask(n)))
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, a: __m256) {
        with!(_mm256_maskstore_ps(p, self.mask(n), a))
    }

    #[inline(always)]
    fn round_to_bf16(self, a: __m256) -> __m256 {
        with!({
            let bits = _mm256_castps_si256(a);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let chosen = _mm256_blendv_ps(
                _mm256_castsi256_ps(rounded),
                _mm256_castsi256_ps(quiet),
                _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a),
            );
            _mm256_and_ps(
                chosen,
                _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32)),
            )
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m256 {
        with!({
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m256 {
        with!(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, a: __m256) {
        with!({
            let halves = _mm256_srli_epi32::<16>(_mm256_castps_si256(a));
            let packed = _mm_packus_epi32(
                _mm256_castsi256_si128(halves),
                _mm256_extracti128_si256::<1>(halves),
            );
            _mm_storeu_si128(p.cast(), packed)
        })
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        with!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }

    /// Interleaves pairs of rows, then pairs of pairs, which transposes within halves; a permutation exchanges the halves.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        with!({
            let mut halves = [self.zero(); 8];
            for g in [0, 4] {
                let row = |i: usize| _mm256_loadu_ps(from.add((g + i) * from_step));
                let (low, high) = (
                    _mm256_unpacklo_ps(row(0), row(1)),
                    _mm256_unpackhi_ps(row(0), row(1)),
                );
                let (low2, high2) = (
                    _mm256_unpacklo_ps(row(2), row(3)),
                    _mm256_unpackhi_ps(row(2), row(3)),
                );
                halves[g] = _mm256_shuffle_ps::<0x44>(low, low2);
                halves[g + 1] = _mm256_shuffle_ps::<0xee>(low, low2);
                halves[g + 2] = _mm256_shuffle_ps::<0x44>(high, high2);
                halves[g + 3] = _mm256_shuffle_ps::<0xee>(high, high2);
            }
            for i in 0..4 {
                let (a, b) = (halves[i], halves[4 + i]);
                _mm256_storeu_ps(to.add(i * to_step), _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(to.add((4 + i) * to_step), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        })
    }
}
