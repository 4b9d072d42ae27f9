//! AVX-512F: sixteen lanes.

use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX-512F, AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// # Safety
/// The processor has AVX-512F, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

/// Calls intrinsics.
macro_rules! with {
    ($($body:tt)*) => {{
        // SAFETY: the token proves that the processor has the instructions; pointers are the caller's promise.
        unsafe { $($body)* }
    }};
}

impl Simd for Avx512 {
    type F = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 8;
    const PANEL_VECTORS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        with!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        with!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        with!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        with!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        with!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        with!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        with!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn low_bits_as_exponent(self, a: __m512) -> __m512 {
        with!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(
            a
        ))))
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        with!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        with!(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: __m512) {
        with!(_mm512_storeu_ps(p, a))
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m512 {
        with!(_mm512_maskz_loadu_ps(mask(n), p))
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, a: __m512) {
        with!(_mm512_mask_storeu_ps(p, mask(n), a))
    }

    #[inline(always)]
    fn round_to_bf16(self, a: __m512) -> __m512 {
        with!({
            let bits = _mm512_castps_si512(a);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let unordered = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            let chosen = _mm512_mask_blend_epi32(unordered, rounded, quiet);
            _mm512_castsi512_ps(_mm512_and_si512(
                chosen,
                _mm512_set1_epi32(0xffff_0000_u32 as i32),
            ))
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m512 {
        with!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m512 {
        with!(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, a: __m512) {
        with!({
            let halves = _mm512_srli_epi32::<16>(_mm512_castps_si512(a));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(halves))
        })
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        with!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }

    /// Interleaves pairs of rows, then pairs of pairs, which transposes within quarters of 128 bits; two rounds of
    /// shuffles bring the quarters to their places.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        with!({
            let mut quarters = [self.zero(); 16];
            for g in (0..16).step_by(4) {
                let row = |i: usize| _mm512_loadu_ps(from.add((g + i) * from_step));
                let (low, high) = (
                    _mm512_unpacklo_ps(row(0), row(1)),
                    _mm512_unpackhi_ps(row(0), row(1)),
                );
                let (low2, high2) = (
                    _mm512_unpacklo_ps(row(2), row(3)),
                    _mm512_unpackhi_ps(row(2), row(3)),
                );
                let [low, high, low2, high2] = [low, high, low2, high2].map(|v| _mm512_castps_pd(v));
                quarters[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2));
                quarters[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2));
                quarters[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2));
                quarters[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2));
            }
            for i in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(quarters[i], quarters[4 + i]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(quarters[i], quarters[4 + i]);
                let even2 = _mm512_shuffle_f32x4::<0x88>(quarters[8 + i], quarters[12 + i]);
                let odd2 = _mm512_shuffle_f32x4::<0xdd>(quarters[8 + i], quarters[12 + i]);
                _mm512_storeu_ps(to.add(i * to_step), _mm512_shuffle_f32x4::<0x88>(even, even2));
                _mm512_storeu_ps(to.add((4 + i) * to_step), _mm512_shuffle_f32x4::<0x88>(odd, odd2));
                _mm512_storeu_ps(
                    to.add((8 + i) * to_step),
                    _mm512_shuffle_f32x4::<0xdd>(even, even2),
                );
                _mm512_storeu_ps(
                    to.add((12 + i) * to_step),
                    _mm512_shuffle_f32x4::<0xdd>(odd, odd2),
                );
            }
        })
    }

    #[inline(always)]
    unsafe fn transpose_narrow(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        with!({
            let half = |i: usize| _mm256_castps_pd(_mm256_loadu_ps(from.add(i * from_step)));
            let mut rows = [self.zero(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                let low = _mm512_castpd256_pd512(half(i));
                *row = _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, half(8 + i)));
            }
            for (i, row) in self.transpose_halves(rows).into_iter().enumerate() {
                _mm512_storeu_ps(to.add(i * to_step), row);
            }
        })
    }

    #[inline(always)]
    unsafe fn transpose_low(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        with!({
            let mut rows = [self.zero(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.add(i * from_step));
            }
            for (i, row) in self.transpose_halves(rows).into_iter().enumerate() {
                let row = _mm512_castps_pd(row);
                _mm256_storeu_pd(to.add(i * to_step).cast(), _mm512_castpd512_pd256(row));
                let high = _mm512_extractf64x4_pd::<1>(row);
                _mm256_storeu_pd(to.add((8 + i) * to_step).cast(), high);
            }
        })
    }

    #[inline(always)]
    unsafe fn splat_pair(self, p: *const f32) -> __m512 {
        with!(_mm512_castsi512_ps(_mm512_set1_epi64(
            p.cast::<i64>().read_unaligned()
        )))
    }

    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> __m512 {
        with!({
            let turns = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            _mm512_permutex2var_ps(a, turns, b)
        })
    }
}

impl Avx512 {
    /// Transposes both squares of eight by eight that the rows' halves are.
    #[inline(always)]
    fn transpose_halves(self, rows: [__m512; 8]) -> [__m512; 8] {
        with!({
            // Within quarters of 128 bits: pairs of rows, then pairs of pairs.
            let mut quarters = [_mm512_setzero_pd(); 8];
            for g in [0, 4] {
                let (low, high) = (
                    _mm512_unpacklo_ps(rows[g], rows[g + 1]),
                    _mm512_unpackhi_ps(rows[g], rows[g + 1]),
                );
                let (low2, high2) = (
                    _mm512_unpacklo_ps(rows[g + 2], rows[g + 3]),
                    _mm512_unpackhi_ps(rows[g + 2], rows[g + 3]),
                );
                let [low, high, low2, high2] = [low, high, low2, high2].map(|v| _mm512_castps_pd(v));
                quarters[g] = _mm512_unpacklo_pd(low, low2);
                quarters[g + 1] = _mm512_unpackhi_pd(low, low2);
                quarters[g + 2] = _mm512_unpacklo_pd(high, high2);
                quarters[g + 3] = _mm512_unpackhi_pd(high, high2);
            }
            let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
            let mut columns = rows;
            for i in 0..4 {
                let both = |index| _mm512_permutex2var_pd(quarters[i], index, quarters[4 + i]);
                columns[i] = _mm512_castpd_ps(both(first));
                columns[4 + i] = _mm512_castpd_ps(both(second));
            }
            columns
        })
    }
}
