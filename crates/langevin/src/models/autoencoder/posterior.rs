//! What an encoder says of a picture's latents: a normal distribution.

use burn::tensor::Tensor;

use crate::{Error, Result};

/// The logarithms of variances are held to this range.
const LOG_VARIANCES: [f32; 2] = [-30.0, 20.0];

/// A normal distribution of latents, each independent of the others.
/// Mirrors `diffusers.models.autoencoders.vae.DiagonalGaussianDistribution`.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// `[batch, latent_channels, height, width]`
    pub mean: Tensor<4>,
    /// The logarithm of the variance, held to -30..20; shaped as `mean`.
    pub log_variance: Tensor<4>,
}

impl Posterior {
    /// Of an encoder's output, `[batch, 2 · latent_channels, height, width]`: the means, then the logarithms.
    pub(super) fn of_moments(moments: Tensor<4>) -> Self {
        let half = moments.dims()[1] / 2;
        let [mean, log_variance] = [0, half].map(|start| moments.clone().narrow(1, start, half));
        let [low, high] = LOG_VARIANCES;
        Self {
            mean,
            log_variance: log_variance.clamp(low, high),
        }
    }

    /// The latents that standard normal noise of the mean's shape stands for: `mean + exp(log_variance / 2) · noise`.
    ///
    /// # Errors
    /// If the noise has another shape.
    pub fn sample(&self, noise: Tensor<4>) -> Result<Tensor<4>> {
        if noise.dims() != self.mean.dims() {
            return Err(Error::Shape(format!(
                "the noise has shape {:?} where the latents have {:?}",
                noise.dims(),
                self.mean.dims()
            )));
        }
        let deviation = (self.log_variance.clone() * 0.5).exp();
        Ok(self.mean.clone() + deviation * noise)
    }

    /// The most likely latents: the means.
    pub fn mode(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// The Kullback-Leibler divergence from a standard normal distribution, `[batch]`:
    /// `½ Σ (mean² + variance − 1 − log_variance)` (Kingma and Welling 2014, appendix B).
    pub fn kl(&self) -> Tensor<1> {
        let [batch, channels, height, width] = self.mean.dims();
        let each =
            self.mean.clone().square() + self.log_variance.clone().exp() - 1.0 - self.log_variance.clone();
        let all = each.reshape([batch, channels * height * width]);
        all.sum_dim(1).reshape([batch]) * 0.5
    }
}
