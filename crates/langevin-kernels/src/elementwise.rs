//! Passes over slices: SiLU, addition, scaling, joining channels, and the sum of squares.

pub use crate::channels::{concat_channels, split_channels};

use crate::parallel::{self, GRAIN};
use crate::simd::{Isa, Kernel, Simd, load, silu, silu_slope, store};

/// What is done to each element.
pub(crate) trait Map<const N: usize>: Copy + Send + Sync {
    /// The new value, from the inputs' values and the old one.
    fn apply<S: Simd>(self, s: S, inputs: [S::F; N], old: S::F) -> S::F;
}

/// `out[i] = f(inputs[..][i], out[i])`. All slices have one length, which the caller has checked.
pub(crate) fn map<const N: usize>(f: impl Map<N>, inputs: [&[f32]; N], out: &mut [f32]) {
    let isa = Isa::current();
    parallel::for_each_part(out, GRAIN, true, |i, out| {
        let inputs = inputs.map(|input| &input[i * GRAIN..][..out.len()]);
        isa.run(MapTask { f, inputs, out });
    });
}

struct MapTask<'a, F, const N: usize> {
    f: F,
    inputs: [&'a [f32]; N],
    out: &'a mut [f32],
}

impl<F: Map<N>, const N: usize> Kernel for MapTask<'_, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let len = self.out.len();
        assert!(
            self.inputs.iter().all(|input| input.len() == len),
            "slices of one length"
        );
        let full = len / S::LANES * S::LANES;
        for i in (0..full).step_by(S::LANES) {
            self.vector(s, i, S::LANES);
        }
        if full < len {
            self.vector(s, full, len - full);
        }
    }
}

impl<F: Map<N>, const N: usize> MapTask<'_, F, N> {
    /// Elements `i .. i + n`, with `n` at most a vector.
    #[inline(always)]
    fn vector<S: Simd>(&mut self, s: S, i: usize, n: usize) {
        let mut values = [s.zero(); N];
        let out = self.out.as_mut_ptr();
        // SAFETY: `run` checked that all slices have the elements `i .. i + n`, and `out` is borrowed mutably.
        unsafe {
            for (value, input) in values.iter_mut().zip(&self.inputs) {
                *value = load(s, input.as_ptr().add(i), n);
            }
            let old = load(s, out.add(i), n);
            store(s, out.add(i), n, self.f.apply(s, values, old));
        }
    }
}

/// `y = x · sigmoid(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn silu_forward(x: &[f32], y: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Forward;
    impl Map<1> for Forward {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, [x]: [S::F; 1], _: S::F) -> S::F {
            silu(s, x)
        }
    }
    assert_eq!(x.len(), y.len(), "x and y must have one length");
    map(Forward, [x], y);
}

/// The gradient of [`silu_forward`]: `gx = gy · s · (1 + x · (1 − s))` with `s = sigmoid(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn silu_backward(x: &[f32], gy: &[f32], gx: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Backward;
    impl Map<2> for Backward {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, [x, gy]: [S::F; 2], _: S::F) -> S::F {
            s.mul(gy, silu_slope(s, x))
        }
    }
    assert!(
        x.len() == gy.len() && x.len() == gx.len(),
        "x, gy and gx must have one length"
    );
    map(Backward, [x, gy], gx);
}

/// `y = a + b`.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Add;
    impl Map<2> for Add {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, [a, b]: [S::F; 2], _: S::F) -> S::F {
            s.add(a, b)
        }
    }
    assert!(
        a.len() == b.len() && a.len() == y.len(),
        "a, b and y must have one length"
    );
    map(Add, [a, b], y);
}

/// `x *= factor`.
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    #[derive(Clone, Copy)]
    struct Scale(f32);
    impl Map<0> for Scale {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, []: [S::F; 0], old: S::F) -> S::F {
            s.mul(old, s.splat(self.0))
        }
    }
    map(Scale(factor), [], x);
}

/// The sum of the squares of `x`: short sums in `f32`, of which the rest is summed in `f64`.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let isa = Isa::current();
    let mut sums = vec![0.0f64; x.len().div_ceil(GRAIN)];
    parallel::for_each_part(&mut sums, 1, true, |i, sum| {
        let start = i * GRAIN;
        sum[0] = isa.run(Squares(&x[start..x.len().min(start + GRAIN)]));
    });
    sums.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        /// Terms of a short sum: 16 or 32 in each lane of four accumulators.
        const SHORT: usize = 1024;
        let mut total = 0.0;
        for part in self.0.chunks(SHORT) {
            let mut acc = [s.zero(); 4];
            for (i, values) in part.chunks(S::LANES).enumerate() {
                // SAFETY: `values` has at most a vector's length.
                let v = unsafe { load(s, values.as_ptr(), values.len()) };
                acc[i % 4] = s.fma(v, v, acc[i % 4]);
            }
            total += f64::from(s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]))));
        }
        total
    }
}
