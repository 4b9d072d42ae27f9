//! The picture tower of CLIP by itself, with its projection: what image variations are told of a picture.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::json;

use super::{config::ClipVisionConfig, vision::ClipVisionModel};
use crate::{
    Result,
    models::{Model, ModelConfig},
    nn::{Init, Linear},
    weights::{self, Checkpoint, FileNames, TRANSFORMERS},
};

/// A picture tower with its projection, as a pipeline's folder `image_encoder` holds it.
/// Mirrors `transformers.CLIPVisionModelWithProjection`; parameters have its names.
#[derive(Module, Debug)]
pub struct ClipVisionEncoder {
    /// The tower.
    pub vision_model: ClipVisionModel,
    /// Of the whole picture's vector, without bias.
    pub visual_projection: Linear,
}

impl Model for ClipVisionEncoder {
    type Config = ClipVisionConfig;
    const FILES: FileNames = TRANSFORMERS;

    fn build(config: &ClipVisionConfig, init: &mut Init<'_>) -> Result<Self> {
        Ok(Self {
            vision_model: ClipVisionModel::new(config, init),
            visual_projection: Linear::without_bias(config.hidden_size, config.projection_dim, init),
        })
    }

    fn config(&self) -> &ClipVisionConfig {
        self.vision_model.config()
    }

    fn written_config(&self) -> ClipVisionConfig {
        let mut config = self.config().clone();
        let unknown = &mut config.unknown;
        unknown.insert("architectures".into(), json!([ClipVisionConfig::CLASS]));
        unknown.insert("model_type".into(), json!("clip_vision_model"));
        config
    }

    /// The weights may be of a whole CLIP.
    fn with_weights(config: &ClipVisionConfig, checkpoint: &mut Checkpoint, device: &Device) -> Result<Self> {
        checkpoint.rename(key);
        config.validate()?;
        let model = Self::build(config, &mut Init::to_load(device))?;
        weights::load(model, checkpoint, device)
    }
}

impl ClipVisionEncoder {
    /// The pictures' embeddings, not normalised.
    ///
    /// # Shapes
    /// `[batch, channels, image_size, image_size]`, as [`ClipImageProcessor`](super::ClipImageProcessor) makes them →
    /// `[batch, projection_dim]`
    ///
    /// # Errors
    /// If the pictures have another shape.
    pub fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<2>> {
        Ok(self
            .visual_projection
            .forward(self.vision_model.forward(pictures)?))
    }
}

/// The name of a picture tower's tensor in this module; `None` for those that are of no use here.
fn key(name: &str) -> Option<String> {
    let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let ours = starts(&["vision_model.", "visual_projection."]);
    let bare = starts(&["embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm."]);
    match (name.ends_with("position_ids"), ours, bare) {
        (true, ..) | (_, false, false) => None,
        (_, true, _) => Some(name.to_string()),
        // As transformers leaves the text tower's prefix out since version 5.
        (_, _, true) => Some(format!("vision_model.{name}")),
    }
}
