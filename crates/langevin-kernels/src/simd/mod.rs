//! One kernel body, compiled for each instruction set and chosen at run time.
//!
//! A kernel is a struct of its arguments that implements `Kernel`: its body is generic over `Simd`, the vector
//! operations, and always inlined. `Isa::run` inlines it into a function with the instruction set's
//! `#[target_feature]`, so no build flag is needed. A `Simd` value is proof that the processor has the
//! instructions; only `Isa::run` makes one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub(crate) use math::{exp, exp2_of_weight, gelu_and_slope, silu, silu_and_slope, silu_slope};

use std::cell::Cell;
use std::sync::OnceLock;

/// An instruction set, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What the compiler makes of plain Rust for the target's baseline.
    Portable,
    /// 128-bit vectors of 64-bit ARM processors.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
}

thread_local! {
    static LIMIT: Cell<Isa> = const { Cell::new(Isa::Avx512) };
}

impl Isa {
    /// Every instruction set of this architecture's processors, from the least to the most capable.
    #[cfg(not(target_arch = "aarch64"))]
    pub const ALL: &[Self] = &[Self::Portable, Self::Avx2, Self::Avx512];
    /// Every instruction set of this architecture's processors, from the least to the most capable.
    #[cfg(target_arch = "aarch64")]
    pub const ALL: &[Self] = &[Self::Portable, Self::Neon];

    /// The most capable instruction set of this processor, or the one that the environment variable
    /// `LANGEVIN_ISA` (`portable`, `avx2` or `avx512`; read once) names, if that is lower.
    pub fn available() -> Self {
        static AVAILABLE: OnceLock<Isa> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            let limit = match std::env::var("LANGEVIN_ISA").as_deref() {
                Ok("portable") => Self::Portable,
                Ok("avx2") => Self::Avx2,
                _ => Self::Avx512,
            };
            Self::detect().min(limit)
        })
    }

    /// Runs `f` on this thread with kernels held to `self`, or to [`Isa::available`] where that is lower. Work
    /// that `f` hands to other threads before it calls a kernel is not held.
    pub fn limit<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Isa);
        impl Drop for Restore {
            fn drop(&mut self) {
                LIMIT.set(self.0);
            }
        }
        let _restore = Restore(LIMIT.replace(self));
        f()
    }

    /// What a kernel called on this thread uses.
    pub(crate) fn current() -> Self {
        Self::available().min(LIMIT.get())
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Self {
        // Every processor with the first two has the third.
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        match avx2 {
            true if is_x86_feature_detected!("avx512f") => Self::Avx512,
            true => Self::Avx2,
            false => Self::Portable,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn detect() -> Self {
        Self::Neon
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn detect() -> Self {
        Self::Portable
    }

    /// Runs a kernel compiled for this instruction set, or for the best one below it that the processor has.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self.min(Self::available()) {
            // SAFETY: `available` found the instructions.
            Self::Avx512 => return unsafe { avx512::run(kernel) },
            // SAFETY: `available` found the instructions.
            Self::Avx2 => return unsafe { avx2::run(kernel) },
            Self::Portable => {}
        }
        #[cfg(target_arch = "aarch64")]
        if self.min(Self::available()) == Self::Neon {
            // SAFETY: every 64-bit ARM processor that Rust's standard library runs on has it.
            return unsafe { neon::run(kernel) };
        }
        kernel.run(portable::Portable)
    }

    /// Columns of the register tile that matrix products are made of.
    pub(crate) const fn tile_columns(self) -> usize {
        TILE_VECTORS * self.lanes()
    }

    /// Rows of the register tile that matrix products are made of.
    pub(crate) const fn tile_rows(self) -> usize {
        match self {
            Self::Avx512 => 8,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 8,
            Self::Avx2 => 6,
            Self::Portable => 4,
        }
    }

    /// Columns of the panels that Winograd's products are made of.
    pub(crate) const fn panel_columns(self) -> usize {
        match self {
            Self::Avx512 => 4 * self.lanes(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 4 * self.lanes(),
            Self::Avx2 | Self::Portable => 2 * self.lanes(),
        }
    }

    /// Values in a vector.
    pub(crate) const fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 4,
            Self::Avx2 | Self::Portable => 8,
        }
    }
}

