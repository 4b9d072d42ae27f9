//! How far what a picture shows is away: the estimator that Stable Diffusion 2's depth model comes with.

mod bit;
mod config;
mod neck;
mod vit;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::json;

pub use self::{
    bit::{
        BitBackbone, BitDownsample, BitEmbedder, BitEncoder, BitLayer, BitModel, BitStage, StandardizedConv,
    },
    config::{BitConfig, DptConfig, Readout},
    neck::{
        BatchNorm, DptHead, DptNeck, Enlarge, FusionLayer, FusionResidual, FusionStage, ReassembleLayer,
        ReassembleStage, Resize,
    },
    vit::{
        Dense, DptAttention, DptEmbeddings, DptEncoder, DptLayer, DptModel, DptPatchEmbeddings,
        DptSelfAttention,
    },
};
use super::{Model, ModelConfig};
use crate::{
    Result,
    nn::Init,
    weights::{self, Checkpoint, FileNames, TRANSFORMERS},
};

/// A transformer over patches, alone or behind a convolutional network, and what makes depths of its tokens
/// (Ranftl et al. 2021, "Vision Transformers for Dense Prediction").
/// Mirrors `transformers.DPTForDepthEstimation`; parameters have its names.
#[derive(Module, Debug)]
pub struct DptForDepthEstimation {
    /// The transformer.
    pub dpt: DptModel,
    /// One picture of features.
    pub neck: DptNeck,
    /// Depths.
    pub head: DptHead,
    #[module(skip)]
    config: DptConfig,
}

impl Model for DptForDepthEstimation {
    type Config = DptConfig;
    const FILES: FileNames = TRANSFORMERS;

    fn build(config: &DptConfig, init: &mut Init<'_>) -> Result<Self> {
        Ok(Self {
            dpt: DptModel::new(config, init)?,
            neck: DptNeck::new(config, init),
            head: DptHead::new(config, init),
            config: config.clone(),
        })
    }

    fn config(&self) -> &DptConfig {
        &self.config
    }

    fn written_config(&self) -> DptConfig {
        let mut config = self.config.clone();
        let unknown = &mut config.unknown;
        unknown.insert("architectures".into(), json!([DptConfig::CLASS]));
        unknown.insert("model_type".into(), json!("dpt"));
        config
    }

    fn with_weights(config: &DptConfig, checkpoint: &mut Checkpoint, device: &Device) -> Result<Self> {
        // A count of training's steps.
        checkpoint.rename(|name| (!name.ends_with("num_batches_tracked")).then(|| name.to_string()));
        config.validate()?;
        let model = Self::build(config, &mut Init::to_load(device))?;
        weights::load(model, checkpoint, device)
    }
}

impl DptForDepthEstimation {
    /// How near what the pictures show is, relative to the rest of the picture; not negative.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`, normalised →
    /// `[batch, 1, rows, columns]`, 16 times as many each way as there are patches in the usual configuration
    ///
    /// # Errors
    /// If the pictures have another shape than the model looks at.
    pub fn forward(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        let [_, _, height, width] = pictures.dims();
        let patch = self.config.patch_size;
        let x = pictures.permute([0, 2, 3, 1]);
        let (stages, tokens) = self.dpt.forward(x.clone(), &self.config)?;
        let features = self.neck.forward(stages, tokens, [height / patch, width / patch]);
        // There are at least three pictures to fuse.
        let depths = self.head.forward(features.unwrap_or(x));
        Ok(depths.permute([0, 3, 1, 2]))
    }
}
