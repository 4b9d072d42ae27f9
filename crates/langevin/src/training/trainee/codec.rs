//! An autoencoder, between pictures and the space that latent models denoise in (Kingma and Welling 2014; Rombach et al. 2022, section 3.1).

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};

use super::kind::Row;
use crate::{
    Error, Result,
    models::{AutoencoderKL, Model},
    ops::keeping,
    random::Generator,
    training::{
        TrainingConfig,
        gradients::Gradients,
        step::{Lesson, Saving},
    },
    weights::{self, NamedTensor},
};

pub(super) const ROW: Row = Row {
    attach: |_, _, _| Err(on_pictures()),
    trains,
    save: |_, _| Err(on_pictures()),
    learning_rate: 1e-3,
    tags: &["autoencoder"],
};

/// One that is there already has models that know its latents, so its encoder stays as it is and what is learned is the way back, as Stability AI's
/// `sd-vae-ft-mse` was made; unless the run says which parameters it means.
fn trains(config: &TrainingConfig, name: &str) -> bool {
    let decodes = || name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
    config.pretrained.is_none() || !config.train_only.is_empty() || decodes()
}

fn on_pictures() -> Error {
    Error::Config("an autoencoder is trained on pictures, and not on top of a pipeline".into())
}

/// How far pictures are from what becomes of them, `[batch]`: the mean of the absolute differences, and `kl_weight` times the divergence of
/// their latents from a standard normal distribution, over as many numbers as a picture has. These are the two terms of the loss of
/// CompVis' `LPIPSWithDiscriminator` that need no other network, in its proportions.
///
/// # Shapes
/// `pictures`: `[batch, channels, height, width]` in -1..1; `noise`: that of their latents, standard normal
///
/// # Errors
/// If the pictures or the noise do not fit the network.
pub fn losses(
    network: &AutoencoderKL,
    pictures: Tensor<4>,
    noise: Tensor<4>,
    kl_weight: f64,
) -> Result<Tensor<1>> {
    let [batch, channels, height, width] = pictures.dims();
    let numbers = channels * height * width;
    let posterior = network.encode(pictures.clone())?;
    let reconstructed = network.decode(posterior.sample(noise)?)?;
    let apart = (pictures - reconstructed).abs().reshape([batch, numbers]);
    let apart = apart.mean_dim(1).reshape([batch]);
    Ok(apart + posterior.kl() * (kl_weight / numbers as f64))
}

/// What the network learns from a batch. The noise is drawn from the generator.
///
/// # Errors
/// As [`losses`].
pub(in crate::training) fn lesson(
    network: &AutoencoderKL,
    pictures: Tensor<4>,
    kl_weight: f64,
    saving: Saving,
    generator: &mut Generator,
) -> Result<Lesson> {
    let config = network.config();
    let [batch, _, height, width] = pictures.dims();
    let [rows, columns] = [height, width].map(|side| side / config.factor());
    let noise = generator.randn_tensor([batch, config.latent_channels, rows, columns], &pictures.device());
    keeping(saving.kept_as, || {
        let losses = losses(network, pictures, noise, kl_weight)?;
        let loss = losses.clone().mean();
        let mut backward = loss.backward();
        let gradients = Gradients::gather(network, &mut backward);
        Ok(Lesson::new(loss, losses, gradients))
    })
}

/// Mean and standard deviation of each channel of latents.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Of each channel.
    pub mean: Vec<f64>,
    /// Of each channel.
    pub deviation: Vec<f64>,
}

impl Spread {
    /// That of the likeliest latents of pictures, a batch at a time.
    ///
    /// # Errors
    /// If a batch does not fit the network, or there are none.
    pub fn of(network: &AutoencoderKL, batches: impl IntoIterator<Item = Result<Tensor<4>>>) -> Result<Self> {
        let channels = network.config().latent_channels;
        let mut sums = vec![[0.0f64; 2]; channels];
        let mut count = 0usize;
        for batch in batches {
            let latents = network.encode(batch?)?.mode();
            let [pictures, _, height, width] = latents.dims();
            let values = latents.into_data().convert::<f32>();
            let values: Vec<f32> = values.iter::<f32>().collect();
            let size = height * width;
            for (place, plane) in values.chunks_exact(size).enumerate() {
                let [sum, squares] = &mut sums[place % channels];
                for &value in plane {
                    *sum += f64::from(value);
                    *squares += f64::from(value) * f64::from(value);
                }
            }
            count += pictures * size;
        }
        if count == 0 {
            return Err(Error::Config(
                "there are no pictures to measure latents of".into(),
            ));
        }
        let count = count as f64;
        let mean: Vec<f64> = sums.iter().map(|[sum, _]| sum / count).collect();
        let deviation = sums.iter().zip(&mean).map(|([_, squares], mean)| {
            let deviation = (squares / count - mean * mean).max(0.0).sqrt();
            // A channel that says nothing stays as it is.
            if deviation > 1e-6 { deviation } else { 1.0 }
        });
        Ok(Self {
            deviation: deviation.collect(),
            mean,
        })
    }
}

