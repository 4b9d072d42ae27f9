//! Group normalisation with an optional scale and shift per picture and an optional SiLU.

/// The sizes of a group normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupNormShape {
    /// Number of pictures.
    pub batch: usize,
    /// Height times width.
    pub pixels: usize,
    /// Number of channels.
    pub channels: usize,
    /// Number of groups; divides `channels`.
    pub groups: usize,
}

/// What a group normalisation applies after normalising.
#[derive(Clone, Copy, Debug)]
pub struct GroupNormParameters<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// The learned factor, `[channels]`.
    pub gamma: &'a [f32],
    /// The learned offset, `[channels]`.
    pub beta: &'a [f32],
    /// `[batch, channels]`: the result is multiplied by `1 + scale`.
    pub scale: Option<&'a [f32]>,
    /// `[batch, channels]`: added after `scale`.
    pub shift: Option<&'a [f32]>,
    /// Whether `SiLU(z) = z · sigmoid(z)` is applied last.
    pub silu: bool,
}

/// Where [`group_norm_backward`] writes its gradients; all are overwritten.
#[derive(Debug)]
pub struct GroupNormGradients<'a> {
    /// `[batch, pixels, channels]`
    pub x: &'a mut [f32],
    /// `[channels]`
    pub gamma: &'a mut [f32],
    /// `[channels]`
    pub beta: &'a mut [f32],
    /// `[batch, channels]`
    pub scale: Option<&'a mut [f32]>,
    /// `[batch, channels]`
    pub shift: Option<&'a mut [f32]>,
}

impl GroupNormShape {
    fn check(&self, x: usize, y: usize, mean_rstd: usize, parameters: &GroupNormParameters) {
        assert!(
            self.groups > 0 && self.channels.is_multiple_of(self.groups),
            "groups must divide channels: {self:?}"
        );
        assert!(
            x == y && x == self.batch * self.pixels * self.channels,
            "x and y must be [batch, pixels, channels]: {self:?}"
        );
        assert_eq!(
            mean_rstd,
            self.batch * self.groups * 2,
            "mean_rstd must be [batch, groups, 2]: {self:?}"
        );
        let vector = |v: &[f32]| v.len() == self.channels;
        assert!(
            vector(parameters.gamma) && vector(parameters.beta),
            "gamma and beta must be [channels]"
        );
        let film = |v: Option<&[f32]>| v.is_none_or(|v| v.len() == self.batch * self.channels);
        assert!(
            film(parameters.scale) && film(parameters.shift),
            "scale and shift must be [batch, channels]"
        );
    }
}

/// Normalises each picture's groups of channels to mean 0 and variance 1, and applies the parameters:
/// `y = act(((x − mean) · rstd · gamma + beta) · (1 + scale) + shift)`.
///
/// # Shapes
/// - `x`, `y`: `[batch, pixels, channels]`
/// - `mean_rstd`: `[batch, groups, 2]`, written: each group's mean and `1 / sqrt(variance + eps)`, for
///   [`group_norm_backward`]
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn group_norm_forward(
    shape: &GroupNormShape,
    x: &[f32],
    parameters: &GroupNormParameters,
    y: &mut [f32],
    mean_rstd: &mut [f32],
) {
    shape.check(x.len(), y.len(), mean_rstd.len(), parameters);
    let (c, cg) = (shape.channels, shape.channels / shape.groups);
    for (i, stats) in mean_rstd.chunks_exact_mut(2).enumerate() {
        let (n, g) = (i / shape.groups, i % shape.groups);
        let index = |e: usize| (n * shape.pixels + e / cg) * c + g * cg + e % cg;
        let count = shape.pixels * cg;
        let mean = (0..count).map(|e| f64::from(x[index(e)])).sum::<f64>() / count as f64;
        let variance = (0..count)
            .map(|e| (f64::from(x[index(e)]) - mean).powi(2))
            .sum::<f64>()
            / count as f64;
        let rstd = 1.0 / (variance + f64::from(parameters.eps)).sqrt();
        stats.copy_from_slice(&[mean as f32, rstd as f32]);
        for e in 0..count {
            let z = affine(
                parameters,
                n,
                g * cg + e % cg,
                c,
                (x[index(e)] - stats[0]) * stats[1],
            );
            y[index(e)] = if parameters.silu {
                z / (1.0 + (-z).exp())
            } else {
                z
            };
        }
    }
}

