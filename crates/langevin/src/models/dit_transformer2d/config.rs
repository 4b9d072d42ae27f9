//! What a DiT is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    models::{
        DIFFUSERS_VERSION, ModelConfig, ModelInputs,
        checks::{self, PatchNumbers},
    },
};

/// The configuration of a [`DiTTransformer2DModel`](super::DiTTransformer2DModel), with diffusers' names and defaults; a key that is missing
/// takes its default, and one that is unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct DiTTransformer2DConfig {
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
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub attention_bias: bool,
    pub sample_size: usize,
    pub patch_size: usize,
    pub num_embeds_ada_norm: usize,
    pub norm_eps: f64,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for DiTTransformer2DConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            dropout: 0.0,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            num_embeds_ada_norm: 1000,
            norm_eps: 1e-5,
            unknown: Map::new(),
        }
    }
}

impl DiTTransformer2DConfig {
    /// Rows of the class table: the classes, and the null class, which is the last.
    pub fn num_classes(&self) -> usize {
        self.num_embeds_ada_norm.saturating_add(1)
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

    /// The same model for pictures of another size and number of channels, which says nothing of its variance, told so much.
    ///
    /// # Errors
    /// If it is to be told anything but a class of its table.
    pub(in crate::models) fn made_with(
        mut self,
        resolution: usize,
        channels: usize,
        inputs: &ModelInputs,
    ) -> Result<Self> {
        let (class, patch) = (Self::CLASS, self.patch_size);
        let fail = |what: String| Err(Error::Config(format!("a {class} {what}")));
        if inputs.image.is_some() {
            return fail("is shown no picture beside the noisy one: leave `conditioning_image` out".into());
        }
        let alone = ModelInputs {
            num_classes: inputs.num_classes,
            ..ModelInputs::default()
        };
        let classes = inputs.num_classes.and_then(|number| number.checked_sub(1));
        let Some(classes) = classes.filter(|_| *inputs == alone) else {
            return fail(
                "is told a class by a table, and nothing else: `conditioning` must be `class`".into(),
            );
        };
        if !resolution.is_multiple_of(patch) {
            return fail(format!(
                "sees patches of {patch}x{patch}, which do not fill a picture of {resolution}x{resolution}"
            ));
        }
        self.sample_size = resolution;
        (self.in_channels, self.out_channels) = (channels, Some(channels));
        self.num_embeds_ada_norm = classes;
        Ok(self)
    }
}

impl ModelConfig for DiTTransformer2DConfig {
    const CLASS: &'static str = "DiTTransformer2DModel";
    const LIBRARY: &'static str = "diffusers";

    fn size_divisor(&self) -> usize {
        self.patch_size
    }

    fn validate(&self) -> Result<()> {
        let only = [
            ("norm_type", json!("ada_norm_zero")),
            ("activation_fn", json!("gelu-approximate")),
            ("norm_elementwise_affine", json!(false)),
        ];
        checks::only(Self::CLASS, &self.unknown, &only)?;
        checks::no_dropout(Self::CLASS, self.dropout)?;
        checks::bounded(&[("num_embeds_ada_norm", self.num_embeds_ada_norm, 1 << 24)])?;
        checks::positive("norm_eps", self.norm_eps)?;
        self.numbers().validate()
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some([self.sample_size; 2])
    }
}
