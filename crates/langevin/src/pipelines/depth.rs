//! The estimator of depths that a pipeline comes with.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::feature_extractor::FeatureExtractor;
use crate::{
    Result,
    data::Picture,
    models::{Components, DptForDepthEstimation, Model, components},
};

/// The folder of its network.
const ESTIMATOR: &str = "depth_estimator";

/// An estimator of depths, and what it is shown of a picture. Mirrors `StableDiffusionDepth2ImgPipeline.prepare_depth_map` of diffusers.
#[derive(Clone, Debug)]
pub struct DepthEstimation {
    estimator: DptForDepthEstimation,
    processor: FeatureExtractor,
}

impl DepthEstimation {
    /// That of a pipeline, where it comes with one.
    ///
    /// # Errors
    /// If a part of it is missing or broken.
    pub(super) fn load(source: &dyn Components, device: &Device) -> Result<Option<Self>> {
        if !source.has(ESTIMATOR) {
            return Ok(None);
        }
        let what = "which shows pictures to its depth estimator; add the folder, or give the depths";
        // Before the weights are read.
        let processor = FeatureExtractor::load(source, what)?;
        Ok(Some(Self {
            estimator: components::load(source, ESTIMATOR, device)?,
            processor,
        }))
    }

    /// How near what the pictures show is.
    ///
    /// # Shapes
    /// `[pictures, 1, height, width]`, of the estimator's size
    ///
    /// # Errors
    /// If the pictures cannot be prepared.
    pub fn depths(&self, pictures: &[Picture]) -> Result<Tensor<4>> {
        let device = self.estimator.devices().into_iter().next().unwrap_or_default();
        self.estimator.forward(self.processor.forward(pictures, &device)?)
    }

    /// Writes its folders, and names them: name and class.
    pub(super) fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        self.estimator.save(folder.join(ESTIMATOR))?;
        let processor = self.processor.save(folder)?;
        Ok(vec![
            (ESTIMATOR, "DPTForDepthEstimation"),
            (processor, "DPTImageProcessor"),
        ])
    }

    /// How many parameters its network has.
    pub(super) fn num_parameters(&self) -> usize {
        self.estimator.num_params()
    }
}
