//! Matrix products of bf16 values with sums in float32, on processors that have instructions for them.
//!
//! Both units multiply blocks of rows by panels of [`COLUMNS`] columns. A panel holds two neighbouring rows of its matrix side by side for each
//! column, `[depth / 2, COLUMNS, 2]`, which is what an instruction of either unit takes; rows of the other matrix are as they are. Depths are
//! multiples of [`STEP`], filled up with zeros. Each sum is one chain in the order of the depth, whatever the split into calls.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;

use crate::Stored;
use crate::simd::Isa;
use std::cell::Cell;
use std::sync::OnceLock;

/// Columns of a panel: two of AMX's tiles.
pub(crate) const COLUMNS: usize = 32;

/// Rows of a block at most: two of AMX's tiles.
pub(crate) const ROWS: usize = 32;

/// Values of the depth that a tile holds.
pub(crate) const STEP: usize = 32;

/// Values of a panel for each step of the depth.
pub(crate) const STEP_VALUES: usize = STEP * COLUMNS;

/// Instructions that multiply bf16 values and add to float32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bf16Unit {
    /// AVX-512's `vdpbf16ps`: pairs of values, with twice the multiply-adds of float32 on Zen 4 and Zen 5. Intel's processors do half as many as
    /// of float32 (87 GFLOP/s beside 194 on a Sapphire Rapids core); there it is used only where it is named.
    Avx512,
    /// AMX: tiles of 16x32 by 32x16 values, sixteen times the multiply-adds of AVX-512's float32.
    Amx,
}

thread_local! {
    static LIMIT: Cell<Option<Bf16Unit>> = const { Cell::new(Some(Bf16Unit::Amx)) };
}

impl Bf16Unit {
    /// Every unit, from the least to the most capable.
    pub const ALL: &[Self] = &[Self::Avx512, Self::Amx];

    /// The most capable unit of this processor, if it has any. The environment variable `LANGEVIN_ISA` (read once) holds it down: `avx512-bf16`
    /// to AVX-512's, and what is below that to none.
    pub fn available() -> Option<Self> {
        static AVAILABLE: OnceLock<Option<Bf16Unit>> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            let limit = match std::env::var("LANGEVIN_ISA").as_deref() {
                Ok("portable" | "avx2" | "avx512") => None,
                Ok("avx512-bf16") => Some(Self::Avx512),
                _ => Some(Self::Amx),
            };
            Self::detect().min(limit)
        })
    }

    /// Runs `f` on this thread with kernels held to `unit`, or to [`Bf16Unit::available`] where that is lower.
    pub fn limit<R>(unit: Option<Self>, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<Bf16Unit>);
        impl Drop for Restore {
            fn drop(&mut self) {
                LIMIT.set(self.0);
            }
        }
        let _restore = Restore(LIMIT.replace(unit));
        f()
    }

    /// What a kernel called on this thread uses: none where it is held to an instruction set without.
    pub(crate) fn current() -> Option<Self> {
        (Isa::current() == Isa::Avx512).then(|| Self::available().min(LIMIT.get()))?
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn detect() -> Option<Self> {
        let pairs = is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512f");
        match pairs {
            true if amx::is_there() => Some(Self::Amx),
            true if !dot::is_slow() || is_named() => Some(Self::Avx512),
            _ => None,
        }
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn detect() -> Option<Self> {
        None
    }
}

/// Whether the environment names AVX-512's unit.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn is_named() -> bool {
    std::env::var("LANGEVIN_ISA").as_deref() == Ok("avx512-bf16")
}

/// A stretch of the depth that lies in one piece in every row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Segment {
    /// Bytes from a row's start.
    pub offset: usize,
    /// Steps of [`STEP`] values.
    pub steps: usize,
}

/// `c[i] = (c[i] if accumulate) + Σⱼ a[i, j] · b[j]` for some rows and one panel.
pub(crate) struct Block<'a> {
    /// The first row.
    pub a: *const u16,
    /// Values from a row to the next.
    pub a_step: usize,
    /// The depth, in the order of the sum.
    pub segments: &'a [Segment],
    /// The panel from the first segment on.
    pub b: *const u16,
    pub c: *mut f32,
    /// Values from a row of `c` to the next.
    pub c_step: usize,
    /// Whether there are 32 rows and not 16.
    pub is_tall: bool,
    pub accumulate: bool,
}

/// The right to multiply on this thread, while it lives.
pub(crate) struct Session {
    unit: Bf16Unit,
    /// Tiles belong to the thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Session {
    /// Readies the thread. No other session may begin on it meanwhile, so a task that has one hands out no work.
    pub(crate) fn new(unit: Bf16Unit) -> Self {
        #[cfg(target_arch = "x86_64")]
        if unit == Bf16Unit::Amx {
            // SAFETY: the unit was found to be there.
            unsafe { amx::configure() };
        }
        Self {
            unit,
            _thread: std::marker::PhantomData,
        }
    }

    /// Computes a block.
    ///
    /// # Safety
    /// `a` has 32 or 16 rows whose segments are valid for reading, `b` the steps of all segments, and `c` as many rows of [`COLUMNS`]
    /// values for reading and writing.
    #[inline(always)]
    pub(crate) unsafe fn multiply(&self, block: &Block) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise; the unit was found to be there, and AMX is configured.
        unsafe {
            match self.unit {
                Bf16Unit::Amx => amx::multiply(block),
                Bf16Unit::Avx512 => dot::multiply(block),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{:?} on another architecture: {:p}", self.unit, block.a);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.unit == Bf16Unit::Amx {
            // SAFETY: the unit was found to be there.
            unsafe { amx::release() };
        }
    }
}

/// Rounds rows of `depth` values to bf16, with zeros up to `padded` values.
///
/// # Safety
/// A unit is there; each of the rows of `from` is valid for reading `depth` values, and each of `to` for writing `padded`.
pub(crate) unsafe fn round_rows(
    rows: usize,
    [depth, padded]: [usize; 2],
    from: *const f32,
    from_step: usize,
    to: *mut u16,
    to_step: usize,
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        dot::round_rows(rows, [depth, padded], from, from_step, to, to_step);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{rows} {depth} {padded} {from:p} {from_step} {to:p} {to_step}");
}

/// Rounds a matrix of `depth` rows and `width` columns to bf16 as a panel of `padded` rows, with zeros where it has none.
///
/// # Safety
/// A unit is there; each row of `from` has `width` values, at most [`COLUMNS`], and `to` is valid for writing `padded · COLUMNS`.
pub(crate) unsafe fn round_panel(
    [depth, padded]: [usize; 2],
    width: usize,
    from: Stored,
    from_step: usize,
    to: *mut u16,
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        dot::round_panel([depth, padded], width, from, from_step, to);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{depth} {padded} {width} {from:?} {from_step} {to:p}");
}
