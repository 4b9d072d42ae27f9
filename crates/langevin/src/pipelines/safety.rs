//! The safety checker that some pipelines come with: pictures that it flags are black.

use std::path::Path;

use burn::{module::Module, tensor::Device};
use serde_json::Value;

use crate::{
    Result,
    data::Picture,
    files,
    models::{ClipImageProcessor, Components, Model, SafetyChecker, components},
};

/// The folders of its parts.
const CHECKER: &str = "safety_checker";
const PROCESSOR: &str = "feature_extractor";
/// The file of a processor.
const PROCESSOR_CONFIG: &str = "preprocessor_config.json";

/// A checker, and what it is shown of a picture. Mirrors how diffusers' pipelines run `StableDiffusionSafetyChecker`.
#[derive(Clone, Debug)]
pub struct Safety {
    checker: SafetyChecker,
    processor: ClipImageProcessor,
    /// The processor's file as it was.
    processor_config: Value,
}

impl Safety {
    /// That of a pipeline, where it comes with one.
    ///
    /// # Errors
    /// If a part of it is missing or broken.
    pub(super) fn load(source: &dyn Components, device: &Device) -> Result<Option<Self>> {
        if !source.has(CHECKER) {
            return Ok(None);
        }
        if !source.has(PROCESSOR) {
            let what = "which shows pictures to its safety checker; leave the checker out, or add the folder";
            return Err(components::missing(source, PROCESSOR, what));
        }
        let folder = source.path().join(PROCESSOR);
        Ok(Some(Self {
            checker: components::load(source, CHECKER, device)?,
            processor: ClipImageProcessor::load(&folder)?,
            processor_config: files::read_json(folder.join(PROCESSOR_CONFIG))?,
        }))
    }

    /// Which pictures are flagged.
    ///
    /// # Errors
    /// If they cannot be prepared.
    pub fn flags(&self, pictures: &[Picture]) -> Result<Vec<bool>> {
        let device = self.checker.devices().into_iter().next().unwrap_or_default();
        self.checker.check(self.processor.forward(pictures, &device)?)
    }

    /// Writes its folders, and names them: name and class.
    pub(super) fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        self.checker.save(folder.join(CHECKER))?;
        files::write_json(
            folder.join(PROCESSOR).join(PROCESSOR_CONFIG),
            &self.processor_config,
        )?;
        Ok(vec![
            (CHECKER, "StableDiffusionSafetyChecker"),
            (PROCESSOR, "CLIPImageProcessor"),
        ])
    }

    /// How many parameters its network has.
    pub(super) fn num_parameters(&self) -> usize {
        self.checker.num_params()
    }
}
