//! Whichever pipeline a folder holds.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::{
    Classes, DdimPipeline, DdpmPipeline, MODEL_INDEX, ModelIndex, SampleOptions, Sampling,
    inpainting::Inpainting,
    parts::{self, Parts},
    sampling::Draws,
};
use crate::{
    Error, Result,
    models::AnyModel,
    random::Generator,
    schedulers::{AnyScheduler, DDPMConfig, DDPMScheduler, Scheduler},
};

/// RePaint's steps where no number is asked for.
const INPAINTING_STEPS: usize = 50;

/// The pipeline of a folder, by the class that its `model_index.json` names. Mirrors `diffusers.DiffusionPipeline`.
#[allow(clippy::large_enum_variant, reason = "a program has one or two")]
#[derive(Clone, Debug)]
pub enum AnyPipeline {
    /// A `DDPMPipeline`.
    Ddpm(DdpmPipeline),
    /// A `DDIMPipeline`.
    Ddim(DdimPipeline),
}

impl AnyPipeline {
    /// The classes that are there, as a pipeline's index names them.
    pub const CLASSES: [&str; 2] = [DdpmPipeline::CLASS_NAME, DdimPipeline::CLASS_NAME];

    /// Loads a pipeline from its folder.
    ///
    /// # Errors
    /// If the folder holds no pipeline, or one of a class that is not there yet.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::load_variant(folder, None, device)
    }

    /// Loads a pipeline with a variant of its weights, such as `fp16`, see [`Checkpoint::variant_in`].
    ///
    /// # Errors
    /// As [`Self::load`], or if there is no such variant.
    ///
    /// [`Checkpoint::variant_in`]: crate::models::Checkpoint::variant_in
    pub fn load_variant(folder: impl AsRef<Path>, variant: Option<&str>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let index = ModelIndex::load(folder)?;
        let load = || Parts::load(folder, variant, device);
        match index.class_name.as_str() {
            DdpmPipeline::CLASS_NAME => load().map(|parts| Self::Ddpm(parts.into())),
            DdimPipeline::CLASS_NAME => load()?.try_into().map(Self::Ddim),
            other => Err(Error::Unsupported(format!(
                "{}: a {other} is not there yet; a {} and a {} are",
                folder.join(MODEL_INDEX).display(),
                DdpmPipeline::CLASS_NAME,
                DdimPipeline::CLASS_NAME
            ))),
        }
    }

    /// A pipeline of a model that has none, with a scheduler of diffusers' default configuration; `name` is `ddpm`,
    /// `DDPMScheduler` or any other of [`AnyScheduler::NAMES`].
    ///
    /// # Errors
    /// If there is no such scheduler.
    pub fn of_model(model: AnyModel, name: &str) -> Result<Self> {
        let scheduler = DDPMScheduler::new(DDPMConfig::default())?.into();
        let classes = None;
        Self::Ddpm(DdpmPipeline {
            model,
            scheduler,
            classes,
        })
        .with_scheduler(name)
    }

    /// The same model with another sampler on the same noise schedule; `name` is `ddim`, `DDIMScheduler` or any other
    /// of [`SamplerName::ALL`](crate::schedulers::SamplerName::ALL). With DDIM it becomes a DDIM pipeline, with any other
    /// a DDPM pipeline.
    ///
    /// # Errors
    /// If there is no such sampler, or it does not fit the model; the error says why.
    pub fn with_scheduler(self, name: &str) -> Result<Self> {
        let scheduler = self.scheduler().for_model(name)?;
        Ok(self.with(scheduler))
    }

    /// The same model with this scheduler.
    fn with(self, scheduler: AnyScheduler) -> Self {
        let (model, classes) = match self {
            Self::Ddpm(pipeline) => (pipeline.model, pipeline.classes),
            Self::Ddim(pipeline) => (pipeline.model, pipeline.classes),
        };
        match scheduler {
            AnyScheduler::DDIM(scheduler) => Self::Ddim(DdimPipeline {
                model,
                scheduler,
                classes,
            }),
            scheduler => Self::Ddpm(DdpmPipeline {
                model,
                scheduler,
                classes,
            }),
        }
    }

    /// The same model with DDIM run backwards: a loop that begins with a picture, by [`Sampling::starting_at`] step 0, ends with
    /// the latent from which [`Self::unbounded_ddim`] draws that picture again.
    ///
    /// ```no_run
    /// # fn main() -> langevin::Result<()> {
    /// # use langevin::{device::default_device, pipelines::{AnyPipeline, SampleOptions}, random::Generator};
    /// # let pipeline = AnyPipeline::load("my-model", &default_device())?;
    /// # let picture = burn::tensor::Tensor::<4>::zeros([1, 3, 32, 32], &default_device());
    /// let (inverse, ddim) = (pipeline.clone().inverse()?, pipeline.unbounded_ddim()?);
    /// let options = SampleOptions { num_inference_steps: Some(50), ..SampleOptions::default() };
    /// let mut unused = Generator::new(0);
    /// let latent = inverse.sample(&options, &mut unused)?.starting_at(picture, 0)?.finish()?;
    /// let again = ddim.sample(&options, &mut unused)?.starting_at(latent, 0)?.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If DDIM does not fit the model.
    pub fn inverse(self) -> Result<Self> {
        let scheduler = self.scheduler().for_pictures("ddim-inverse")?.unbounded()?;
        Ok(self.with(scheduler))
    }

    /// The same model with DDIM that leaves predicted clean pictures as they are: what clipping takes from them cannot be found
    /// again by going back.
    ///
    /// # Errors
    /// If DDIM does not fit the model.
    pub fn unbounded_ddim(self) -> Result<Self> {
        let scheduler = self.scheduler().for_model("ddim")?.unbounded()?;
        Ok(self.with(scheduler))
    }

    /// The denoiser.
    pub fn model(&self) -> &AnyModel {
        match self {
            Self::Ddpm(pipeline) => &pipeline.model,
            Self::Ddim(pipeline) => &pipeline.model,
        }
    }

    /// A copy of the scheduler.
    pub fn scheduler(&self) -> AnyScheduler {
        match self {
            Self::Ddpm(pipeline) => pipeline.scheduler.clone(),
            Self::Ddim(pipeline) => pipeline.scheduler.clone().into(),
        }
    }

    /// Names of the model's classes, where it has them and they are known.
    pub fn classes(&self) -> Option<&Classes> {
        match self {
            Self::Ddpm(pipeline) => pipeline.classes.as_ref(),
            Self::Ddim(pipeline) => pipeline.classes.as_ref(),
        }
    }

    /// The pipeline's class in diffusers.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Ddpm(_) => DdpmPipeline::CLASS_NAME,
            Self::Ddim(_) => DdimPipeline::CLASS_NAME,
        }
    }

    /// The steps of a call that names no number, see [`AnyScheduler::usual_steps`].
    pub fn default_steps(&self) -> usize {
        match self {
            Self::Ddpm(pipeline) => pipeline.default_steps(),
            Self::Ddim(pipeline) => pipeline.default_steps(),
        }
    }

    /// How many times a loop of `steps` steps asks the model; some samplers ask it more than once a step.
    ///
    /// # Errors
    /// If the scheduler has no such loop.
    pub fn calls(&self, steps: usize) -> Result<usize> {
        let mut scheduler = self.scheduler();
        scheduler.set_timesteps(steps)?;
        Ok(scheduler.timesteps().len())
    }

    /// Saves the pipeline as diffusers does, whole or not at all. Other files in the folder stay.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        match self {
            Self::Ddpm(pipeline) => pipeline.save(folder),
            Self::Ddim(pipeline) => pipeline.save(folder),
        }
    }

    /// Starts a sampling loop, see [`DdpmPipeline::sample`] and [`DdimPipeline::sample`].
    ///
    /// # Errors
    /// If the options do not fit the model or the scheduler.
    pub fn sample<'a>(
        &'a self,
        options: &SampleOptions,
        generator: &'a mut Generator,
    ) -> Result<Sampling<'a>> {
        match self {
            Self::Ddpm(pipeline) => pipeline.sample(options, generator),
            Self::Ddim(pipeline) => pipeline.sample(options, generator),
        }
    }

    /// Starts a sampling loop with another scheduler, which [`AnyScheduler::for_model`] makes, and a generator of the loop's own:
    /// what a program keeps that has many loops of one model under way.
    ///
    /// # Errors
    /// If the options do not fit the model or the scheduler.
    pub fn start(
        &self,
        scheduler: AnyScheduler,
        options: &SampleOptions,
        generator: Generator,
    ) -> Result<Sampling<'_>> {
        let steps = options
            .num_inference_steps
            .unwrap_or_else(|| scheduler.usual_steps());
        let (classes, generator) = (self.classes(), Draws::Owned(Box::new(generator)));
        parts::sample(
            self.model(),
            Box::new(scheduler),
            steps,
            classes,
            options,
            generator,
        )
    }

    /// Starts a loop of RePaint's (Lugmayr et al. 2022), which paints the unknown part of `picture` anew: a tensor of shape
    /// `[1 or batch, channels, height, width]` in -1..1. `mask`, `[1, 1, height, width]` or larger, is 1 where the picture is known.
    ///
    /// The loop jumps back towards the noise as diffusers' does by default, so it asks the model several times a step.
    ///
    /// # Errors
    /// If the options do not fit, or the picture or the mask is of another size than the model's.
    pub fn inpaint<'a>(
        &'a self,
        picture: Tensor<4>,
        mask: Tensor<4>,
        options: &SampleOptions,
        generator: &'a mut Generator,
    ) -> Result<Sampling<'a>> {
        let scheduler = Inpainting::new(&self.scheduler(), picture, mask)?;
        let steps = options
            .num_inference_steps
            .unwrap_or_else(|| self.scheduler().num_train_timesteps().min(INPAINTING_STEPS));
        let classes = self.classes();
        parts::sample(
            self.model(),
            Box::new(scheduler),
            steps,
            classes,
            options,
            Draws::Borrowed(generator),
        )
    }

    /// Draws pictures: `[batch, height, width, channels]` in 0..1.
    ///
    /// # Errors
    /// If the options do not fit, or a step fails.
    pub fn call(&self, options: &SampleOptions, generator: &mut Generator) -> Result<Tensor<4>> {
        match self {
            Self::Ddpm(pipeline) => pipeline.call(options, generator),
            Self::Ddim(pipeline) => pipeline.call(options, generator),
        }
    }
}
