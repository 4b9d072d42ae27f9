//! Plain Rust over arrays of eight, which compilers turn into the target's baseline vectors (SSE2, NEON).

use super::{Simd, widened_f16};

/// Needs nothing of the processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map(f: impl Fn(usize) -> f32) -> [f32; 8] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type F = [f32; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;
    const PANEL_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; 8]) -> [f32; 8] {
        map(|i| a[i].sqrt())
    }
    /// `mul_add` is a call into the C library where the target has no such instruction.
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            map(|i| a[i].mul_add(b[i], c[i]))
        } else {
            map(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn low_bits_as_exponent(self, a: [f32; 8]) -> [f32; 8] {
        map(|i| f32::from_bits(a[i].to_bits() << 23))
    }
    #[inline(always)]
    fn sum(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise; `read_unaligned` needs no alignment.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: [f32; 8]) {
        // SAFETY: the caller's promise; `write_unaligned` needs no alignment.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> [f32; 8] {
        // SAFETY: only the first `n` values are read, which the caller promises.
        map(|i| if i < n { unsafe { p.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, a: [f32; 8]) {
        for (i, value) in a.into_iter().enumerate().take(n) {
            // SAFETY: only the first `n` values are written, which the caller promises.
            unsafe { p.add(i).write(value) }
        }
    }
    #[inline(always)]
    fn round_to_bf16(self, a: [f32; 8]) -> [f32; 8] {
        map(|i| {
            let bits = a[i].to_bits();
            let rounded = if a[i].is_nan() {
                bits | 0x0040_0000
            } else {
                bits + 0x7fff + (bits >> 16 & 1)
            };
            f32::from_bits(rounded & 0xffff_0000)
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> [f32; 8] {
        // SAFETY: the caller's promise; `read_unaligned` needs no alignment.
        let halves = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        map(|i| f32::from_bits(u32::from(halves[i]) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> [f32; 8] {
        // SAFETY: as above.
        let halves = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        map(|i| widened_f16(halves[i]))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, a: [f32; 8]) {
        let halves: [u16; 8] = std::array::from_fn(|i| (a[i].to_bits() >> 16) as u16);
        // SAFETY: the caller's promise; `write_unaligned` needs no alignment.
        unsafe { p.cast::<[u16; 8]>().write_unaligned(halves) }
    }
}