/// Vectors in a row of the register tile: with [`Isa::tile_rows`] 16 accumulators of AVX-512's 32 registers, and 12
/// of AVX2's 16 (NEON: 16 of 32), enough to hide the latency of two multiply-adds a cycle.
pub(crate) const TILE_VECTORS: usize = 2;

/// A body to be compiled for each instruction set. Implementations mark `run` `#[inline(always)]`, and so every
/// function in it that touches vectors.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of `LANES` values of `f32`. A value of the type is proof that the processor has the instructions.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    type F: Copy;
    const LANES: usize;
    /// As [`Isa::tile_rows`].
    const TILE_ROWS: usize;
    /// Vectors in a row of a panel: [`Isa::panel_columns`].
    const PANEL_VECTORS: usize;

    fn splat(self, value: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a · b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` if one is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` if one is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The values whose bits are the lowest nine of `a`'s, as sign and exponent.
    fn low_bits_as_exponent(self, a: Self::F) -> Self::F;
    /// The sum over lanes, in a fixed tree.
    fn sum(self, a: Self::F) -> f32;

    /// # Safety
    /// `p` is valid for reading `LANES` values.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is valid for writing `LANES` values.
    unsafe fn store(self, p: *mut f32, a: Self::F);
    /// Loads `n ≤ LANES` values and zeros.
    /// # Safety
    /// `p` is valid for reading `n` values.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F;
    /// Stores the first `n ≤ LANES` values.
    /// # Safety
    /// `p` is valid for writing `n` values.
    unsafe fn store_partial(self, p: *mut f32, n: usize, a: Self::F);

    /// To the nearest bf16 value, ties to even: the lower half of the result's bits is zero. Not a number stays so, quietly.
    fn round_to_bf16(self, a: Self::F) -> Self::F;
    /// Loads `LANES` bf16 values.
    /// # Safety
    /// `p` is valid for reading `LANES` values.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;
    /// Loads `LANES` values of half precision.
    /// # Safety
    /// `p` is valid for reading `LANES` values.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// Stores the upper half of each value's bits: all of it after [`Simd::round_to_bf16`].
    /// # Safety
    /// `p` is valid for writing `LANES` values.
    unsafe fn store_bf16(self, p: *mut u16, a: Self::F);

    /// Asks for the cache line at `p`, which may lead anywhere.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}

    /// Transposes a square block of `LANES` rows: `to[i · to_step + j] = from[j · from_step + i]`.
    /// # Safety
    /// Each row of `from` is valid for reading `LANES` values, and each of `to` for writing as many.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for j in 0..Self::LANES {
            for i in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * to_step + j) = *from.add(j * from_step + i) }
            }
        }
    }

    /// Transposes `LANES` rows of half as many values: `to[i · to_step + j] = from[j · from_step + i]`.
    /// # Safety
    /// Each row of `from` is valid for reading `LANES / 2` values, and each of the `LANES / 2` of `to` for writing `LANES`.
    #[inline(always)]
    unsafe fn transpose_narrow(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for j in 0..Self::LANES {
            for i in 0..Self::LANES / 2 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * to_step + j) = *from.add(j * from_step + i) }
            }
        }
    }

    /// The reverse of [`Simd::transpose_narrow`]: `LANES / 2` rows become `LANES`.
    /// # Safety
    /// Each row of `from` is valid for reading `LANES` values, and each of `to` for writing `LANES / 2`.
    #[inline(always)]
    unsafe fn transpose_low(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for j in 0..Self::LANES / 2 {
            for i in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * to_step + j) = *from.add(j * from_step + i) }
            }
        }
    }

    /// Two values in turns: `p[0], p[1], p[0], p[1] …`
    /// # Safety
    /// `p` is valid for reading two values.
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const f32) -> Self::F {
        // SAFETY: the caller's promise; there is room for the widest vector.
        unsafe {
            let values: [f32; MAX_LANES] = std::array::from_fn(|i| *p.add(i % 2));
            self.load(values.as_ptr())
        }
    }

    /// The first half of the lanes of both in turns: `a[0], b[0], a[1], b[1] …`
    #[inline(always)]
    fn interleave(self, a: Self::F, b: Self::F) -> Self::F {
        let mut values = [[0.0f32; MAX_LANES]; 2];
        // SAFETY: there is room for the widest vector.
        unsafe {
            self.store(values[0].as_mut_ptr(), a);
            self.store(values[1].as_mut_ptr(), b);
            let turns: [f32; MAX_LANES] = std::array::from_fn(|i| values[i % 2][i / 2]);
            self.load(turns.as_ptr())
        }
    }

    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
}

