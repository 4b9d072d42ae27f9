//! bf16, the upper half of a float32: eight bits of exponent as there, seven of fraction. Values that are kept and not computed
//! with take half the memory so.
//!
//! A value is a `u16` here, its bits. Rounding is to the nearest, ties to even, and has the same bits on every instruction set.

use crate::parallel::{self, GRAIN};
use crate::simd::{Isa, Kernel, MAX_LANES, Simd, load, load_bf16, store, store_bf16};

/// Values of either type, which kernels read as vectors of `f32`.
pub(crate) trait Values: Copy + Send + Sync {
    /// How many there are.
    fn len(self) -> usize;

    /// Those from `start` on, `len` of them.
    ///
    /// # Panics
    /// If there are fewer.
    fn part(self, start: usize, len: usize) -> Self;

    /// Value `i`.
    ///
    /// # Panics
    /// If there is none.
    fn value(self, i: usize) -> f32;

    /// Asks for the cache line of value `i`, which need not be there.
    fn prefetch<S: Simd>(self, s: S, i: usize);

    /// Loads `n ≤ LANES` values from the one at `i` on, and zeros.
    ///
    /// # Safety
    /// There are `n` values from `i` on.
    unsafe fn load<S: Simd>(self, s: S, i: usize, n: usize) -> S::F;

    /// Transposes a square block of `LANES` rows, `step` apart from the value at `start` on: `to[i · to_step + j] = value(start + j · step + i)`.
    ///
    /// # Safety
    /// There are `LANES` values in each row, and each of `to` is valid for writing as many.
    #[inline(always)]
    unsafe fn transpose<S: Simd>(self, s: S, start: usize, step: usize, to: *mut f32, to_step: usize) {
        let mut block = [0.0f32; MAX_LANES * MAX_LANES];
        // SAFETY: the caller's promise; the block has room for a square of the widest vector.
        unsafe {
            for row in 0..S::LANES {
                let values = self.load(s, start + row * step, S::LANES);
                s.store(block.as_mut_ptr().add(row * S::LANES), values);
            }
            s.transpose(block.as_ptr(), S::LANES, to, to_step);
        }
    }
}

impl Values for &[f32] {
    #[inline(always)]
    fn len(self) -> usize {
        <[f32]>::len(self)
    }

    #[inline(always)]
    fn part(self, start: usize, len: usize) -> Self {
        &self[start..][..len]
    }

    #[inline(always)]
    fn value(self, i: usize) -> f32 {
        self[i]
    }

    #[inline(always)]
    fn prefetch<S: Simd>(self, s: S, i: usize) {
        s.prefetch(self.as_ptr().wrapping_add(i));
    }

    #[inline(always)]
    unsafe fn transpose<S: Simd>(self, s: S, start: usize, step: usize, to: *mut f32, to_step: usize) {
        debug_assert!(start + (S::LANES - 1) * step + S::LANES <= self.len());
        // SAFETY: the caller's promise.
        unsafe { s.transpose(self.as_ptr().add(start), step, to, to_step) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, i: usize, n: usize) -> S::F {
        debug_assert!(i + n <= self.len());
        // SAFETY: the caller's promise.
        unsafe { load(s, self.as_ptr().add(i), n) }
    }
}

impl Values for &[u16] {
    #[inline(always)]
    fn len(self) -> usize {
        <[u16]>::len(self)
    }

    #[inline(always)]
    fn part(self, start: usize, len: usize) -> Self {
        &self[start..][..len]
    }

    #[inline(always)]
    fn value(self, i: usize) -> f32 {
        f32::from_bits(u32::from(self[i]) << 16)
    }

    #[inline(always)]
    fn prefetch<S: Simd>(self, s: S, i: usize) {
        s.prefetch(self.as_ptr().wrapping_add(i).cast());
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, i: usize, n: usize) -> S::F {
        debug_assert!(i + n <= self.len());
        // SAFETY: the caller's promise.
        unsafe { load_bf16(s, self.as_ptr().add(i), n) }
    }
}

/// Rounds `x` to bf16. What is not a number stays so, with its sign; what is beyond the largest value becomes infinite.
///
/// # Panics
/// If the lengths differ.
pub fn pack(x: &[f32], y: &mut [u16]) {
    assert_eq!(x.len(), y.len(), "x and y must have one length");
    let isa = Isa::current();
    in_parts(x, y, |x, y| isa.run(Pack { x, y }));
}

/// The values of bf16 as float32, exactly.
///
/// # Panics
/// If the lengths differ.
pub fn unpack(x: &[u16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "x and y must have one length");
    let isa = Isa::current();
    in_parts(x, y, |x, y| isa.run(Unpack { x, y }));
}

/// `f` of parts of both, on several threads where there is more than one.
fn in_parts<X: Sync, Y: Send>(x: &[X], y: &mut [Y], f: impl Fn(&[X], &mut [Y]) + Send + Sync) {
    parallel::for_each_part(y, GRAIN, true, |i, y| f(&x[i * GRAIN..][..y.len()], y));
}

struct Pack<'a> {
    x: &'a [f32],
    y: &'a mut [u16],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks(S::LANES).zip(self.y.chunks_mut(S::LANES)) {
            // SAFETY: both have `x.len()` values, at most a vector's.
            unsafe {
                let rounded = s.round_to_bf16(load(s, x.as_ptr(), x.len()));
                store_bf16(s, y.as_mut_ptr(), x.len(), rounded);
            }
        }
    }
}

struct Unpack<'a> {
    x: &'a [u16],
    y: &'a mut [f32],
}

impl Kernel for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks(S::LANES).zip(self.y.chunks_mut(S::LANES)) {
            // SAFETY: both have `x.len()` values, at most a vector's.
            unsafe { store(s, y.as_mut_ptr(), x.len(), load_bf16(s, x.as_ptr(), x.len())) };
        }
    }
}
