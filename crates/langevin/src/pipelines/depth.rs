//! The estimator of depths that a pipeline comes with.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::Value;

use crate::{
    Result,
    data::Picture,
    files,
    models::{ClipImageProcessor, Components, DptForDepthEstimation, Model, components},
};

/// The folders of its parts.
const ESTIMATOR: &str = "depth_estimator";
const PROCESSOR: &str = "feature_extractor";
/// The file of a processor.
const PROCESSOR_CONFIG: &str = "preprocessor_config.json";

/// An estimator of depths, and what it is shown of a picture. Mirrors `StableDiffusionDepth2ImgPipeline.prepare_depth_map` of diffusers.
#[derive(Clone, Debug)]
pub struct DepthEstimation {
    estimator: DptForDepthEstimation,
    processor: ClipImageProcessor,
    /// The processor's file as it was.
    processor_config: Value,
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
        if !source.has(PROCESSOR) {
            let what = "which shows pictures to its depth estimator; add the folder, or give the depths";
            return Err(components::missing(source, PROCESSOR, what));
        }
        let folder = source.path().join(PROCESSOR);
        Ok(Some(Self {
            estimator: components::load(source, ESTIMATOR, device)?,
            processor: ClipImageProcessor::load(&folder)?,
            processor_config: files::read_json(folder.join(PROCESSOR_CONFIG))?,
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
        files::write_json(
            folder.join(PROCESSOR).join(PROCESSOR_CONFIG),
            &self.processor_config,
        )?;
        Ok(vec![
            (ESTIMATOR, "DPTForDepthEstimation"),
            (PROCESSOR, "DPTImageProcessor"),
        ])
    }

    /// How many parameters its network has.
    pub(super) fn num_parameters(&self) -> usize {
        self.estimator.num_params()
    }
}
