//! What a pipeline's other networks are shown of a picture.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::Value;

use crate::{
    Result,
    data::Picture,
    files,
    models::{ClipImageProcessor, Components, components},
};

/// The folder and the file of a processor.
const FOLDER: &str = "feature_extractor";
const FILE: &str = "preprocessor_config.json";

/// The processor of a pipeline, with its file as it was.
#[derive(Clone, Debug)]
pub(super) struct FeatureExtractor {
    processor: ClipImageProcessor,
    config: Value,
}

impl FeatureExtractor {
    /// That of a pipeline; `what` says what it is there for, should it be missing.
    ///
    /// # Errors
    /// If it is missing or broken.
    pub(super) fn load(source: &dyn Components, what: &str) -> Result<Self> {
        if !source.has(FOLDER) {
            return Err(components::missing(source, FOLDER, what));
        }
        let folder = source.path().join(FOLDER);
        Ok(Self {
            processor: ClipImageProcessor::load(&folder)?,
            config: files::read_json(folder.join(FILE))?,
        })
    }

    /// Pictures as networks take them, `[pictures, 3, height, width]`.
    ///
    /// # Errors
    /// If they cannot be prepared.
    pub(super) fn forward(&self, pictures: &[Picture], device: &Device) -> Result<Tensor<4>> {
        self.processor.forward(pictures, device)
    }

    /// Writes its folder; its name.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn save(&self, folder: &Path) -> Result<&'static str> {
        files::write_json(folder.join(FOLDER).join(FILE), &self.config)?;
        Ok(FOLDER)
    }
}
