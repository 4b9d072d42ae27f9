//! `DDPMPipeline`: unconditional or class-conditional pictures by ancestral sampling.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::{
    SampleOptions, Sampling,
    classes::Classes,
    parts::{self, Parts},
    sampling::Draws,
    to_unit_range,
};
use crate::{Result, models::AnyModel, random::Generator, schedulers::AnyScheduler};

/// Draws pictures with a UNet. Mirrors `diffusers.DDPMPipeline`.
///
/// The scheduler is usually a DDPM one, but diffusers takes any here, and so does this.
#[derive(Clone, Debug)]
pub struct DdpmPipeline {
    /// The denoiser.
    pub model: AnyModel,
    /// The noise schedule and the rule of its steps.
    pub scheduler: AnyScheduler,
    /// Names of the model's classes, where it has them and they are known.
    pub classes: Option<Classes>,
}

impl DdpmPipeline {
    /// The class's name in diffusers.
    pub const CLASS_NAME: &'static str = "DDPMPipeline";

    /// Loads a pipeline of this or of any other class that has the same parts from its folder.
    ///
    /// # Errors
    /// If a file is missing or broken, or the parts are not those of such a pipeline.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Parts::load(folder.as_ref(), None, device).map(Self::from)
    }

    /// Saves the pipeline as diffusers does, whole or not at all. Other files in the folder stay.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        parts::save(
            folder.as_ref(),
            Self::CLASS_NAME,
            &self.model,
            &self.scheduler,
            self.classes.as_ref(),
        )
    }

    /// The steps of a call that names no number, see [`AnyScheduler::usual_steps`]: diffusers' 1000 with a DDPM scheduler.
    pub fn default_steps(&self) -> usize {
        self.scheduler.usual_steps()
    }

    /// Starts a sampling loop.
    ///
    /// `generator` is drawn from in the order of diffusers' call: the initial noise, then each step's.
    ///
    /// # Errors
    /// If the options do not fit the model or the scheduler.
    pub fn sample<'a>(
        &'a self,
        options: &SampleOptions,
        generator: &'a mut Generator,
    ) -> Result<Sampling<'a>> {
        let steps = options
            .num_inference_steps
            .unwrap_or_else(|| self.default_steps());
        parts::sample(
            &self.model,
            Box::new(self.scheduler.clone()),
            steps,
            self.classes.as_ref(),
            options,
            Draws::Borrowed(generator),
        )
    }

    /// Draws pictures: `[batch, height, width, channels]` in 0..1.
    ///
    /// # Errors
    /// If the options do not fit, or a step fails.
    pub fn call(&self, options: &SampleOptions, generator: &mut Generator) -> Result<Tensor<4>> {
        self.sample(options, generator)?.finish().map(to_unit_range)
    }
}

impl From<Parts> for DdpmPipeline {
    fn from(parts: Parts) -> Self {
        Self {
            model: parts.model,
            scheduler: parts.scheduler,
            classes: parts.classes,
        }
    }
}
