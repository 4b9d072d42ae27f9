//! A pipeline: a model with its scheduler and what else belongs to it. Load, save, call.

use std::{
    any::Any,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    DepthEstimation, FewSteps, LatentUsage, PictureUse, PipelineClass, Role, Safety, Sampling, folder,
    inpainting::Inpainting,
    sampling::{Draws, LoopDenoiser},
    source::PipelineSource,
    to_unit_range,
};
use crate::{
    Error, Result, Size,
    codec::{AnyCodec, Codec, Mel, Pixels},
    conditioning::{
        self, AnyCondition, Call, ClassCondition, Classes, Condition, EmbeddingFile, Pair, TextCondition,
    },
    guidance::{GuideMaker, Guided},
    models::{AnyControl, AnyControlConfig, AnyModel},
    ops,
    options::{ClassName, Lora, SampleOptions},
    random::Generator,
    schedulers::{AnyScheduler, DDPMConfig, DDPMScheduler, LoopOptions, Scheduler},
    weights::single_file::Kind,
};

/// DDIM's steps, and RePaint's, where no number is asked for: diffusers'.
pub const USUAL_DDIM_STEPS: usize = 50;

/// Latents have no bounds to clip them to.
const UNBOUNDED: (&str, Value) = ("clip_sample", Value::Bool(false));

/// A model, a scheduler, what the model is conditioned on, and what lies between pictures and its space.
///
/// Mirrors `diffusers.DiffusionPipeline`; which of its classes a pipeline is of follows from what it holds, see [`PipelineClass`].
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The denoiser.
    pub model: AnyModel,
    /// The noise schedule and the rule of its steps.
    pub scheduler: AnyScheduler,
    conditions: Vec<Arc<dyn Condition>>,
    codec: AnyCodec,
    /// `None` where it follows from the scheduler.
    class: Option<&'static PipelineClass>,
    settings: BTreeMap<String, Value>,
    low_resolution_scheduler: Option<AnyScheduler>,
    safety: Option<Arc<Safety>>,
    depth_estimation: Option<Arc<DepthEstimation>>,
    loras: Vec<Lora>,
    embeddings: Vec<EmbeddingFile>,
    controls: Vec<AnyControl>,
    few_steps: Option<FewSteps>,
    /// Whether it is a LoRA that makes it a model of a few steps.
    few_steps_by_lora: bool,
    is_single_file: bool,
    mel: Option<Mel>,
}

/// What is loaded of a pipeline's folder, and how.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A variant of the weights, such as `fp16`, see [`Checkpoint::variant_in`](crate::models::Checkpoint::variant_in).
    pub variant: Option<String>,
    /// What a single file is a checkpoint of, where it cannot tell.
    pub kind: Option<Kind>,
    /// Another autoencoder in place of the pipeline's own: its folder, or a file of it alone.
    pub codec: Option<PathBuf>,
    /// A tiny autoencoder for previews.
    pub preview_codec: Option<PathBuf>,
    /// Whether pictures are encoded and decoded in tiles wherever they are larger than one.
    pub tiled_codec: bool,
    /// Whether a safety checker that the pipeline comes with is left out.
    pub without_safety_checker: bool,
    /// Words that were learned as vectors, see [`TextCondition::with_embeddings`].
    pub embeddings: Vec<EmbeddingFile>,
    /// A folder of such files: those that are learned for text encoders like the pipeline's are learned, others passed over with a warning.
    pub embedding_folder: Option<PathBuf>,
    /// Whether an estimator of depths that the pipeline comes with is left out: where they are given.
    pub without_depth_estimator: bool,
    /// What is put on the weights of the model and its text encoders, in turn.
    pub loras: Vec<Lora>,
    /// Whether weights that they change have the type that they are stored in, as in a file, and not float32.
    pub rounded_loras: bool,
    /// What weights are held as.
    pub held: Held,
}

/// What the weights of a pipeline are held as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// As they are stored, where an operation takes them so.
    #[default]
    Stored,
    /// Float32 throughout, which what is trained must be.
    Float32,
    /// Rounded to bf16 where an operation takes them so: what is not trained, in half the memory.
    Bf16,
}