/// Loads `n ≤ LANES` values, and zeros.
///
/// # Safety
/// `p` is valid for reading `n` values.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(s: S, p: *const f32, n: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        if n == S::LANES {
            s.load(p)
        } else {
            s.load_partial(p, n)
        }
    }
}

/// Stores the first `n ≤ LANES` values.
///
/// # Safety
/// `p` is valid for writing `n` values.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(s: S, p: *mut f32, n: usize, a: S::F) {
    // SAFETY: the caller's promise.
    unsafe {
        if n == S::LANES {
            s.store(p, a)
        } else {
            s.store_partial(p, n, a)
        }
    }
}

/// Loads `n ≤ LANES` bf16 values, and zeros.
///
/// # Safety
/// `p` is valid for reading `n` values.
#[inline(always)]
pub(crate) unsafe fn load_bf16<S: Simd>(s: S, p: *const u16, n: usize) -> S::F {
    // SAFETY: the caller's promise; the values in between have room for the widest vector.
    unsafe {
        if n == S::LANES {
            return s.load_bf16(p);
        }
        let mut values = [0u16; MAX_LANES];
        std::ptr::copy_nonoverlapping(p, values.as_mut_ptr(), n.min(S::LANES));
        s.load_bf16(values.as_ptr())
    }
}

/// Loads `n ≤ LANES` values of half precision, and zeros.
///
/// # Safety
/// `p` is valid for reading `n` values.
#[inline(always)]
pub(crate) unsafe fn load_f16<S: Simd>(s: S, p: *const u16, n: usize) -> S::F {
    // SAFETY: as above.
    unsafe {
        if n == S::LANES {
            return s.load_f16(p);
        }
        let mut values = [0u16; MAX_LANES];
        std::ptr::copy_nonoverlapping(p, values.as_mut_ptr(), n.min(S::LANES));
        s.load_f16(values.as_ptr())
    }
}

/// The value of half precision with these bits, exactly. Not a number stays so, quietly.
#[inline(always)]
pub(crate) fn widened_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let wide = if magnitude >= INFINITE_F16 {
        magnitude | 0x7f80_0000 | if magnitude > INFINITE_F16 { 0x0040_0000 } else { 0 }
    } else {
        // Exponents are 112 apart, and what has none of its own gets one by the product, which is exact.
        (f32::from_bits(magnitude) * F16_EXPONENTS).to_bits()
    };
    f32::from_bits(sign | wide)
}

/// The bits of an infinite value of half precision, where a float32 has its exponent and fraction.
const INFINITE_F16: u32 = 0x7c00 << 13;

/// 2¹¹²
const F16_EXPONENTS: f32 = f32::from_bits((127 + 112) << 23);

/// Stores the upper halves of the first `n ≤ LANES` values.
///
/// # Safety
/// `p` is valid for writing `n` values.
#[inline(always)]
pub(crate) unsafe fn store_bf16<S: Simd>(s: S, p: *mut u16, n: usize, a: S::F) {
    // SAFETY: as above.
    unsafe {
        if n == S::LANES {
            return s.store_bf16(p, a);
        }
        let mut values = [0u16; MAX_LANES];
        s.store_bf16(values.as_mut_ptr(), a);
        std::ptr::copy_nonoverlapping(values.as_ptr(), p, n.min(S::LANES));
    }
}

/// Values of the widest vector.
pub(crate) const MAX_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_on_their_thread_and_end() {
        let before = Isa::current();
        Isa::Portable.limit(|| assert_eq!(Isa::current(), Isa::Portable));
        assert_eq!(Isa::current(), before);
        assert!(Isa::Avx512.limit(Isa::current) <= Isa::available());
    }
}
