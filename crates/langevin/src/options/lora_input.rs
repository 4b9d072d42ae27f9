//! A LoRA that one request is drawn with.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::LoraTag;
use crate::weights::lora::LoraScale;

/// A LoRA that a request is drawn with, and how strongly: it lies beside the model's weights for that request alone, and whatever else is drawn
/// meanwhile does not see it.
///
/// ```
/// use langevin::options::LoraInput;
///
/// let lora: LoraInput = serde_json::from_str(r#"{"name": "pixel-art", "scale": 0.8}"#)?;
/// assert_eq!(lora.to_string(), "pixel-art:0.8");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraInput {
    /// The LoRA: a file, or what a program calls one.
    pub name: String,
    /// How strongly it is applied: 1 as strongly as it was trained.
    #[serde(default = "all")]
    pub scale: f64,
    /// Another scale for parts of the model, whose paths begin so: `text_encoder`, `unet.up_blocks.1`. The longest beginning counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, f64>,
}

fn all() -> f64 {
    1.0
}

impl LoraInput {
    /// A LoRA at a scale.
    pub fn new(name: impl Into<String>, scale: f64) -> Self {
        Self {
            name: name.into(),
            scale,
            parts: BTreeMap::new(),
        }
    }

    /// A LoRA at scales that may differ in parts of the model.
    pub fn of_scales(name: impl Into<String>, scales: LoraScale) -> Self {
        let (scale, parts) = scales.into_parts();
        Self {
            name: name.into(),
            scale,
            parts: parts.into_iter().collect(),
        }
    }

    /// How strongly it is applied where.
    pub fn scales(&self) -> LoraScale {
        let parts = self.parts.iter();
        parts.fold(LoraScale::from(self.scale), |scale, (part, own)| {
            scale.with(part, *own)
        })
    }
}

impl From<LoraTag> for LoraInput {
    fn from(tag: LoraTag) -> Self {
        Self::of_scales(tag.name, tag.scale)
    }
}

/// `pixel-art:0.8`.
impl fmt::Display for LoraInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.scales())
    }
}
