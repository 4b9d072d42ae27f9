//! What a PixArt transformer is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    models::{
        DIFFUSERS_VERSION, ModelConfig,
        checks::{self, PatchNumbers},
    },
};

/// The configuration of a [`PixArtTransformer2DModel`](super::PixArtTransformer2DModel), with diffusers' names and defaults; a key that is
/// missing takes its default, and one that is unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct PixArtTransformer2DConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub in_channels: usize,
    pub out_channels: Option<usize>,
    pub num_layers: usize,
    pub dropout: f64,
    pub cross_attention_dim: Option<usize>,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub attention_bias: bool,
    pub sample_size: usize,
    pub patch_size: usize,
    pub norm_eps: f64,
    pub interpolation_scale: Option<f64>,
    pub use_additional_conditions: Option<bool>,
    pub caption_channels: Option<usize>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for PixArtTransformer2DConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            dropout: 0.0,
            cross_attention_dim: Some(1152),
            attention_bias: true,
            sample_size: 128,
            patch_size: 2,
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: None,
            unknown: Map::new(),
        }
    }
}

impl PixArtTransformer2DConfig {
    /// Dimension of the sequence that the model is given.
    pub fn sequence_dim(&self) -> usize {
        self.caption_channels.unwrap_or(self.context_dim())
    }

    /// Dimension of the sequence that the blocks look at; [`Self::validate`] makes sure that there is one.
    pub(super) fn context_dim(&self) -> usize {
        self.cross_attention_dim.unwrap_or_default()
    }

    /// Whether the model is told a picture's size: unless it says otherwise, where it is for the largest pictures.
    pub fn is_told_sizes(&self) -> bool {
        self.use_additional_conditions.unwrap_or(self.sample_size == 128)
    }

    /// By what places are divided: how many times larger than 64 the pictures are that the model is for.
    pub(super) fn interpolation(&self) -> f64 {
        let times = (self.sample_size / 64).max(1);
        self.interpolation_scale.unwrap_or(times as f64)
    }

    pub(super) fn numbers(&self) -> PatchNumbers {
        PatchNumbers {
            in_channels: self.in_channels,
            out_channels: self.out_channels.unwrap_or(self.in_channels),
            num_layers: self.num_layers,
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            sample_size: self.sample_size,
            patch_size: self.patch_size,
        }
    }

    fn validate_sequence(&self) -> Result<()> {
        let Some(context) = self.cross_attention_dim else {
            return Err(Error::Unsupported(format!(
                "cross_attention_dim null is not there yet for a {}",
                Self::CLASS
            )));
        };
        checks::bounded(&[
            ("cross_attention_dim", context, 1 << 16),
            ("caption_channels", self.caption_channels.unwrap_or(1), 1 << 16),
        ])?;
        let width = self.numbers().inner_dim();
        if self.caption_channels.is_some() && context != width {
            return Err(Error::Config(format!(
                "cross_attention_dim is {context}, and captions are projected to num_attention_heads times attention_head_dim, {width}: \
                 they must be equal"
            )));
        }
        Ok(())
    }
}

impl ModelConfig for PixArtTransformer2DConfig {
    const CLASS: &'static str = "PixArtTransformer2DModel";
    const LIBRARY: &'static str = "diffusers";

    fn size_divisor(&self) -> usize {
        self.patch_size
    }

    fn validate(&self) -> Result<()> {
        let only = [
            ("norm_type", json!("ada_norm_single")),
            ("activation_fn", json!("gelu-approximate")),
            ("norm_elementwise_affine", json!(false)),
            ("attention_type", json!("default")),
        ];
        checks::only(Self::CLASS, &self.unknown, &only)?;
        checks::no_dropout(Self::CLASS, self.dropout)?;
        checks::positive("norm_eps", self.norm_eps)?;
        checks::positive("interpolation_scale", self.interpolation())?;
        self.numbers().validate()?;
        self.validate_sequence()?;
        let width = self.numbers().inner_dim();
        if self.is_told_sizes() && !width.is_multiple_of(3) {
            return Err(Error::Config(format!(
                "num_attention_heads times attention_head_dim is {width}: with use_additional_conditions it must be divisible by 3"
            )));
        }
        Ok(())
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some([self.sample_size; 2])
    }
}
