//! The safety checker that some pipelines come with: pictures that it flags are black.

use std::path::Path;

use burn::{module::Module, tensor::Device};

use super::feature_extractor::FeatureExtractor;
use crate::{
    Result,
    data::Picture,
    models::{Components, Model, SafetyChecker, components},
};

/// The folder of its network.
const CHECKER: &str = "safety_checker";

/// A checker, and what it is shown of a picture. Mirrors how diffusers' pipelines run `StableDiffusionSafetyChecker`.
#[derive(Clone, Debug)]
pub struct Safety {
    checker: SafetyChecker,
    processor: FeatureExtractor,
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
        let what = "which shows pictures to its safety checker; leave the checker out, or add the folder";
        // Before the weights are read.
        let processor = FeatureExtractor::load(source, what)?;
        Ok(Some(Self {
            checker: components::load(source, CHECKER, device)?,
            processor,
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
        let processor = self.processor.save(folder)?;
        Ok(vec![
            (CHECKER, "StableDiffusionSafetyChecker"),
            (processor, "CLIPImageProcessor"),
        ])
    }

    /// How many parameters its network has.
    pub(super) fn num_parameters(&self) -> usize {
        self.checker.num_params()
    }
}
