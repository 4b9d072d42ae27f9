//! Stable Diffusion's safety checker: whether a picture resembles what it should not show.

use std::path::Path;

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Model, ModelConfig,
    clip::{ClipVisionConfig, ClipVisionModel, unit},
};
use crate::{
    Error, Result,
    nn::{Init, Linear},
    weights::{self, Checkpoint, FileNames, TRANSFORMERS},
};

/// What a picture should not show.
const CONCEPTS: usize = 17;
/// What makes the checker look closer.
const SPECIAL_CONCEPTS: usize = 3;
/// How much closer.
const CLOSER: f32 = 0.01;

/// The configuration of a [`SafetyChecker`], with transformers' names; an unknown key is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SafetyCheckerConfig {
    /// Dimension of the embeddings that are compared.
    pub projection_dim: usize,
    /// Of the picture tower.
    pub vision_config: ClipVisionConfig,
    /// All else.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for SafetyCheckerConfig {
    fn default() -> Self {
        Self {
            projection_dim: 512,
            vision_config: ClipVisionConfig::default(),
            unknown: Map::new(),
        }
    }
}

impl ModelConfig for SafetyCheckerConfig {
    const CLASS: &'static str = "StableDiffusionSafetyChecker";
    const LIBRARY: &'static str = "stable_diffusion";

    fn validate(&self) -> Result<()> {
        if self.projection_dim == 0 || self.projection_dim > 1 << 16 {
            return Err(Error::Config(format!(
                "the safety checker: projection_dim is {}: it must be from 1 to {}",
                self.projection_dim,
                1 << 16
            )));
        }
        self.vision_config.validate()
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

/// Compares a picture's embedding with those of what it should not show.
/// Mirrors `diffusers.pipelines.stable_diffusion.safety_checker.StableDiffusionSafetyChecker`; parameters have its names.
#[derive(Module, Debug)]
pub struct SafetyChecker {
    /// CLIP's picture tower.
    pub vision_model: ClipVisionModel,
    /// Of the whole picture's vector, without bias.
    pub visual_projection: Linear,
    /// Of what a picture should not show, `[17, projection_dim]`.
    pub concept_embeds: Param<Tensor<2>>,
    /// Of what makes the checker look closer, `[3, projection_dim]`.
    pub special_care_embeds: Param<Tensor<2>>,
    /// How near a picture may come to each, `[17]`.
    pub concept_embeds_weights: Param<Tensor<1>>,
    /// The same of the other, `[3]`.
    pub special_care_embeds_weights: Param<Tensor<1>>,
    #[module(skip)]
    config: SafetyCheckerConfig,
}

impl Model for SafetyChecker {
    type Config = SafetyCheckerConfig;
    const FILES: FileNames = TRANSFORMERS;

    fn build(config: &SafetyCheckerConfig, init: &mut Init<'_>) -> Result<Self> {
        let (vision, dim) = (&config.vision_config, config.projection_dim);
        Ok(Self {
            vision_model: ClipVisionModel::new(vision, init),
            visual_projection: Linear::without_bias(vision.hidden_size, dim, init),
            concept_embeds: init.constant([CONCEPTS, dim], 1.0),
            special_care_embeds: init.constant([SPECIAL_CONCEPTS, dim], 1.0),
            concept_embeds_weights: init.constant([CONCEPTS], 1.0),
            special_care_embeds_weights: init.constant([SPECIAL_CONCEPTS], 1.0),
            config: config.clone(),
        })
    }

    fn config(&self) -> &SafetyCheckerConfig {
        &self.config
    }

    fn written_config(&self) -> SafetyCheckerConfig {
        let mut config = self.config.clone();
        let unknown = &mut config.unknown;
        unknown.insert("architectures".into(), json!([SafetyCheckerConfig::CLASS]));
        unknown.insert("model_type".into(), json!("clip"));
        config
    }

    fn with_weights(
        config: &SafetyCheckerConfig,
        checkpoint: &mut Checkpoint,
        device: &Device,
    ) -> Result<Self> {
        checkpoint.rename(key);
        config.validate()?;
        let model = Self::build(config, &mut Init::to_load(device))?;
        weights::load(model, checkpoint, device)
    }
}

impl SafetyChecker {
    /// Which pictures resemble what they should not show.
    ///
    /// # Shapes
    /// `[batch, channels, image_size, image_size]`, as [`ClipImageProcessor`](super::clip::ClipImageProcessor) makes them → one per picture
    ///
    /// # Errors
    /// If the pictures have another shape.
    pub fn check(&self, pictures: Tensor<4>) -> Result<Vec<bool>> {
        Ok(self.resemble(self.embed(pictures)?))
    }

    /// The pictures' embeddings, of length 1.
    ///
    /// # Shapes
    /// As [`Self::check`] → `[batch, projection_dim]`
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn embed(&self, pictures: Tensor<4>) -> Result<Tensor<2>> {
        Ok(unit(
            self.visual_projection
                .forward(self.vision_model.forward(pictures)?),
        ))
    }

    /// Which embeddings, of length 1, are too near to what they should not be.
    ///
    /// # Shapes
    /// `[batch, projection_dim]` → one per picture
    pub fn resemble(&self, embeddings: Tensor<2>) -> Vec<bool> {
        let special = nearness(&embeddings, &self.special_care_embeds);
        let concepts = nearness(&embeddings, &self.concept_embeds);
        let special_limits = values(self.special_care_embeds_weights.val());
        let limits = values(self.concept_embeds_weights.val());
        let rows = special
            .chunks_exact(SPECIAL_CONCEPTS)
            .zip(concepts.chunks_exact(CONCEPTS));
        rows.map(|(special, concepts)| {
            let closer = passes(special, &special_limits, 0.0);
            passes(concepts, &limits, if closer { CLOSER } else { 0.0 })
        })
        .collect()
    }
}

/// Cosines of the angles between embeddings and concepts, row by row.
fn nearness(embeddings: &Tensor<2>, concepts: &Param<Tensor<2>>) -> Vec<f32> {
    values(embeddings.clone().matmul(unit(concepts.val()).transpose()))
}

/// Whether one is over its limit, of which the third decimal is the last that counts.
fn passes(found: &[f32], limits: &[f32], adjustment: f32) -> bool {
    let over = |(found, limit): (&f32, &f32)| ((found - limit + adjustment) * 1000.0).round_ties_even() > 0.0;
    found.iter().zip(limits).any(over)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .unwrap_or_default()
}

/// The name of a checker's tensor in this module, for which early files have its tower's names twice; `None` for those that are of no use.
fn key(name: &str) -> Option<String> {
    let name = name
        .strip_prefix("vision_model.")
        .filter(|rest| rest.starts_with("vision_model."))
        .unwrap_or(name);
    (!name.ends_with("position_ids")).then(|| name.to_string())
}