impl Pipeline {
    /// A pipeline of these parts; `classes` names the model's classes, where it has some.
    ///
    /// # Errors
    /// Never for a model that is built already; as the conditions of a folder are read.
    pub fn new(model: AnyModel, scheduler: AnyScheduler, classes: Option<Classes>) -> Result<Self> {
        let config = model.config();
        let mut conditions = conditioning::of_pipeline(&config, None, &model.device())?;
        if let (Some(known), Some(_)) = (config.num_class_embeds(), &classes) {
            conditions.retain(|condition| !is_class(condition));
            conditions.insert(0, Arc::new(ClassCondition::new(known, classes)));
        }
        Ok(Self::of_parts(model, scheduler, conditions))
    }

    /// A pipeline of a model that is conditioned so.
    pub(crate) fn of_parts(
        model: AnyModel,
        scheduler: AnyScheduler,
        conditions: Vec<Arc<dyn Condition>>,
    ) -> Self {
        let channels = model.config().in_channels();
        let codec = Pixels { channels }.into();
        Self {
            model,
            scheduler,
            conditions,
            codec,
            class: None,
            settings: BTreeMap::new(),
            low_resolution_scheduler: None,
            safety: None,
            depth_estimation: None,
            loras: Vec::new(),
            embeddings: Vec::new(),
            controls: Vec::new(),
            few_steps: None,
            few_steps_by_lora: false,
            is_single_file: false,
            mel: None,
        }
    }

    /// The same in the space of an autoencoder: of the class that diffusers has for such a model.
    ///
    /// # Errors
    /// If it is not the model's space.
    pub(crate) fn with_codec(self, codec: AnyCodec) -> Result<Self> {
        let name = match &self.model {
            AnyModel::DiT(_) => "DiTPipeline",
            AnyModel::Condition(_) if self.condition::<TextCondition>().is_some() => {
                "StableDiffusionPipeline"
            }
            _ => "LDMPipeline",
        };
        Self { codec, ..self }.with_class(name).for_latents()
    }

    /// The same for sounds, whose spectrograms the pictures are.
    ///
    /// # Errors
    /// If the pictures are in colour, or of another height than the spectrograms have bands.
    pub fn with_mel(self, mel: Mel) -> Result<Self> {
        let class = if self.codec.is_latent() {
            self.class()
        } else {
            PipelineClass::of_sounds()
        };
        let pipeline = Self {
            class: Some(class),
            mel: Some(mel),
            ..self
        };
        pipeline.check_mel().map(|()| pipeline)
    }

    fn check_mel(&self) -> Result<()> {
        let Some(mel) = &self.mel else { return Ok(()) };
        let bands = mel.config().y_res;
        let height = self.size().map_or(bands, |size| size.height);
        if height != bands {
            return Err(Error::Config(format!(
                "the model draws pictures that are {height} high, and the spectrograms have {bands} bands (`y_res`)"
            )));
        }
        match self.picture_channels() {
            1 => Ok(()),
            channels => Err(Error::Config(format!(
                "the model draws pictures of {channels} channels, and spectrograms have one"
            ))),
        }
    }

    /// What lies between its pictures and sounds, where it draws sounds.
    pub fn mel(&self) -> Option<&Mel> {
        self.mel.as_ref()
    }

