//! What a depth estimator is made of: transformers' `config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    models::{ModelConfig, clip::within},
    nn::Activation,
};

/// What sentences call it.
const WHAT: &str = "the depth estimator";

/// The first stages of the convolutional part, whose pictures go to the neck as they are.
pub(super) const EARLY_STAGES: usize = 2;

/// What the token of the whole picture does to those of its patches (Ranftl et al. 2021, sec. 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readout {
    /// Nothing.
    Ignore,
    /// It is added to each.
    Add,
    /// It stands beside each, and a linear layer makes one of the two.
    #[default]
    Project,
}

/// The configuration of a [`DptForDepthEstimation`](super::DptForDepthEstimation), with transformers' names and defaults; an unknown key
/// is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are transformers'.
pub struct DptConfig {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    pub image_size: usize,
    pub patch_size: usize,
    pub num_channels: usize,
    pub is_hybrid: bool,
    pub qkv_bias: bool,
    pub backbone_out_indices: Vec<usize>,
    pub readout_type: Readout,
    pub reassemble_factors: Vec<f64>,
    pub neck_hidden_sizes: Vec<usize>,
    pub fusion_hidden_size: usize,
    pub head_in_index: i64,
    pub use_batch_norm_in_fusion_residual: Option<bool>,
    pub use_bias_in_fusion_residual: Option<bool>,
    pub add_projection: bool,
    pub backbone_config: Option<BitConfig>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for DptConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            image_size: 384,
            patch_size: 16,
            num_channels: 3,
            is_hybrid: false,
            qkv_bias: true,
            backbone_out_indices: vec![2, 5, 8, 11],
            readout_type: Readout::Project,
            reassemble_factors: vec![4.0, 2.0, 1.0, 0.5],
            neck_hidden_sizes: vec![96, 192, 384, 768],
            fusion_hidden_size: 256,
            head_in_index: -1,
            use_batch_norm_in_fusion_residual: Some(false),
            use_bias_in_fusion_residual: None,
            add_projection: false,
            backbone_config: None,
            unknown: Map::new(),
        }
    }
}

/// The configuration of the convolutional network (Kolesnikov et al. 2020) that a hybrid estimator begins with. The defaults are those
/// that `DPTConfig` gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are transformers'.
pub struct BitConfig {
    pub model_type: String,
    pub num_channels: usize,
    pub embedding_size: usize,
    pub hidden_sizes: Vec<usize>,
    pub depths: Vec<usize>,
    pub layer_type: String,
    pub hidden_act: Activation,
    pub global_padding: Option<String>,
    pub num_groups: usize,
    pub embedding_dynamic_padding: bool,
    pub output_stride: usize,
    pub width_factor: usize,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for BitConfig {
    fn default() -> Self {
        Self {
            model_type: "bit".into(),
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024],
            depths: vec![3, 4, 9],
            layer_type: "bottleneck".into(),
            hidden_act: Activation::Relu,
            global_padding: Some("same".into()),
            num_groups: 32,
            embedding_dynamic_padding: true,
            output_stride: 32,
            width_factor: 1,
            unknown: Map::new(),
        }
    }
}

fn refused(message: impl std::fmt::Display) -> Error {
    Error::Config(format!("{WHAT}: {message}"))
}

fn unsupported(message: impl std::fmt::Display) -> Error {
    Error::Unsupported(format!("{WHAT}: {message}"))
}

impl BitConfig {
    /// Three stages, which have the pictures at a quarter, an eighth and a sixteenth of their size.
    const STAGES: usize = 3;

    fn validate(&self) -> Result<()> {
        if self.model_type != "bit" {
            return Err(unsupported(format!(
                "a backbone of the kind {} is not there yet; bit is",
                self.model_type
            )));
        }
        let same = |padding: &String| padding.eq_ignore_ascii_case("same");
        if self.layer_type != "bottleneck" || !self.global_padding.as_ref().is_some_and(same) {
            return Err(unsupported(
                "a backbone with other than bottleneck layers and `same` padding is not there yet",
            ));
        }
        if !self.embedding_dynamic_padding || self.width_factor != 1 || self.output_stride < 16 {
            return Err(unsupported(
                "a backbone that does not pad its embedding, is widened, or has an output_stride below 16 is not there yet",
            ));
        }
        if [self.hidden_sizes.len(), self.depths.len()] != [Self::STAGES; 2] {
            return Err(refused(format!(
                "the backbone must have {} stages, with as many hidden_sizes as depths",
                Self::STAGES
            )));
        }
        let each = |name, values: &[usize], limit| -> Vec<_> {
            values.iter().map(|value| (name, *value, limit)).collect()
        };
        let mut numbers = vec![
            ("num_channels", self.num_channels, 64),
            ("embedding_size", self.embedding_size, 1 << 14),
            ("num_groups", self.num_groups, 1 << 14),
        ];
        numbers.extend(each("hidden_sizes", &self.hidden_sizes, 1 << 14));
        numbers.extend(each("depths", &self.depths, 64));
        within(WHAT, &numbers)
    }
}

