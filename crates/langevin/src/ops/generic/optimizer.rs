//! AdamW, the moving average, the sum of squares.

use burn::backend::{Backend, tensor::FloatTensor};

use super::plain::Plain;
use crate::ops::AdamW;

/// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2): parameter, first and second moment.
pub(crate) fn adamw_step<B: Backend>(
    parameter: FloatTensor<B>,
    gradient: FloatTensor<B>,
    first_moment: FloatTensor<B>,
    second_moment: FloatTensor<B>,
    hyper: AdamW,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [parameter, g, m, v] = [parameter, gradient, first_moment, second_moment].map(Plain::<B>);
    let g = g.times(hyper.gradient_factor);
    // No run has more steps than an i32 counts, and at that many the powers are zero.
    let step = i32::try_from(hyper.step).unwrap_or(i32::MAX);
    let (beta1, beta2) = (hyper.beta1, hyper.beta2);
    let parameter = parameter.times(1.0 - hyper.learning_rate * hyper.weight_decay);
    let m = m.times(beta1) + g.clone().times(1.0 - beta1);
    let v = v.times(beta2) + g.square().times(1.0 - beta2);
    let correction = (1.0 - beta2.powi(step)).sqrt();
    let denominator = v.clone().sqrt().times(1.0 / correction).plus(hyper.eps);
    let rate = hyper.learning_rate / (1.0 - beta1.powi(step));
    let parameter = parameter - (m.clone() / denominator).times(rate);
    (parameter.0, m.0, v.0)
}

/// `average - (1 - decay) · (average - parameter)`
pub(crate) fn moving_average_step<B: Backend>(
    average: FloatTensor<B>,
    parameter: FloatTensor<B>,
    decay: f64,
) -> FloatTensor<B> {
    let (average, parameter) = (Plain::<B>(average), Plain::<B>(parameter));
    (average.clone() - (average - parameter).times(1.0 - decay)).0
}

/// Shape `[1]`.
pub(crate) fn sum_of_squares<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    Plain::<B>(B::float_sum(Plain::<B>(x).square().0)).reshape([1]).0
}