    /// Loads a pipeline from its folder.
    ///
    /// # Errors
    /// If the folder holds no pipeline, or one of a class that is not there yet, or a file of it is missing or broken.
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
        let options = LoadOptions {
            variant: variant.map(str::to_owned),
            ..LoadOptions::default()
        };
        Self::load_with(folder, &options, device)
    }

    /// Loads a pipeline, or the part of it that is wanted.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions, device: &Device) -> Result<Self> {
        let mut source = PipelineSource::open(path.as_ref(), options.variant.as_deref(), options.kind)?;
        source.put_on(&options.loras)?;
        source.rounds = options.rounded_loras;
        source.held = options.held;
        source.check(options.codec.is_some())?;
        let class = source.class();
        let mut config = source.model_config()?;
        if class.latent.is_some() {
            config.mend_early_size();
        }
        let scheduler = source.scheduler(Role::Scheduler)?;
        // They are small, and say early what is wrong.
        let mut conditions = conditioning::of_pipeline(&config, Some(&source), device)?;
        if class.picture_use() == PictureUse::Upscale {
            // Its classes are noise levels.
            conditions.retain(|condition| !is_class(condition));
        }
        learn(&mut conditions, &options.embeddings)?;
        let mut embeddings = options.embeddings.clone();
        if let Some(folder) = &options.embedding_folder {
            embeddings.extend(learn_folder(&mut conditions, folder, &options.embeddings)?);
        }
        let codec = match (source.codec_name(), &options.codec) {
            (Some(_), Some(path)) => Some(AnyCodec::open(path, device)?),
            (None, Some(path)) => {
                return Err(Error::option(
                    &["codec"],
                    format!(
                        "{}: a {} denoises pictures themselves, and has no autoencoder",
                        path.display(),
                        class.name
                    ),
                ));
            }
            (Some(name), None) => Some(AnyCodec::load(&source, name, device)?),
            (None, None) => None,
        };
        let model = AnyModel::with_weights(&config, &mut source.model_weights()?, device)?;
        let mel = source.mel()?;
        let pipeline = Self {
            loras: options.loras.clone(),
            embeddings,
            class: mel.as_ref().map(|_| class),
            mel,
            ..Self::of_parts(model, scheduler, conditions)
        };
        let Some(codec) = codec else {
            return pipeline.check_mel().map(|()| pipeline);
        };
        let low_resolution_scheduler = match class.component(Role::LowResolutionScheduler) {
            Some(_) => Some(source.scheduler(Role::LowResolutionScheduler)?),
            None => None,
        };
        let safety = match options.without_safety_checker {
            true => None,
            false => {
                source.require("safety_checker")?;
                Safety::load(&source, device)?
            }
        };
        let depth_estimation =
            match options.without_depth_estimator || class.picture_use() != PictureUse::Depth {
                true => None,
                false => {
                    source.require("depth_estimator")?;
                    DepthEstimation::load(&source, device)?
                }
            };
        let codec = if options.tiled_codec { codec.tiled() } else { codec };
        let codec = match &options.preview_codec {
            Some(path) => codec.with_preview(AnyCodec::open(path, device)?)?,
            None => codec,
        };
        let controls = source.controls(device)?;
        for control in &controls {
            control
                .config()
                .check_fits(&config, codec.channels(), codec.factor())?;
        }
        Self {
            codec,
            controls,
            class: Some(class),
            settings: source.settings().clone(),
            low_resolution_scheduler,
            safety: safety.map(Arc::new),
            depth_estimation: depth_estimation.map(Arc::new),
            few_steps: FewSteps::of_name(path.as_ref())
                .or_else(|| options.loras.iter().find_map(FewSteps::of_lora)),
            few_steps_by_lora: FewSteps::of_name(path.as_ref()).is_none(),
            is_single_file: path.as_ref().is_file(),
            ..pipeline
        }
        .for_latents()?
        .for_few_steps()
    }

    /// The same with words that were learned as vectors, see [`TextCondition::with_embeddings`]. What was loaded with
    /// [`LoadOptions::embeddings`] has them already.
    ///
    /// # Errors
    /// As that, or if the model looks at no texts.
    pub fn with_embeddings(mut self, files: &[EmbeddingFile]) -> Result<Self> {
        learn(&mut self.conditions, files)?;
        self.embeddings.extend_from_slice(files);
        Ok(self)
    }

    /// The same with another model of its kind, and texts read so: while it is trained.
    pub(crate) fn with_parts(mut self, model: AnyModel, text: Option<TextCondition>) -> Self {
        self.model = model;
        if let Some(text) = text {
            put_text(&mut self.conditions, text);
        }
        self
    }

    /// The same as another class of diffusers' pipelines, with the same components.
    pub(crate) fn with_class(mut self, name: &str) -> Self {
        self.class = PipelineClass::named(name).or(self.class);
        self
    }

    /// A single file holds no scheduler, and a LoRA none for what it makes of a model: of a model of a few steps, it is the one that such
    /// models want.
    fn for_few_steps(mut self) -> Result<Self> {
        if let Some(few) = self.unsaid_few_steps() {
            self.scheduler = few.sampler(&self.scheduler)?.insisting(&[UNBOUNDED])?;
        }
        Ok(self)
    }

    /// The same as it is drawn with these LoRA too, one of which may make it a model of a few steps.
    pub(crate) fn quickened_by(mut self, loras: Vec<Lora>, few: Option<FewSteps>) -> Result<Self> {
        self.loras.extend(loras);
        if self.few_steps.is_some() || few.is_none() {
            return Ok(self);
        }
        (self.few_steps, self.few_steps_by_lora) = (few, true);
        self.for_few_steps()
    }

    /// What draws in a few steps where its scheduler and settings do not say so: a single file, which has none, or a LoRA on another model.
    pub(crate) fn unsaid_few_steps(&self) -> Option<FewSteps> {
        self.few_steps
            .filter(|_| self.is_single_file || self.few_steps_by_lora)
    }

    /// Whether a LoRA makes it a model of a few steps.
    pub(crate) fn is_quickened(&self) -> bool {
        self.few_steps.is_some() && self.few_steps_by_lora
    }

    /// Whether its name says that it was distilled to draw in a few steps.
    pub fn few_steps(&self) -> Option<FewSteps> {
        self.few_steps
    }

    /// With what diffusers' constructors set in a scheduler.
    fn for_latents(mut self) -> Result<Self> {
        let insists = self.class().latent.is_some_and(|latent| latent.insists_on_offset);
        let offset = insists.then(|| ("steps_offset", json!(1)));
        let unbounded = Some(UNBOUNDED).filter(|_| !self.clips());
        let settings: Vec<_> = offset.into_iter().chain(unbounded).collect();
        self.scheduler = self.scheduler.insisting(&settings)?;
        if self.codec.channels() > self.model.config().in_channels() {
            return Err(Error::Config(format!(
                "the autoencoder has latents of {} channels, and the model takes {}: they are not of one pipeline",
                self.codec.channels(),
                self.model.config().in_channels()
            )));
        }
        self.check_mel()?;
        Ok(self)
    }

    /// Whether predicted clean latents are clipped where the scheduler says so.
    fn clips(&self) -> bool {
        self.class().latent.is_some_and(|latent| latent.clips)
    }

    /// A pipeline of a model that has none, with a scheduler of diffusers' default configuration; `name` is `ddpm`,
    /// `DDPMScheduler` or any other of [`AnyScheduler::NAMES`].
    ///
    /// # Errors
    /// If there is no such scheduler.
    pub fn of_model(model: AnyModel, name: &str) -> Result<Self> {
        let scheduler = DDPMScheduler::new(DDPMConfig::default())?.into();
        Self::new(model, scheduler, None)?.with_scheduler(name)
    }

    /// The same model with another sampler on the same noise schedule; `name` is `ddim`, `DDIMScheduler` or any other
    /// of [`SamplerName::ALL`](crate::schedulers::SamplerName::ALL).
    ///
    /// # Errors
    /// If there is no such sampler, or it does not fit the model; the error says why.
    pub fn with_scheduler(self, name: &str) -> Result<Self> {
        let scheduler = self.sampler(name)?;
        Ok(Self { scheduler, ..self })
    }

    /// The sampler of this name on this pipeline's noise schedule.
    ///
    /// # Errors
    /// If there is no such sampler, or it does not fit the model.
    pub fn sampler(&self, name: &str) -> Result<AnyScheduler> {
        let scheduler = self.scheduler.for_model(name)?;
        if self.codec.is_latent() && !self.clips() {
            scheduler.insisting(&[UNBOUNDED])
        } else {
            Ok(scheduler)
        }
    }

    /// The same model with DDIM run backwards: a loop that begins with a picture, by [`Sampling::starting_at`] step 0, ends with
    /// the latent from which [`Self::unbounded_ddim`] draws that picture again.
    ///
    /// ```no_run
    /// # fn main() -> langevin::Result<()> {
    /// # use langevin::{device::default_device, pipelines::{Pipeline, SampleOptions}, random::Generator};
    /// # let pipeline = Pipeline::load("my-model", &default_device())?;
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
        let scheduler = self.scheduler.for_pictures("ddim-inverse")?.unbounded()?;
        Ok(Self { scheduler, ..self })
    }

    /// The same model with DDIM that leaves predicted clean pictures as they are: what clipping takes from them cannot be found
    /// again by going back.
    ///
    /// # Errors
    /// If DDIM does not fit the model.
    pub fn unbounded_ddim(self) -> Result<Self> {
        let scheduler = self.scheduler.for_model("ddim")?.unbounded()?;
        Ok(Self { scheduler, ..self })
    }

    /// The row of the class table that it is of.
    pub fn class(&self) -> &'static PipelineClass {
        self.class.unwrap_or_else(|| PipelineClass::of(&self.scheduler))
    }

    /// The same without what its pictures are checked by.
    pub(crate) fn without_safety(mut self) -> Self {
        self.safety = None;
        self
    }

    /// What its pictures are checked by, where it comes with a safety checker that was not left out.
    pub fn safety(&self) -> Option<&Safety> {
        self.safety.as_deref()
    }

    /// What estimates the depths of a picture, where it comes with such a part that was not left out.
    pub fn depth_estimation(&self) -> Option<&DepthEstimation> {
        self.depth_estimation.as_deref()
    }

    /// What was put on its weights as they were loaded.
    pub fn loras(&self) -> &[Lora] {
        &self.loras
    }

    /// The files of learned words that it was given.
    pub fn embeddings(&self) -> &[EmbeddingFile] {
        &self.embeddings
    }

    /// Its own ControlNets or T2I-Adapters.
    pub fn controls(&self) -> &[AnyControl] {
        &self.controls
    }

    /// What a request calls each of them: `controlnet`, `controlnet_1` and so on, or `adapter`, as their folders are called.
    pub fn control_names(&self) -> impl Iterator<Item = String> {
        let component = self.class().component(Role::Control);
        (0..self.controls.len()).filter_map(move |number| Some(folder::control_folder(component?, number)))
    }

    /// The same pipeline with ControlNets or T2I-Adapters of its own, in place of those that it has; it is saved with them, as the class of
    /// diffusers that has them.
    ///
    /// # Errors
    /// If one is made for another model, or diffusers has no such class.
    pub fn with_controls(self, controls: Vec<AnyControl>) -> Result<Self> {
        let mut class = self.class();
        for control in &controls {
            let config = control.config();
            self.check_control(&config)?;
            let with = self.class().with_controls(&config);
            let is_alike = controls
                .iter()
                .all(|other| other.config().class_name() == config.class_name());
            class = with.filter(|_| is_alike).ok_or_else(|| {
                let message = match is_alike {
                    true => format!(
                        "a {} cannot be given a {}",
                        self.class().name,
                        config.class_name()
                    ),
                    false => "a pipeline has ControlNets or T2I-Adapters of its own, and not both".into(),
                };
                Error::option(&["control"], message)
            })?;
        }
        Ok(Self {
            class: Some(class),
            controls,
            ..self
        })
    }

    /// Refuses a control that was made for another model.
    ///
    /// # Errors
    /// If it was.
    pub fn check_control(&self, control: &AnyControlConfig) -> Result<()> {
        control.check_fits(&self.model.config(), self.codec.channels(), self.codec.factor())
    }

    /// What calls do where nobody says, with controls or without; `None` where the pipeline denoises pictures.
    pub fn usage(&self, controlled: bool) -> Option<LatentUsage> {
        let class = self.class();
        match class
            .controlled
            .and_then(PipelineClass::named)
            .filter(|_| controlled)
        {
            Some(class) => class.latent,
            None => class.latent,
        }
    }

    /// The settings of its index, besides its components.
    pub fn settings(&self) -> &BTreeMap<String, Value> {
        &self.settings
    }

    /// The noise schedule of the small picture that an upscaling pipeline enlarges.
    pub fn low_resolution_scheduler(&self) -> Option<&AnyScheduler> {
        self.low_resolution_scheduler.as_ref()
    }

    /// The channels of its pictures.
    pub fn picture_channels(&self) -> usize {
        self.codec.picture_channels()
    }

    /// What lies between pictures and the space that the model denoises in.
    pub fn codec(&self) -> &AnyCodec {
        &self.codec
    }

    /// What the model is conditioned on.
    pub fn conditions(&self) -> &[Arc<dyn Condition>] {
        &self.conditions
    }

    /// The same without what encodes texts and the like, whose memory returns to the system: enough to draw plans that have been made.
    pub fn without_conditions(self) -> Self {
        let pipeline = Self {
            conditions: Vec::new(),
            depth_estimation: None,
            ..self
        };
        // What the encoders computed with.
        ops::trim();
        pipeline
    }

    /// How many parameters its networks have: the model's, the codec's, and those of its conditions.
    pub fn num_parameters(&self) -> usize {
        let conditions = self.conditions.iter().map(|condition| condition.num_parameters());
        let safety = self.safety.as_ref().map_or(0, |safety| safety.num_parameters());
        let depths = self.depth_estimation.as_ref();
        let depths = depths.map_or(0, |estimation| estimation.num_parameters());
        let controls = self.controls.iter().map(AnyControl::num_parameters);
        self.model.num_parameters()
            + self.codec.num_parameters()
            + conditions.sum::<usize>()
            + safety
            + depths
            + controls.sum::<usize>()
    }

    /// The condition of a kind, if the model has it.
    pub fn condition<K: Condition>(&self) -> Option<&K> {
        conditioning::find(&self.conditions)
    }

    /// Names of the model's classes, where it has them and they are known.
    pub fn classes(&self) -> Option<&Classes> {
        self.condition::<ClassCondition>()?.names()
    }

    /// The classes that can be asked for, with their names; those of a model from elsewhere, which has no names, are called by their
    /// numbers. `None` where the model is unconditional.
    pub fn known_classes(&self) -> Option<Classes> {
        self.condition::<ClassCondition>().map(ClassCondition::known)
    }

    /// The number of a class by its name or number.
    ///
    /// # Errors
    /// If the model knows no such class, or none at all.
    pub fn class_number(&self, class: &ClassName) -> Result<i64> {
        match self.condition::<ClassCondition>() {
            Some(condition) => condition.number(class),
            None => Err(ClassCondition::unconditional(class)),
        }
    }

    /// What brings pictures to the model's size, with no mask and no CLIP.
    ///
    /// # Errors
    /// If its configuration does not say how large its pictures are.
    pub fn guide_maker(&self) -> Result<GuideMaker> {
        Ok(GuideMaker {
            channels: self.picture_channels(),
            size: self.size()?,
            device: self.model.device(),
            mask: None,
            clip: None,
            cuts: 0,
        })
    }

    /// Every class that can be asked for but the null class, in order; none for an unconditional model.
    pub fn every_class(&self) -> Vec<ClassName> {
        let classes = self.known_classes().map_or(0, |classes| classes.names.len());
        (0..classes).map(ClassName::Number).collect()
    }

    /// The size of the pictures that the model is made for.
    ///
    /// # Errors
    /// If its configuration does not say.
    pub fn size(&self) -> Result<Size> {
        let size = self.model.config().sample_size().ok_or_else(|| {
            Error::Config(
                "the model's configuration has no `sample_size`, so it cannot be sampled from, and no picture can be brought to its \
                 size"
                    .into(),
            )
        })?;
        let [height, width] = size;
        let factor = self.codec.factor();
        Ok([height * factor, width * factor].into())
    }

    /// What height and width of its pictures must be divisible by.
    pub fn size_divisor(&self) -> usize {
        if self.codec.is_latent() {
            self.codec.factor()
        } else {
            self.model.config().size_divisor()
        }
    }

    /// The steps of a call that names no number, see [`AnyScheduler::usual_steps`]: diffusers' 1000 with a DDPM scheduler, and 50 with
    /// a DDIM one.
    pub fn default_steps(&self) -> usize {
        self.steps_by(&self.scheduler)
    }

    /// The same with another sampler: of a latent pipeline as many, as its class in diffusers has them.
    pub fn steps_by(&self, scheduler: &AnyScheduler) -> usize {
        match self.class().latent {
            Some(latent) => latent.draw.steps.min(scheduler.num_train_timesteps()),
            None => scheduler.usual_steps(),
        }
    }

    /// How many times a loop of `steps` steps asks the model; some samplers ask it more than once a step.
    ///
    /// # Errors
    /// If the scheduler has no such loop.
    pub fn calls(&self, steps: usize) -> Result<usize> {
        let mut scheduler = self.scheduler.clone();
        scheduler.set_timesteps(steps)?;
        Ok(scheduler.timesteps().len())
    }

    /// Saves the pipeline as diffusers does, whole or not at all. Other files in the folder stay.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        folder::save(self, folder.as_ref())
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
        self.begin(self.scheduler.clone(), options, generator.into())
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
        self.begin(scheduler, options, generator.into())
    }

    fn begin<'a>(
        &'a self,
        scheduler: AnyScheduler,
        options: &SampleOptions,
        generator: Draws<'a>,
    ) -> Result<Sampling<'a>> {
        let steps = options
            .num_inference_steps
            .unwrap_or_else(|| scheduler.usual_steps());
        let size = self.size()?;
        let pair = self.pair(options, size)?;
        let loop_options = LoopOptions::steps(steps);
        self.begin_with(Box::new(scheduler), &loop_options, size, options, pair, generator)
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
        let scheduler = Inpainting::new(&self.scheduler, picture, mask)?;
        let steps = options
            .num_inference_steps
            .unwrap_or_else(|| self.repaint_steps());
        let size = self.size()?;
        let pair = self.pair(options, size)?;
        let loop_options = LoopOptions::steps(steps);
        self.begin_with(
            Box::new(scheduler),
            &loop_options,
            size,
            options,
            pair,
            generator.into(),
        )
    }

    /// RePaint's steps where no number is asked for.
    pub(crate) fn repaint_steps(&self) -> usize {
        self.scheduler.num_train_timesteps().min(USUAL_DDIM_STEPS)
    }

    /// What the pictures of a call are drawn with: every condition, once; for who writes the loop by hand.
    ///
    /// # Errors
    /// If the call says what the model does not take, or does not say what it needs.
    pub fn pair(&self, options: &SampleOptions, size: Size) -> Result<Pair> {
        if options.batch_size == 0 {
            return Err(Error::Config("`batch_size` is 0; it must be at least 1".into()));
        }
        let call = Call {
            options,
            config: &self.model.config(),
            size,
            device: &self.model.device(),
        };
        conditioning::of_call(&self.conditions, &call)
    }

    /// Starts a loop with what `pair` says of its pictures: draws the initial noise as diffusers' pipelines do.
    pub(crate) fn begin_with<'a>(
        &'a self,
        scheduler: Box<dyn Scheduler + 'a>,
        loop_options: &LoopOptions,
        size: Size,
        options: &SampleOptions,
        pair: Pair,
        mut generator: Draws<'a>,
    ) -> Result<Sampling<'a>> {
        let noise = self.noise(options.batch_size, size, generator.get_mut());
        self.begin_from(scheduler, loop_options, noise, options, pair, generator)
    }

    /// The noise that `batch` pictures of a size begin with.
    pub(crate) fn noise(&self, batch: usize, size: Size, generator: &mut Generator) -> Tensor<4> {
        let [channels, height, width] = self.codec.latent_shape(size);
        generator.randn_tensor([batch, channels, height, width], &self.model.device())
    }

    /// Starts a loop from `noise`.
    pub(crate) fn begin_from<'a>(
        &'a self,
        mut scheduler: Box<dyn Scheduler + 'a>,
        loop_options: &LoopOptions,
        noise: Tensor<4>,
        options: &SampleOptions,
        pair: Pair,
        generator: Draws<'a>,
    ) -> Result<Sampling<'a>> {
        let guidance = options.guidance;
        let denoiser = if guidance.is_on() {
            let train_timesteps = scheduler.num_train_timesteps();
            let guided = Guided::new(&self.model as _, pair.away, guidance, train_timesteps)?;
            let guided = match (pair.between, options.image_guidance_scale) {
                (Some(between), Some(scale)) => guided.with_between(between, scale),
                _ => guided,
            };
            LoopDenoiser::Guided(Box::new(guided.with_parts(pair.parts)?))
        } else {
            LoopDenoiser::Shared(&self.model)
        };
        scheduler.set_loop(loop_options)?;
        let calls = scheduler.timesteps().len().div_ceil(scheduler.order());
        // What guidance pushes out of the pictures' range is clipped, and the noise has to follow. Latents have no such range: where a
        // scheduler bounds them all the same, noise is what was predicted, as diffusers has it.
        let clipped = options.use_clipped_model_output || guidance.is_on() && !self.codec.is_latent();
        let sampling = Sampling::start(denoiser, scheduler, noise, generator)
            .of_steps(loop_options.num_inference_steps.unwrap_or(calls))
            .with_conditioning(pair.towards)
            .with_turns(pair.turns)
            .with_step_options(options.eta, clipped);
        Ok(if self.codec.is_latent() {
            sampling.with_codec(&self.codec)
        } else {
            sampling
        })
    }

    /// Draws pictures: `[batch, height, width, channels]` in 0..1.
    ///
    /// # Errors
    /// If the options do not fit, or a step fails.
    pub fn call(&self, options: &SampleOptions, generator: &mut Generator) -> Result<Tensor<4>> {
        let samples = self.sample(options, generator)?.finish()?;
        self.codec.decode(samples).map(to_unit_range)
    }
}