/// The same autoencoder with latents that have mean 0 and standard deviation 1 in each channel: what they were measured to have is taken into the
/// 1x1 convolutions behind the encoder and before the decoder, so that pictures come back as they did, and `scaling_factor` is 1. Samplers begin
/// with such noise, and pipelines of diffusers know one factor for all channels.
///
/// # Errors
/// If the network has no such convolutions.
pub fn normalised(network: &AutoencoderKL, spread: &Spread, device: &Device) -> Result<AutoencoderKL> {
    let channels = network.config().latent_channels;
    let wanted = |name: &str| name.starts_with("quant_conv.") || name.starts_with("post_quant_conv.");
    let mut tensors: BTreeMap<String, NamedTensor> = weights::named_tensors_of(network, wanted)
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    let mut change = |name: &str, change: &mut dyn FnMut(&mut [f32])| match tensors.get_mut(name) {
        Some(tensor) => {
            change(&mut tensor.values);
            Ok(())
        }
        None => Err(Error::Config(format!(
            "the autoencoder has no {name}, which would bring its latents to mean 0 and deviation 1: `use_quant_conv` and \
             `use_post_quant_conv` must be true"
        ))),
    };
    // Means, then the logarithms of variances: (z - mean) / deviation.
    change("quant_conv.weight", &mut |weight| {
        for (out, row) in weight.chunks_exact_mut(2 * channels).enumerate().take(channels) {
            row.iter_mut()
                .for_each(|value| *value = (f64::from(*value) / spread.deviation[out]) as f32);
        }
    })?;
    change("quant_conv.bias", &mut |bias| {
        for channel in 0..channels {
            let (mean, deviation) = (spread.mean[channel], spread.deviation[channel]);
            bias[channel] = ((f64::from(bias[channel]) - mean) / deviation) as f32;
            let variance = &mut bias[channels + channel];
            *variance = (f64::from(*variance) - 2.0 * deviation.ln()) as f32;
        }
    })?;
    // And back.
    let mut shift = vec![0.0f64; channels];
    change("post_quant_conv.weight", &mut |weight| {
        for (out, row) in weight.chunks_exact_mut(channels).enumerate() {
            for (channel, value) in row.iter_mut().enumerate() {
                shift[out] += f64::from(*value) * spread.mean[channel];
                *value = (f64::from(*value) * spread.deviation[channel]) as f32;
            }
        }
    })?;
    change("post_quant_conv.bias", &mut |bias| {
        for (value, shift) in bias.iter_mut().zip(&shift) {
            *value = (f64::from(*value) + shift) as f32;
        }
    })?;
    let config = crate::models::AutoencoderKLConfig {
        scaling_factor: 1.0,
        ..network.config().clone()
    };
    let mut all: BTreeMap<String, NamedTensor> = weights::named_tensors_of(network, |name| !wanted(name))
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    all.append(&mut tensors);
    let blank = AutoencoderKL::new(&config, device, &mut Generator::new(0))?;
    weights::replace(blank, all, device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::default_device, models::autoencoder::AutoencoderPreset};

    #[test]
    fn latents_that_are_brought_to_deviation_one_give_the_same_pictures() {
        let device = default_device();
        let config = AutoencoderPreset::Tiny.config(16, 3);
        let network = AutoencoderKL::new(&config, &device, &mut Generator::new(1)).unwrap();
        let pictures: Tensor<4> = Generator::new(2).randn_tensor([4, 3, 16, 16], &device);
        let spread = Spread::of(&network, [Ok(pictures.clone())]).unwrap();
        let plain = normalised(&network, &spread, &device).unwrap();
        assert_eq!(plain.config().scaling_factor, 1.0);
        let again = Spread::of(&plain, [Ok(pictures.clone())]).unwrap();
        for (mean, deviation) in again.mean.iter().zip(&again.deviation) {
            assert!(mean.abs() < 1e-5 && (deviation - 1.0).abs() < 1e-5, "{again:?}");
        }
        // The same noise leads to the same picture, so variances went along.
        let noise: Tensor<4> = Generator::new(3).randn_tensor([4, 4, 4, 4], &device);
        let drawn = |network: &AutoencoderKL| {
            let posterior = network.encode(pictures.clone()).unwrap();
            network.decode(posterior.sample(noise.clone()).unwrap()).unwrap()
        };
        let (before, after) = (drawn(&network), drawn(&plain));
        let apart = (before.clone() - after).abs().max().into_scalar::<f32>();
        let largest = before.abs().max().into_scalar::<f32>();
        assert!(apart < 1e-5 * largest.max(1.0), "{apart} of {largest}");
    }
}
