//! `DDIMPipeline`: unconditional or class-conditional pictures in few steps.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::{
    SampleOptions, Sampling,
    classes::Classes,
    parts::{self, Parts},
    sampling::Draws,
    to_unit_range,
};
use crate::{
    Error, Result,
    models::AnyModel,
    random::Generator,
    schedulers::{AnyScheduler, DDIMScheduler, Scheduler},
};

/// Draws pictures with a UNet and a DDIM scheduler. Mirrors `diffusers.DDIMPipeline`.
#[derive(Clone, Debug)]
pub struct DdimPipeline {
    /// The denoiser.
    pub model: AnyModel,
    /// The noise schedule and the rule of its steps.
    pub scheduler: DDIMScheduler,
    /// Names of the model's classes, where it has them and they are known.
    pub classes: Option<Classes>,
}

impl DdimPipeline {
    /// The class's name in diffusers.
    pub const CLASS_NAME: &'static str = "DDIMPipeline";

    /// The steps of diffusers' call that names no number.
    pub const DEFAULT_STEPS: usize = 50;

    /// A pipeline of these parts. Any scheduler becomes a DDIM one with the same noise schedule.
    ///
    /// # Errors
    /// If the scheduler's configuration is not one that DDIM can have.
    pub fn new(model: AnyModel, scheduler: &AnyScheduler, classes: Option<Classes>) -> Result<Self> {
        Ok(Self {
            model,
            scheduler: DDIMScheduler::from_config(&scheduler.config()?)?,
            classes,
        })
    }

    /// Loads a pipeline of this or of any other class that has the same parts from its folder.
    ///
    /// # Errors
    /// If a file is missing or broken, or the parts are not those of such a pipeline.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Parts::load(folder.as_ref(), None, device)?.try_into()
    }

    /// Saves the pipeline as diffusers does, whole or not at all. Other files in the folder stay.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let scheduler = self.scheduler.clone().into();
        parts::save(
            folder.as_ref(),
            Self::CLASS_NAME,
            &self.model,
            &scheduler,
            self.classes.as_ref(),
        )
    }

    /// The steps of a call that names no number: [`Self::DEFAULT_STEPS`], or all that the schedule has if they are fewer.
    pub fn default_steps(&self) -> usize {
        Self::DEFAULT_STEPS.min(self.scheduler.num_train_timesteps())
    }

    /// Starts a sampling loop.
    ///
    /// `generator` is drawn from in the order of diffusers' call: the initial noise, then each step's where η is not 0.
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

impl TryFrom<Parts> for DdimPipeline {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self> {
        Self::new(parts.model, &parts.scheduler, parts.classes)
    }
}