/// Teaches words to the text condition among these.
fn learn(conditions: &mut [AnyCondition], files: &[EmbeddingFile]) -> Result<()> {
    let Some(first) = files.first() else {
        return Ok(());
    };
    let Some(text) = conditioning::find::<TextCondition>(conditions) else {
        return Err(Error::option(
            &["embedding"],
            format!("`embedding` {first} is for models that look at texts, and this one looks at none"),
        ));
    };
    let text = text.with_embeddings(files)?;
    put_text(conditions, text);
    Ok(())
}

/// Teaches the words in a folder to the text condition among these, if there is one: which files are learned.
/// Those that are known already are left out.
fn learn_folder(
    conditions: &mut [AnyCondition],
    folder: &Path,
    known: &[EmbeddingFile],
) -> Result<Vec<EmbeddingFile>> {
    let Some(text) = conditioning::find::<TextCondition>(conditions) else {
        return Ok(Vec::new());
    };
    let (text, learned, passed_over) = text.with_embeddings_in(folder, known)?;
    for why in passed_over {
        tracing::warn!("passed over: {why}");
    }
    put_text(conditions, text);
    Ok(learned)
}

/// Puts another text condition in the place of the one that is there.
fn put_text(conditions: &mut [AnyCondition], text: TextCondition) {
    let text: AnyCondition = Arc::new(text);
    let is_text = |condition: &&mut AnyCondition| (condition.as_ref() as &dyn Any).is::<TextCondition>();
    conditions
        .iter_mut()
        .filter(is_text)
        .for_each(|condition| *condition = text.clone());
}

fn is_class(condition: &Arc<dyn Condition>) -> bool {
    conditioning::find::<ClassCondition>(std::slice::from_ref(condition)).is_some()
}