fn affine(
    parameters: &GroupNormParameters,
    n: usize,
    channel: usize,
    channels: usize,
    normalised: f32,
) -> f32 {
    let scale = parameters.scale.map_or(0.0, |s| s[n * channels + channel]);
    let shift = parameters.shift.map_or(0.0, |s| s[n * channels + channel]);
    (normalised * parameters.gamma[channel] + parameters.beta[channel]) * (1.0 + scale) + shift
}

/// The gradients of [`group_norm_forward`].
///
/// # Shapes
/// - `x`, `gy`: `[batch, pixels, channels]`
/// - `mean_rstd`: `[batch, groups, 2]`, as the forward pass left it
///
/// # Panics
/// If a slice's length does not match the shape.
pub fn group_norm_backward(
    shape: &GroupNormShape,
    x: &[f32],
    mean_rstd: &[f32],
    parameters: &GroupNormParameters,
    gy: &[f32],
    gradients: GroupNormGradients,
) {
    shape.check(x.len(), gy.len(), mean_rstd.len(), parameters);
    let GroupNormGradients {
        x: gx,
        gamma: ggamma,
        beta: gbeta,
        scale: mut gscale,
        shift: mut gshift,
    } = gradients;
    assert_eq!(gx.len(), x.len(), "the gradient of x must have x's shape");
    assert!(
        ggamma.len() == shape.channels && gbeta.len() == shape.channels,
        "gradients must be [channels]"
    );
    let film = |v: &Option<&mut [f32]>| v.as_ref().is_none_or(|v| v.len() == shape.batch * shape.channels);
    assert!(
        film(&gscale) && film(&gshift),
        "gradients of scale and shift must be [batch, channels]"
    );
    let (c, cg) = (shape.channels, shape.channels / shape.groups);
    ggamma.fill(0.0);
    gbeta.fill(0.0);
    for (i, stats) in mean_rstd.chunks_exact(2).enumerate() {
        let (n, g) = (i / shape.groups, i % shape.groups);
        let count = shape.pixels * cg;
        let (mut mean_g, mut mean_gx) = (0.0, 0.0);
        for channel in g * cg..(g + 1) * cg {
            let factor = 1.0 + parameters.scale.map_or(0.0, |s| s[n * c + channel]);
            let (mut sum, mut sum_x) = (0.0, 0.0);
            for p in 0..shape.pixels {
                let e = (n * shape.pixels + p) * c + channel;
                let normalised = (x[e] - stats[0]) * stats[1];
                let mut d = gy[e];
                if parameters.silu {
                    let z = affine(parameters, n, channel, c, normalised);
                    let s = 1.0 / (1.0 + (-z).exp());
                    d *= s * (1.0 + z * (1.0 - s));
                }
                gx[e] = d;
                sum += d;
                sum_x += d * normalised;
            }
            let (gamma, beta) = (parameters.gamma[channel], parameters.beta[channel]);
            ggamma[channel] += factor * sum_x;
            gbeta[channel] += factor * sum;
            if let Some(gscale) = &mut gscale {
                gscale[n * c + channel] = gamma * sum_x + beta * sum;
            }
            if let Some(gshift) = &mut gshift {
                gshift[n * c + channel] = sum;
            }
            mean_g += gamma * factor * sum / count as f32;
            mean_gx += gamma * factor * sum_x / count as f32;
        }
        for channel in g * cg..(g + 1) * cg {
            let factor =
                parameters.gamma[channel] * (1.0 + parameters.scale.map_or(0.0, |s| s[n * c + channel]));
            for p in 0..shape.pixels {
                let e = (n * shape.pixels + p) * c + channel;
                let normalised = (x[e] - stats[0]) * stats[1];
                gx[e] = stats[1] * (gx[e] * factor - mean_g - normalised * mean_gx);
            }
        }
    }
}
