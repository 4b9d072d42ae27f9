//! Group normalisation (Wu & He 2018) with scale, shift and SiLU.

use burn::backend::{Backend, tensor::FloatTensor};

use super::plain::Plain;
use crate::ops::norm::{NormGradient, NormParameters};

/// Everything as `[batch, positions, groups, channels of a group]`, with a length of 1 where it does not vary.
struct Grouped<B: Backend> {
    x: Plain<B>,
    gamma: Plain<B>,
    beta: Plain<B>,
    /// `1 + scale`, and shift.
    modulation: Option<(Plain<B>, Plain<B>)>,
}

impl<B: Backend> Grouped<B> {
    fn of(x: FloatTensor<B>, parameters: &NormParameters<B>) -> Self {
        let x = Plain::<B>(x);
        let [batch, height, width, channels] = x.dims();
        let groups = parameters.options.groups;
        let size = channels / groups;
        let per_channel = |tensor: &FloatTensor<B>| Plain::<B>(tensor.clone()).reshape([1, 1, groups, size]);
        let per_picture = |tensor: FloatTensor<B>| Plain::<B>(tensor).reshape([batch, 1, groups, size]);
        let modulation = parameters.scale.clone().zip(parameters.shift.clone());
        Self {
            x: x.reshape([batch, height * width, groups, size]),
            gamma: per_channel(&parameters.gamma),
            beta: per_channel(&parameters.beta),
            modulation: modulation.map(|(scale, shift)| (per_picture(scale).plus(1.0), per_picture(shift))),
        }
    }

    /// What SiLU, if it follows, is applied to.
    fn affine(&self, normed: Plain<B>) -> Plain<B> {
        let a = normed * self.gamma.clone() + self.beta.clone();
        match &self.modulation {
            Some((scale, shift)) => a * scale.clone() + shift.clone(),
            None => a,
        }
    }
}

/// `[batch, positions, groups, channels of a group]`, normalised.
fn normed<B: Backend>(x: Plain<B>, mean: Plain<B>, deviation: Plain<B>) -> Plain<B> {
    (x - mean) * deviation
}

/// The result, and the mean and reciprocal standard deviation of every group: `[batch, groups, 2]`.
pub(crate) fn group_norm_with_statistics<B: Backend>(
    x: FloatTensor<B>,
    parameters: &NormParameters<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = Plain::<B>(x.clone()).dims::<4>();
    let grouped = Grouped::of(x, parameters);
    let [batch, _, groups, _] = grouped.x.dims();
    let mean = grouped.x.clone().mean(&[1, 3]);
    let variance = (grouped.x.clone() - mean.clone()).square().mean(&[1, 3]);
    let deviation = variance.plus(parameters.options.eps.into()).sqrt().recip();
    let a = grouped.affine(normed(grouped.x.clone(), mean.clone(), deviation.clone()));
    let y = if parameters.options.silu {
        a.clone() * a.sigmoid()
    } else {
        a
    };
    let column = |x: Plain<B>| x.reshape([batch, groups, 1]);
    let statistics = Plain::cat([column(mean), column(deviation)], 2);
    (y.reshape(shape).0, statistics.0)
}

/// The gradients at all inputs.
pub(crate) fn group_norm_gradient<B: Backend>(
    x: FloatTensor<B>,
    parameters: &NormParameters<B>,
    statistics: FloatTensor<B>,
    gy: FloatTensor<B>,
) -> NormGradient<B> {
    let shape = Plain::<B>(x.clone()).dims::<4>();
    let grouped = Grouped::of(x, parameters);
    let [batch, positions, groups, size] = grouped.x.dims();
    let channels = groups * size;
    let statistic = |i| {
        let part = Plain::<B>(statistics.clone()).part(2, i, i + 1);
        part.reshape([batch, 1, groups, 1])
    };
    let deviation = statistic(1);
    let n = normed(grouped.x.clone(), statistic(0), deviation.clone());
    let mut ga = Plain::<B>(gy).reshape([batch, positions, groups, size]);
    if parameters.options.silu {
        ga = ga * silu_slope(grouped.affine(n.clone()));
    }
    // Where there is a modulation, the affine part below it is scaled by it.
    let (inner, modulation) = match &grouped.modulation {
        None => (ga, None),
        Some((scale, _)) => {
            let a = n.clone() * grouped.gamma.clone() + grouped.beta.clone();
            let per_picture = |g: Plain<B>| g.sum(&[1]).reshape([batch, channels]).0;
            let gradients = (per_picture(ga.clone() * a), per_picture(ga.clone()));
            (ga * scale.clone(), Some(gradients))
        }
    };
    let per_channel = |g: Plain<B>| g.sum(&[0, 1]).reshape([channels]).0;
    let gn = inner.clone() * grouped.gamma;
    let along = (gn.clone() * n.clone()).mean(&[1, 3]);
    let gx = (gn.clone() - gn.mean(&[1, 3]) - n.clone() * along) * deviation;
    NormGradient {
        x: gx.reshape(shape).0,
        gamma: per_channel(inner.clone() * n),
        beta: per_channel(inner),
        modulation,
        again: None,
    }
}

/// The derivative of SiLU: σ(x) · (1 + x · (1 − σ(x))).
pub(super) fn silu_slope<B: Backend>(x: Plain<B>) -> Plain<B> {
    let sigmoid = x.clone().sigmoid();
    let rest = x * sigmoid.clone().times(-1.0).plus(1.0);
    sigmoid * rest.plus(1.0)
}
