//! What Stable Diffusion 3's transformer is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    models::{
        DIFFUSERS_VERSION, ModelConfig,
        checks::{self, PatchNumbers},
    },
};

/// The one normalisation of queries and keys that is there.
const RMS_NORM: &str = "rms_norm";

/// The configuration of an [`SD3Transformer2DModel`](super::SD3Transformer2DModel), with diffusers' names and defaults; a key that is missing
/// takes its default, and one that is unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct SD3Transformer2DConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub sample_size: usize,
    pub patch_size: usize,
    pub in_channels: usize,
    pub num_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    pub joint_attention_dim: usize,
    pub caption_projection_dim: usize,
    pub pooled_projection_dim: usize,
    pub out_channels: Option<usize>,
    pub pos_embed_max_size: usize,
    pub dual_attention_layers: Vec<usize>,
    pub qk_norm: Option<String>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for SD3Transformer2DConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: Some(16),
            pos_embed_max_size: 96,
            dual_attention_layers: Vec::new(),
            qk_norm: None,
            unknown: Map::new(),
        }
    }
}

impl SD3Transformer2DConfig {
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
}

impl ModelConfig for SD3Transformer2DConfig {
    const CLASS: &'static str = "SD3Transformer2DModel";
    const LIBRARY: &'static str = "diffusers";

    fn size_divisor(&self) -> usize {
        self.patch_size
    }

    fn validate(&self) -> Result<()> {
        if let Some(norm) = self.qk_norm.as_ref().filter(|norm| *norm != RMS_NORM) {
            return Err(Error::Unsupported(format!(
                "qk_norm {norm:?} is not there yet for a {}; {RMS_NORM:?} is, and none",
                Self::CLASS
            )));
        }
        self.numbers().validate()?;
        checks::bounded(&[
            ("joint_attention_dim", self.joint_attention_dim, 1 << 16),
            ("pooled_projection_dim", self.pooled_projection_dim, 1 << 16),
            ("pos_embed_max_size", self.pos_embed_max_size, 1 << 10),
        ])?;
        let (width, text) = (self.numbers().inner_dim(), self.caption_projection_dim);
        if text != width {
            return Err(Error::Config(format!(
                "caption_projection_dim is {text}: it must be num_attention_heads times attention_head_dim, {width}, for picture and text \
                 share one attention"
            )));
        }
        Ok(())
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some([self.sample_size; 2])
    }
}
