//! What a CLIP model is made of: transformers' `config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result, models::ModelConfig, nn::Activation};

/// The configuration of a text tower, with transformers' names and defaults; an unknown key is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are transformers'.
pub struct ClipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    pub bos_token_id: u32,
    pub eos_token_id: u32,
    pub pad_token_id: u32,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            bos_token_id: 49_406,
            eos_token_id: 49_407,
            pad_token_id: 1,
            unknown: Map::new(),
        }
    }
}

/// The configuration of a picture tower, with transformers' names and defaults; an unknown key is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are transformers'.
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            unknown: Map::new(),
        }
    }
}

/// The configuration of a [`ClipModel`](super::ClipModel).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// Of the text tower.
    #[serde(default)]
    pub text_config: ClipTextConfig,
    /// Of the picture tower.
    #[serde(default)]
    pub vision_config: ClipVisionConfig,
    /// Dimension that both are projected to, 512 unless it says so.
    #[serde(default)]
    pub projection_dim: Option<usize>,
    /// All else.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The sizes of a tower's transformer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TowerSizes {
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub activation: Activation,
    pub eps: f64,
    /// Whether a token sees only those before it.
    pub causal: bool,
}

impl TowerSizes {
    fn validate(&self, tower: &str) -> Result<()> {
        let numbers = [
            ("hidden_size", self.hidden, 1 << 14),
            ("intermediate_size", self.intermediate, 1 << 16),
            ("num_hidden_layers", self.layers, 256),
            ("num_attention_heads", self.heads, self.hidden),
        ];
        within(tower, &numbers)?;
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(Error::Config(format!(
                "{tower}: num_attention_heads {} does not divide hidden_size {}",
                self.heads, self.hidden
            )));
        }
        if !self.eps.is_finite() || self.eps <= 0.0 {
            return Err(Error::Config(format!("{tower}: layer_norm_eps must be positive")));
        }
        Ok(())
    }
}

/// Every number must be from 1 to its limit.
pub(in crate::models) fn within(tower: &str, numbers: &[(&str, usize, usize)]) -> Result<()> {
    match numbers
        .iter()
        .find(|(_, value, limit)| *value == 0 || value > limit)
    {
        None => Ok(()),
        Some((name, value, limit)) => Err(Error::Config(format!(
            "{tower}: {name} is {value}: it must be from 1 to {limit}"
        ))),
    }
}

impl ClipTextConfig {
    pub(super) fn sizes(&self) -> TowerSizes {
        TowerSizes {
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            causal: true,
        }
    }
}

impl ModelConfig for ClipTextConfig {
    const CLASS: &'static str = "CLIPTextModel";
    const LIBRARY: &'static str = "transformers";

    fn validate(&self) -> Result<()> {
        let tower = "the text tower of CLIP";
        self.sizes().validate(tower)?;
        let numbers = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("projection_dim", self.projection_dim, 1 << 16),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 16),
        ];
        within(tower, &numbers)
    }

    /// That of a text encoder, or the text tower's within that of a whole CLIP.
    fn of_value(mut value: Value, path: &Path) -> Result<Self> {
        let own = match value.get_mut("text_config").map(Value::take) {
            None | Some(Value::Null) => value,
            Some(text) => text,
        };
        let config: Self = serde_json::from_value(own)
            .map_err(|e| Error::file(path, format!("is not the configuration of a text tower: {e}")))?;
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        Ok(config)
    }
}

impl ClipVisionConfig {
    pub(super) fn sizes(&self) -> TowerSizes {
        TowerSizes {
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
            causal: false,
        }
    }

    /// Patches along a side.
    pub(super) fn patches(&self) -> usize {
        self.image_size / self.patch_size
    }
}

impl ModelConfig for ClipVisionConfig {
    const CLASS: &'static str = "CLIPVisionModelWithProjection";
    const LIBRARY: &'static str = "transformers";

    fn validate(&self) -> Result<()> {
        let tower = "the picture tower of CLIP";
        self.sizes().validate(tower)?;
        let numbers = [
            ("projection_dim", self.projection_dim, 1 << 16),
            ("num_channels", self.num_channels, 64),
            ("image_size", self.image_size, 1 << 13),
            ("patch_size", self.patch_size, self.image_size),
        ];
        within(tower, &numbers)
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some([self.image_size; 2])
    }

    /// That of a picture encoder, or the picture tower's within that of a whole CLIP.
    fn of_value(mut value: Value, path: &Path) -> Result<Self> {
        let whole = value.get("projection_dim").cloned();
        let own = match value.get_mut("vision_config").map(Value::take) {
            None | Some(Value::Null) => value,
            Some(mut vision) => {
                // A whole CLIP says for both towers how wide their embeddings are.
                if let (Some(vision), Some(dim)) = (vision.as_object_mut(), whole) {
                    vision.insert("projection_dim".into(), dim);
                }
                vision
            }
        };
        let config: Self = serde_json::from_value(own)
            .map_err(|e| Error::file(path, format!("is not the configuration of a picture tower: {e}")))?;
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        Ok(config)
    }
}

impl ClipConfig {
    /// The dimension of both embeddings.
    pub fn embedding_dim(&self) -> usize {
        self.projection_dim.unwrap_or(512)
    }

    /// Checks both towers.
    ///
    /// # Errors
    /// If the numbers make no model.
    pub fn validate(&self) -> Result<()> {
        self.text_config.validate()?;
        self.vision_config.validate()?;
        within("CLIP", &[("projection_dim", self.embedding_dim(), 1 << 16)])
    }
}
