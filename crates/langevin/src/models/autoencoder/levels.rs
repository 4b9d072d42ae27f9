//! What an encoder and a decoder are made of, and what of it can be.

use super::blocks::{DOWN_BLOCK, UP_BLOCK};
use crate::{
    Error, Result,
    models::unet2d::SampleSize,
    nn::{Activation, AttentionConfig, Resampling, ResnetConfig, TimeEmbeddingNorm},
};

/// Added to every normalisation's variance; no configuration says so.
pub(super) const EPS: f64 = 1e-6;

/// The part of a configuration that encoder and decoder share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels<'a> {
    /// Of the pictures that go in.
    pub in_channels: usize,
    /// Of those that come out.
    pub out_channels: usize,
    /// Of the latents.
    pub latent_channels: usize,
    /// A level each, from the picture's size down.
    pub block_out_channels: &'a [usize],
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Of every normalisation.
    pub norm_num_groups: usize,
    /// In the residual blocks.
    pub act_fn: Activation,
    /// Whether the middle has attention.
    pub mid_block_add_attention: bool,
}

impl Levels<'_> {
    /// Channels at the picture's size.
    pub(super) fn first(&self) -> usize {
        self.block_out_channels.first().copied().unwrap_or_default()
    }

    /// Channels at the latents' size.
    pub(super) fn last(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or_default()
    }

    pub(super) fn resnet(&self, in_channels: usize, out_channels: usize) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels,
            temb_channels: None,
            groups: self.norm_num_groups,
            groups_out: self.norm_num_groups,
            eps: EPS,
            activation: self.act_fn,
            time_embedding_norm: TimeEmbeddingNorm::Default,
            output_scale_factor: 1.0,
            dropout: 0.0,
            force_shortcut: false,
            resampling: Resampling::None,
        }
    }

    /// One head over all channels.
    pub(super) fn attention(&self) -> AttentionConfig {
        AttentionConfig {
            channels: self.last(),
            head_dim: self.last(),
            norm_num_groups: Some(self.norm_num_groups),
            eps: EPS,
            rescale_output_factor: 1.0,
        }
    }

    /// Checks the numbers, and that there are as many blocks of the kinds that there are as there are levels.
    pub(super) fn validate(&self, down: &[String], up: &[String], sample_size: SampleSize) -> Result<()> {
        let levels = self.block_out_channels.len();
        validate_levels("block_out_channels", levels)?;
        validate_blocks("down_block_types", down, DOWN_BLOCK, levels)?;
        validate_blocks("up_block_types", up, UP_BLOCK, levels)?;
        let [height, width] = sample_size.height_width();
        let numbers = [
            ("in_channels", self.in_channels, 4096),
            ("out_channels", self.out_channels, 4096),
            ("latent_channels", self.latent_channels, 4096),
            ("layers_per_block", self.layers_per_block, 64),
            ("norm_num_groups", self.norm_num_groups, 1 << 14),
            ("sample_size", height, 1 << 20),
            ("sample_size", width, 1 << 20),
        ];
        within(&numbers)?;
        for &channels in self.block_out_channels {
            within(&[("block_out_channels", channels, 1 << 14)])?;
        }
        Ok(())
    }
}

/// Pixels along a side of what one latent stands for, where so many levels but the last halve the size.
pub(super) fn factor(levels: usize) -> usize {
    1 << levels.saturating_sub(1).min(16)
}

pub(super) fn validate_levels(name: &str, levels: usize) -> Result<()> {
    if levels == 0 || levels > 16 {
        return Err(Error::Config(format!(
            "{name} has {levels} entries: an autoencoder has 1 to 16 levels"
        )));
    }
    Ok(())
}

fn validate_blocks(name: &str, types: &[String], supported: &str, levels: usize) -> Result<()> {
    if let Some(other) = types.iter().find(|kind| *kind != supported) {
        return Err(Error::Unsupported(format!(
            "{name} names {other}, which is not there yet for an autoencoder; {supported} is"
        )));
    }
    if types.len() != levels {
        return Err(Error::Config(format!(
            "{name} has {} entries but block_out_channels has {levels}: there is one block a level",
            types.len()
        )));
    }
    Ok(())
}

/// Every number must be from 1 to its limit.
pub(super) fn within(numbers: &[(&str, usize, usize)]) -> Result<()> {
    match numbers
        .iter()
        .find(|(_, value, limit)| *value == 0 || value > limit)
    {
        None => Ok(()),
        Some((name, value, limit)) => Err(Error::Config(format!(
            "{name} is {value}: it must be from 1 to {limit}"
        ))),
    }
}

/// What latents are multiplied or divided by must be a positive number.
pub(super) fn positive(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{name} is {value}: it must be a positive number"
    )))
}

/// What is added to latents must be a number.
pub(super) fn finite(name: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::Config(format!("{name} is {value}: it must be a number")))
}
