//! What a T2I-Adapter is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    models::{DIFFUSERS_VERSION, ModelConfig, UNet2DConditionConfig},
};

/// The kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterType {
    /// Halves on every level but the first.
    FullAdapter,
    /// Halves once, for Stable Diffusion XL.
    FullAdapterXl,
    /// Of few parameters.
    LightAdapter,
}

/// The configuration of a [`T2IAdapter`](super::T2IAdapter), with diffusers' names and defaults; a key that is unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct T2IAdapterConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub in_channels: usize,
    pub channels: Vec<usize>,
    pub num_res_blocks: usize,
    pub downscale_factor: usize,
    pub adapter_type: AdapterType,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for T2IAdapterConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            in_channels: 3,
            channels: vec![320, 640, 1280, 1280],
            num_res_blocks: 2,
            downscale_factor: 8,
            adapter_type: AdapterType::FullAdapter,
            unknown: Map::new(),
        }
    }
}

impl ModelConfig for T2IAdapterConfig {
    const CLASS: &'static str = "T2IAdapter";
    const LIBRARY: &'static str = "diffusers";

    fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        if self.channels.is_empty() || self.channels.len() > 16 {
            return fail(format!(
                "channels has {} entries: an adapter has 1 to 16 levels",
                self.channels.len()
            ));
        }
        let least = match self.adapter_type {
            AdapterType::LightAdapter => 4,
            _ => 1,
        };
        let levels = self
            .channels
            .iter()
            .map(|&channels| ("channels", channels, least, 1 << 14));
        let numbers = [
            ("in_channels", self.in_channels, 1, 4096),
            ("num_res_blocks", self.num_res_blocks, 1, 64),
            ("downscale_factor", self.downscale_factor, 1, 64),
        ];
        for (name, value, least, limit) in levels.chain(numbers) {
            if value < least || value > limit {
                return fail(format!("{name} is {value}: it must be from {least} to {limit}"));
            }
        }
        // A level that takes its own channels from one that has others makes no network.
        let xl = self.adapter_type == AdapterType::FullAdapterXl;
        let jump = self.channels.windows(2).skip(2).find(|pair| pair[0] != pair[1]);
        match jump {
            Some(pair) if xl => fail(format!(
                "the channels of an adapter for XL go from {} to {}: from the third level on they must stay",
                pair[0], pair[1]
            )),
            _ => Ok(()),
        }
    }
}

impl T2IAdapterConfig {
    /// Refuses an adapter that was made for another UNet, whose latents are `factor` times smaller than pictures.
    ///
    /// # Errors
    /// If it was.
    pub fn check_fits(&self, unet: &UNet2DConditionConfig, factor: usize) -> Result<()> {
        let widths = &unet.block_out_channels;
        let own: Vec<usize> = self.channels.iter().copied().take(widths.len()).collect();
        let wrong = if self.adapter_type == AdapterType::LightAdapter
            && self.channels.len() + 1 != widths.len()
            || self.adapter_type != AdapterType::LightAdapter && own.len() != widths.len()
            || own.iter().zip(widths).any(|(own, theirs)| own != theirs)
        {
            format!(
                "its levels have {:?} channels, and the model's {widths:?}",
                self.channels
            )
        } else if !self.downscale_factor.is_multiple_of(factor) {
            format!(
                "it makes its picture {} times smaller, and the model's latents are {factor} times smaller than pictures",
                self.downscale_factor
            )
        } else {
            return Ok(());
        };
        Err(Error::option(
            &["control"],
            format!("the T2I-Adapter is made for another model: {wrong}"),
        ))
    }
}
