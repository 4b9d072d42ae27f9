//! Weights in the type that they are stored in. Kernels widen them while they pack them, so that arithmetic, and every bit of it, is that of
//! the same weights in float32.

use crate::bf16::Values;
use crate::parallel::{self, GRAIN};
use crate::simd::{Isa, Kernel, Simd, load_f16, store, widened_f16};

/// A layer's weights. Those of 16 bits are the bits of their values.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// As kernels compute.
    Float32(&'a [f32]),
    /// IEEE 754's half precision: five bits of exponent, ten of fraction.
    Float16(&'a [u16]),
    /// The upper half of a float32, see [`crate::bf16`].
    Bfloat16(&'a [u16]),
}

/// Does something with the values of [`Stored`], whatever their type.
macro_rules! with_values {
    ($stored:expr, |$values:ident| $body:expr) => {
        match $stored {
            $crate::Stored::Float32($values) => $body,
            $crate::Stored::Float16($values) => {
                let $values = $crate::stored::Halves($values);
                $body
            }
            $crate::Stored::Bfloat16($values) => $body,
        }
    };
}
pub(crate) use with_values;

impl Stored<'_> {
    /// How many there are.
    pub fn len(self) -> usize {
        with_values!(self, |values| Values::len(values))
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Those from `start` on.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn from(self, start: usize) -> Self {
        match self {
            Self::Float32(values) => Self::Float32(&values[start..]),
            Self::Float16(values) => Self::Float16(&values[start..]),
            Self::Bfloat16(values) => Self::Bfloat16(&values[start..]),
        }
    }

    /// Writes them as float32, exactly.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn widen(self, to: &mut [f32]) {
        assert_eq!(self.len(), to.len(), "as much room as there are values");
        let isa = Isa::current();
        with_values!(self, |values| {
            parallel::for_each_part(to, GRAIN, true, |i, to| {
                isa.run(Widen {
                    from: values.part(i * GRAIN, to.len()),
                    to,
                })
            });
        });
    }
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for Stored<'a> {
    fn from(values: &'a T) -> Self {
        Self::Float32(values.as_ref())
    }
}

struct Widen<'a, V> {
    from: V,
    to: &'a mut [f32],
}

impl<V: Values> Kernel for Widen<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, to) in self.to.chunks_mut(S::LANES).enumerate() {
            // SAFETY: there are as many values as there is room for, at most a vector's in a chunk.
            unsafe {
                store(
                    s,
                    to.as_mut_ptr(),
                    to.len(),
                    self.from.load(s, i * S::LANES, to.len()),
                )
            };
        }
    }
}

/// Values of half precision.
#[derive(Clone, Copy)]
pub(crate) struct Halves<'a>(pub &'a [u16]);

impl Values for Halves<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn part(self, start: usize, len: usize) -> Self {
        Self(&self.0[start..][..len])
    }

    #[inline(always)]
    fn value(self, i: usize) -> f32 {
        widened_f16(self.0[i])
    }

    #[inline(always)]
    fn prefetch<S: Simd>(self, s: S, i: usize) {
        s.prefetch(self.0.as_ptr().wrapping_add(i).cast());
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, i: usize, n: usize) -> S::F {
        debug_assert!(i + n <= self.0.len());
        // SAFETY: the caller's promise.
        unsafe { load_f16(s, self.0.as_ptr().add(i), n) }
    }
}
