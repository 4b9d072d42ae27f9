//! For which UNet a ControlNet was made.

use super::ControlNetConfig;
use crate::{
    Error, Result,
    models::{
        UNet2DConditionConfig,
        unet2d_condition::{AdditionEmbedType, ConditionDownBlockType},
    },
};

impl ControlNetConfig {
    /// Whether a block looks at a sequence.
    pub(super) fn attends(&self) -> bool {
        let looks = |block: &ConditionDownBlockType| *block == ConditionDownBlockType::CrossAttnDownBlock2D;
        self.mid_block_type.is_some() || self.down_block_types.iter().any(looks)
    }

    /// Refuses a network that was made for another UNet, or for latents of other channels or that are not `factor` times smaller than
    /// pictures, and says for which.
    ///
    /// # Errors
    /// If it was.
    pub fn check_fits(
        &self,
        unet: &UNet2DConditionConfig,
        latent_channels: usize,
        factor: usize,
    ) -> Result<()> {
        let own = self.unet();
        let (theirs, ours) = (own.sequence_dim(), unet.sequence_dim());
        let wrong = if self.attends() && theirs != ours {
            format!(
                "it looks at texts of {theirs} numbers a token{}, and the model at texts of {ours}{}",
                family(theirs),
                family(ours)
            )
        } else if self.addition_embed_type.is_some() && unet.addition_embed_type.is_none() {
            format!(
                "it is given {} and the model {}",
                given(self.addition_embed_type),
                given(unet.addition_embed_type)
            )
        } else if self.in_channels != latent_channels {
            format!(
                "it takes samples of {} channels, and the model denoises {latent_channels}",
                self.in_channels
            )
        } else if outputs(&own) != outputs(unet) {
            format!(
                "its levels have {:?} channels with {} outputs, and the model's {:?} with {}",
                own.block_out_channels,
                outputs(&own).len(),
                unet.block_out_channels,
                outputs(unet).len()
            )
        } else if self.factor() != factor {
            format!(
                "it makes its picture {} times smaller, and the model's latents are {factor} times smaller than pictures",
                self.factor()
            )
        } else {
            return Ok(());
        };
        Err(Error::option(
            &["control"],
            format!("the ControlNet is made for another model: {wrong}"),
        ))
    }
}

/// What is added to the timestep, in words.
fn given(added: Option<AdditionEmbedType>) -> &'static str {
    match added {
        Some(_) => "sizes and a pooled text, as Stable Diffusion XL is,",
        None => "a text alone",
    }
}

/// The channels of each output of a UNet's way down.
fn outputs(unet: &UNet2DConditionConfig) -> Vec<usize> {
    let channels = &unet.block_out_channels;
    let mut all: Vec<usize> = channels.first().copied().into_iter().collect();
    for (level, &out) in channels.iter().enumerate() {
        let halved = usize::from(level + 1 < channels.len());
        all.extend(std::iter::repeat_n(out, unet.layers_per_block.at(level) + halved));
    }
    all
}

/// Whose texts have tokens of so many numbers.
fn family(width: usize) -> &'static str {
    match width {
        768 => " (Stable Diffusion 1)",
        1024 => " (Stable Diffusion 2)",
        2048 => " (Stable Diffusion XL)",
        _ => "",
    }
}
