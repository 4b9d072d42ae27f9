//! AVX-512's `vdpbf16ps`, and rounding to bf16 with its instructions, which both units want.

use super::{Block, COLUMNS, STEP};
use crate::Stored;
use std::arch::x86_64::*;

/// Rows of the register tile: with two vectors 16 accumulators of 32 registers.
const TILE_ROWS: usize = 8;

/// How many rows of a matrix ahead are asked for while it is packed.
const ROWS_AHEAD: usize = 16;

fn mask(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// Whether the instruction takes longer than two of float32's, as on Intel's processors.
pub(super) fn is_slow() -> bool {
    // "Genu" of "GenuineIntel".
    __cpuid(0).ebx == 0x756e_6547
}

/// # Safety
/// As [`super::Session::multiply`]'s.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn multiply(block: &Block) {
    let rows = if block.is_tall { 32 } else { 16 };
    for first in (0..rows).step_by(TILE_ROWS) {
        // SAFETY: the caller's promise, of which this is a part.
        unsafe { tile(block, first) }
    }
}

/// # Safety
/// As [`multiply`]'s, for the rows from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn tile(block: &Block, first: usize) {
    let mut acc = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        let c = block.c.add(first * block.c_step);
        if block.accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [0, 16].map(|v| _mm512_loadu_ps(c.add(r * block.c_step + v)));
            }
        }
        let mut b = block.b;
        for segment in block.segments {
            let a = block.a.add(first * block.a_step).byte_add(segment.offset);
            for pair in 0..segment.steps * (STEP / 2) {
                let [low, high]: [__m512bh; 2] =
                    [0, 32].map(|v| std::mem::transmute(_mm512_loadu_si512(b.add(v).cast())));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let two = a.add(r * block.a_step + 2 * pair).cast::<i32>().read_unaligned();
                    let two: __m512bh = std::mem::transmute(_mm512_set1_epi32(two));
                    acc[0] = _mm512_dpbf16_ps(acc[0], two, low);
                    acc[1] = _mm512_dpbf16_ps(acc[1], two, high);
                }
                b = b.add(2 * COLUMNS);
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(c.add(r * block.c_step), acc[0]);
            _mm512_storeu_ps(c.add(r * block.c_step + 16), acc[1]);
        }
    }
}

/// # Safety
/// As [`super::round_rows`]'s.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn round_rows(
    rows: usize,
    [depth, padded]: [usize; 2],
    from: *const f32,
    from_step: usize,
    to: *mut u16,
    to_step: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's promise; lanes beyond the row are masked.
        unsafe {
            let (from, to) = (from.add(row * from_step), to.add(row * to_step));
            for i in (0..padded).step_by(16) {
                let n = depth.saturating_sub(i);
                let values = _mm512_maskz_loadu_ps(mask(n), from.wrapping_add(i));
                let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
                if padded - i >= 16 {
                    _mm256_storeu_si256(to.add(i).cast(), rounded);
                } else {
                    let mut last = [0u16; 16];
                    _mm256_storeu_si256(last.as_mut_ptr().cast(), rounded);
                    std::ptr::copy_nonoverlapping(last.as_ptr(), to.add(i), padded - i);
                }
            }
        }
    }
}

/// # Safety
/// As [`super::round_panel`]'s.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn round_panel(
    [depth, padded]: [usize; 2],
    width: usize,
    from: Stored,
    from_step: usize,
    to: *mut u16,
) {
    let mut turns = [0i16; 32];
    for (i, turn) in turns.iter_mut().enumerate() {
        *turn = (i / 2 + 16 * (i % 2)) as i16;
    }
    // SAFETY: an array of 64 bytes.
    let turns = unsafe { _mm512_loadu_si512(turns.as_ptr().cast()) };
    for pair in 0..padded / 2 {
        // Rows of wide matrices are a page apart and more, which the processor does not foresee.
        for row in [0, 1] {
            let ahead = (2 * pair + row + ROWS_AHEAD) * from_step;
            match from {
                Stored::Float32(from) => {
                    let ahead = from.as_ptr().wrapping_add(ahead);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(16).cast());
                }
                Stored::Float16(from) | Stored::Bfloat16(from) => {
                    _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(ahead).cast());
                }
            }
        }
        for v in [0, 16] {
            // SAFETY: the caller's promise; rows and lanes beyond the matrix are masked.
            unsafe {
                let lanes = |row: usize| mask(if row < depth { width.saturating_sub(v) } else { 0 });
                let [low, high] = [2 * pair, 2 * pair + 1];
                let both: __m512i = match from {
                    Stored::Float32(from) => {
                        let row = |row: usize| {
                            let from = from.as_ptr().wrapping_add(row * from_step + v);
                            _mm512_maskz_loadu_ps(lanes(row), from)
                        };
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(row(high), row(low)))
                    }
                    Stored::Float16(from) => {
                        let row = |row: usize| {
                            let from = from.as_ptr().wrapping_add(row * from_step + v);
                            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(row), from.cast()))
                        };
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(row(high), row(low)))
                    }
                    // They are what they would be rounded to.
                    Stored::Bfloat16(from) => {
                        let row = |row: usize| {
                            let from = from.as_ptr().wrapping_add(row * from_step + v);
                            _mm256_maskz_loadu_epi16(lanes(row), from.cast())
                        };
                        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(low)), row(high))
                    }
                };
                let to = to.add(2 * (pair * COLUMNS + v));
                _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(turns, both));
            }
        }
    }
}
