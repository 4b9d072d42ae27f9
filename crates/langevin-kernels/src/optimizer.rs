//! One-pass optimiser steps.

use crate::elementwise::{Map, map};
use crate::parallel::{self, GRAIN, Shared};
use crate::simd::{Isa, Kernel, Simd, load, store};

/// The hyperparameters of one AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the mean of the gradients.
    pub beta1: f64,
    /// Decay of the mean of the squared gradients.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Number of this step; the first is 1.
    pub step: u64,
    /// The gradient is multiplied by it first, which clips it without a pass of its own.
    pub gradient_factor: f64,
}

/// One step of AdamW, with the float32 operations of `torch.optim.AdamW` (single-tensor path) in its order:
/// scalars in `f64`, rounded to `f32` where they meet a tensor.
///
/// # Shapes
/// All slices have one length. `exp_avg` and `exp_avg_sq` are the optimiser's state, zero before the first step.
///
/// # Panics
/// If the lengths differ or `step` is 0.
pub fn adamw_step(
    hyper: &AdamW,
    param: &mut [f32],
    grad: &[f32],
    exp_avg: &mut [f32],
    exp_avg_sq: &mut [f32],
) {
    let len = param.len();
    assert!(
        len == grad.len() && len == exp_avg.len() && len == exp_avg_sq.len(),
        "all slices must have one length"
    );
    assert!(hyper.step > 0, "the first step is 1");
    let scalars = Scalars::new(hyper);
    let isa = Isa::current();
    let (param, exp_avg, exp_avg_sq) = (Shared::new(param), Shared::new(exp_avg), Shared::new(exp_avg_sq));
    parallel::for_each(len.div_ceil(GRAIN), true, |task| {
        let start = task * GRAIN;
        let n = GRAIN.min(len - start);
        // SAFETY: each task has a range of its own.
        let [param, exp_avg, exp_avg_sq] = unsafe { [param, exp_avg, exp_avg_sq].map(|s| s.slice(start, n)) };
        isa.run(Step {
            scalars,
            param,
            grad: &grad[start..start + n],
            exp_avg,
            exp_avg_sq,
        });
    });
}

#[derive(Clone, Copy)]
struct Scalars {
    decay: f32,
    /// `1 − beta1`, and the same less 1 if it is at least a half: `torch.lerp` goes from the nearer end.
    lerp: f32,
    lerp_from_grad: bool,
    beta2: f32,
    square_weight: f32,
    negative_step: f32,
    correction: f32,
    eps: f32,
    gradient_factor: f32,
}

impl Scalars {
    fn new(hyper: &AdamW) -> Self {
        let step = hyper.step as f64;
        let weight = 1.0 - hyper.beta1;
        let lerp_from_grad = (weight as f32).abs() >= 0.5;
        Self {
            decay: (1.0 - hyper.learning_rate * hyper.weight_decay) as f32,
            lerp: if lerp_from_grad {
                weight as f32 - 1.0
            } else {
                weight as f32
            },
            lerp_from_grad,
            beta2: hyper.beta2 as f32,
            square_weight: (1.0 - hyper.beta2) as f32,
            negative_step: (-(hyper.learning_rate / (1.0 - hyper.beta1.powf(step)))) as f32,
            correction: (1.0 - hyper.beta2.powf(step)).sqrt() as f32,
            eps: hyper.eps as f32,
            gradient_factor: hyper.gradient_factor as f32,
        }
    }
}

struct Step<'a> {
    scalars: Scalars,
    param: &'a mut [f32],
    grad: &'a [f32],
    exp_avg: &'a mut [f32],
    exp_avg_sq: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let k = self.scalars;
        let vectors = self.param.chunks_mut(S::LANES).zip(self.grad.chunks(S::LANES));
        let state = self
            .exp_avg
            .chunks_mut(S::LANES)
            .zip(self.exp_avg_sq.chunks_mut(S::LANES));
        for ((param, grad), (exp_avg, exp_avg_sq)) in vectors.zip(state) {
            let n = param.len();
            // SAFETY: all four have the same length, which is at most a vector's.
            unsafe {
                let g = s.mul(load(s, grad.as_ptr(), n), s.splat(k.gradient_factor));
                let mut m = load(s, exp_avg.as_ptr(), n);
                let mut v = load(s, exp_avg_sq.as_ptr(), n);
                let mut p = s.mul(load(s, param.as_ptr(), n), s.splat(k.decay));
                m = s.fma(s.splat(k.lerp), s.sub(g, m), if k.lerp_from_grad { g } else { m });
                v = s.add(
                    s.mul(v, s.splat(k.beta2)),
                    s.mul(s.mul(s.splat(k.square_weight), g), g),
                );
                let denominator = s.add(s.div(s.sqrt(v), s.splat(k.correction)), s.splat(k.eps));
                p = s.add(p, s.div(s.mul(s.splat(k.negative_step), m), denominator));
                store(s, param.as_mut_ptr(), n, p);
                store(s, exp_avg.as_mut_ptr(), n, m);
                store(s, exp_avg_sq.as_mut_ptr(), n, v);
            }
        }
    }
}

/// One step of an exponential moving average: `shadow −= (1 − decay) · (shadow − param)`.
///
/// # Panics
/// If the lengths differ.
pub fn ema_step(decay: f64, shadow: &mut [f32], param: &[f32]) {
    #[derive(Clone, Copy)]
    struct Ema(f32);
    impl Map<1> for Ema {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, [param]: [S::F; 1], shadow: S::F) -> S::F {
            s.sub(shadow, s.mul(s.splat(self.0), s.sub(shadow, param)))
        }
    }
    assert_eq!(shadow.len(), param.len(), "shadow and param must have one length");
    map(Ema((1.0 - decay) as f32), [param], shadow);
}
