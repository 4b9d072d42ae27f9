//! One-pass optimiser steps.

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
    let n = param.len();
    assert!(
        n == grad.len() && n == exp_avg.len() && n == exp_avg_sq.len(),
        "all slices must have one length"
    );
    assert!(hyper.step > 0, "the first step is 1");
    let step = hyper.step as f64;
    let decay = (1.0 - hyper.learning_rate * hyper.weight_decay) as f32;
    let (w1, b2, w2) = (
        (1.0 - hyper.beta1) as f32,
        hyper.beta2 as f32,
        (1.0 - hyper.beta2) as f32,
    );
    let step_size = (-hyper.learning_rate / (1.0 - hyper.beta1.powf(step))) as f32;
    let (correction, eps) = ((1.0 - hyper.beta2.powf(step)).sqrt() as f32, hyper.eps as f32);
    for (((p, g), m), v) in param.iter_mut().zip(grad).zip(exp_avg).zip(exp_avg_sq) {
        *p *= decay;
        *m = if w1 < 0.5 {
            w1.mul_add(g - *m, *m)
        } else {
            (w1 - 1.0).mul_add(g - *m, *g)
        };
        *v = *v * b2 + w2 * g * g;
        *p += step_size * *m / (v.sqrt() / correction + eps);
    }
}

/// One step of an exponential moving average: `shadow −= (1 − decay) · (shadow − param)`.
///
/// # Panics
/// If the lengths differ.
pub fn ema_step(decay: f64, shadow: &mut [f32], param: &[f32]) {
    assert_eq!(shadow.len(), param.len(), "shadow and param must have one length");
    let rate = (1.0 - decay) as f32;
    shadow
        .iter_mut()
        .zip(param)
        .for_each(|(s, p)| *s -= rate * (*s - p));
}