impl DptConfig {
    /// The convolutional part, where there is one.
    pub(super) fn backbone(&self) -> Option<BitConfig> {
        self.is_hybrid
            .then(|| self.backbone_config.clone().unwrap_or_default())
    }

    /// Patches along a side.
    pub(super) fn patches(&self) -> usize {
        self.image_size / self.patch_size
    }

    pub(super) fn has_batch_norm(&self) -> bool {
        self.use_batch_norm_in_fusion_residual.unwrap_or(false)
    }

    pub(super) fn has_fusion_bias(&self) -> bool {
        self.use_bias_in_fusion_residual.unwrap_or(!self.has_batch_norm())
    }

    /// Whether the neck's part of this number has tokens to bring into the shape of a picture.
    pub(super) fn reassembles(&self, number: usize) -> bool {
        !self.is_hybrid || number >= EARLY_STAGES
    }

    /// The layers of the transformer whose tokens the neck is given.
    pub(super) fn layers(&self) -> &[usize] {
        let early = if self.is_hybrid { EARLY_STAGES } else { 0 };
        self.backbone_out_indices.get(early..).unwrap_or_default()
    }

    fn check_neck(&self) -> Result<()> {
        let parts = self.neck_hidden_sizes.len();
        if !(EARLY_STAGES + 1..=16).contains(&parts)
            || [self.reassemble_factors.len(), self.backbone_out_indices.len()] != [parts; 2]
        {
            return Err(refused(
                "neck_hidden_sizes, reassemble_factors and backbone_out_indices must be as many as each other, from 3 to 16",
            ));
        }
        if self.layers().windows(2).any(|pair| pair[0] >= pair[1])
            || self.layers().iter().any(|layer| *layer >= self.num_hidden_layers)
        {
            return Err(refused(format!(
                "backbone_out_indices must rise, and be below the {} layers",
                self.num_hidden_layers
            )));
        }
        let factor = |factor: &f64| {
            let whole = |x: f64| x.fract() == 0.0 && (1.0..=16.0).contains(&x);
            whole(*factor) || whole(1.0 / factor)
        };
        if !self.reassemble_factors.iter().all(factor) {
            return Err(refused(
                "reassemble_factors must be whole numbers to 16, or one divided by such a number",
            ));
        }
        if self.head_in_index != -1 && self.head_in_index != parts as i64 - 1 {
            return Err(unsupported(
                "a head_in_index that is not the last is not there yet",
            ));
        }
        match self.backbone() {
            Some(backbone) => self.check_backbone(&backbone),
            None if self.backbone_config.is_some() => Err(unsupported(
                "one with a backbone that is not hybrid is not there yet",
            )),
            None => Ok(()),
        }
    }

    fn check_backbone(&self, backbone: &BitConfig) -> Result<()> {
        backbone.validate()?;
        let fits = self.readout_type == Readout::Project
            && self.patch_size == 16
            && self.num_channels == backbone.num_channels
            && self.neck_hidden_sizes[..EARLY_STAGES] == backbone.hidden_sizes[..EARLY_STAGES];
        if fits {
            return Ok(());
        }
        Err(refused(
            "a hybrid one has readout_type project and patch_size 16, and the first two neck_hidden_sizes are its backbone's",
        ))
    }
}

impl ModelConfig for DptConfig {
    const CLASS: &'static str = "DPTForDepthEstimation";
    const LIBRARY: &'static str = "transformers";

    fn validate(&self) -> Result<()> {
        let mut numbers = vec![
            ("hidden_size", self.hidden_size, 1 << 14),
            ("num_hidden_layers", self.num_hidden_layers, 256),
            ("num_attention_heads", self.num_attention_heads, self.hidden_size),
            ("intermediate_size", self.intermediate_size, 1 << 16),
            ("image_size", self.image_size, 1 << 13),
            ("patch_size", self.patch_size, self.image_size),
            ("num_channels", self.num_channels, 64),
            ("fusion_hidden_size", self.fusion_hidden_size, 1 << 14),
        ];
        numbers.extend(
            self.neck_hidden_sizes
                .iter()
                .map(|size| ("neck_hidden_sizes", *size, 1 << 14)),
        );
        within(WHAT, &numbers)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(refused(format!(
                "num_attention_heads {} does not divide hidden_size {}",
                self.num_attention_heads, self.hidden_size
            )));
        }
        if self.fusion_hidden_size < 2 || self.add_projection && self.fusion_hidden_size != 256 {
            return Err(refused(format!(
                "fusion_hidden_size is {}: it must be at least 2, and 256 with add_projection",
                self.fusion_hidden_size
            )));
        }
        if !self.layer_norm_eps.is_finite() || self.layer_norm_eps <= 0.0 {
            return Err(refused("layer_norm_eps must be positive"));
        }
        self.check_neck()
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some([self.image_size; 2])
    }

    fn of_value(value: Value, path: &Path) -> Result<Self> {
        let config: Self = serde_json::from_value(value).map_err(|e| {
            Error::file(
                path,
                format!("is not the configuration of a {}: {e}", Self::CLASS),
            )
        })?;
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        Ok(config)
    }
}
