//! A model that is loaded, and what a caller may know of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use langevin::{
    Result, Size,
    codec::{Codec, Spectrogram},
    conditioning::{AttributesCondition, DistilledGuidance, SizeCondition, TextCondition, VectorCondition},
    device::Device,
    pipelines::{LentLora, LoadOptions, PictureUse, Pipeline, Usage},
    schedulers::{AnyScheduler, SamplerName, Scheduler},
    settings::addition_hash,
};
use serde::Serialize;

use crate::{controls::Controls, loras, options::ServerOptions, shelf::Kept};

/// A model with what requests are made into orders by.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) pipeline: Pipeline,
    pub(crate) size: Size,
    /// The LoRA that requests named of late.
    pub(crate) lent: Kept<LentLora>,
    /// The hashes of what was put on it as it was loaded.
    pub(crate) hashes: BTreeMap<PathBuf, String>,
    /// Those that fit it.
    samplers: Vec<&'static SamplerName>,
}

/// The samplers that draw pictures with this model.
fn samplers(pipeline: &Pipeline) -> Vec<&'static SamplerName> {
    let fits = |sampler: &&SamplerName| pipeline.sampler(sampler.name).is_ok();
    SamplerName::ALL.iter().filter(fits).collect()
}

/// What others know the LoRA and learned words on a pipeline by.
fn hashes(pipeline: &Pipeline) -> BTreeMap<PathBuf, String> {
    let loras = pipeline.loras().iter().map(|lora| (&lora.path, true));
    let words = pipeline.embeddings().iter().map(|word| (&word.path, false));
    let hash = |(path, is_lora): (&PathBuf, bool)| Some((path.clone(), addition_hash(path, is_lora).ok()?));
    loras.chain(words).filter_map(hash).collect()
}

impl Model {
    /// Loads the pipeline of a folder or of a single file.
    ///
    /// # Errors
    /// If there is none, or it cannot be sampled from.
    pub(crate) fn load(name: &str, path: &Path, options: &LoadOptions, device: &Device) -> Result<Self> {
        let pipeline = Pipeline::load_with(path, options, device)?;
        let size = pipeline.size()?;
        Ok(Self {
            name: name.to_string(),
            samplers: samplers(&pipeline),
            lent: Kept::new(loras::KEPT),
            hashes: hashes(&pipeline),
            pipeline,
            size,
        })
    }

    /// The sampler of a name, or the model's own, with its name.
    pub(crate) fn sampler(&self, name: Option<&str>) -> Result<(String, AnyScheduler)> {
        let own = &self.pipeline.scheduler;
        match name {
            Some(name) => Ok((name.to_string(), self.pipeline.sampler(name)?)),
            None => Ok((self.own_sampler().to_string(), own.clone())),
        }
    }

    /// The short name of the model's own sampler.
    fn own_sampler(&self) -> &'static str {
        let class_name = self.pipeline.scheduler.class_name();
        let named = SamplerName::ALL.iter().find(|s| s.class_name == class_name);
        named.map_or(class_name, |sampler| sampler.name)
    }

    /// Whether it paints in a picture, and in nothing else: it is shown the picture's known part.
    fn only_paints(&self) -> bool {
        let codec = self.pipeline.codec();
        let is_start = self.pipeline.class().picture_use() == PictureUse::Start;
        codec.is_latent() && is_start && self.pipeline.model.config().in_channels() != codec.channels()
    }

    /// What becomes of a picture to begin with, where it can.
    fn init_image(&self) -> Option<&'static str> {
        match self.pipeline.class().picture_use() {
            PictureUse::Start if self.only_paints() => None,
            PictureUse::Start => Some("start"),
            PictureUse::Edit => Some("edit"),
            PictureUse::Depth => Some("depth"),
            PictureUse::Variation => Some("variation"),
            PictureUse::Upscale => Some("upscale"),
        }
    }

    fn inpaints(&self) -> bool {
        self.pipeline.class().picture_use() == PictureUse::Start
    }

    fn draws_from_noise(&self) -> bool {
        self.pipeline.class().picture_use() == PictureUse::Start && !self.only_paints()
    }

    /// The names of its own ControlNets, and of those of a folder that are made for it.
    fn controls(&self, folder: Option<&Controls>) -> Vec<String> {
        let mut names: Vec<String> = self.pipeline.control_names().collect();
        for name in folder
            .into_iter()
            .flat_map(|folder| folder.for_pipeline(&self.pipeline))
        {
            if !names.iter().any(|own| own == name) {
                names.push(name.to_string());
            }
        }
        names
    }

    /// What a caller may know of it.
    pub(crate) fn describe<'a>(&'a self, options: &'a ServerOptions) -> Description<'a> {
        let model = &self.pipeline.model;
        let config = model.config();
        let classes = self.pipeline.known_classes();
        let channels = self.pipeline.picture_channels();
        let colours = channels == 3;
        let texts = self.pipeline.condition::<TextCondition>();
        let sizes = self.pipeline.condition::<SizeCondition>();
        let picture_use = self.pipeline.class().picture_use();
        Description {
            name: &self.name,
            class_name: config.class_name(),
            pipeline: self.pipeline.class().name,
            latent: self.pipeline.codec().is_latent(),
            parameters: self.pipeline.num_parameters(),
            height: self.size.height,
            width: self.size.width,
            divisor: self.pipeline.size_divisor(),
            channels,
            usual: UsualDescription::of(&self.pipeline),
            null_class: classes
                .as_ref()
                .is_some_and(|classes| classes.null_class.is_some()),
            classes: classes.map(|classes| classes.names),
            prompt: texts.is_some(),
            negative_prompt: texts.is_some() && self.pipeline.condition::<DistilledGuidance>().is_none(),
            prompt_2: texts.is_some_and(TextCondition::takes_second_texts),
            sizes: sizes.is_some(),
            scores: sizes.is_some_and(SizeCondition::takes_scores),
            init_image: self.init_image(),
            inpaint: self.inpaints(),
            needs_picture: !self.draws_from_noise(),
            depth: picture_use == PictureUse::Depth,
            sound: self.pipeline.mel().map(|mel| SoundDescription {
                sample_rate: mel.config().sample_rate,
                seconds: mel.seconds(self.size.width),
                low_first: mel.config().spectrogram == Spectrogram::Decibels,
            }),
            safety_checker: self.pipeline.safety().is_some(),
            controls: self.controls(options.controls.as_deref()),
            ip_adapters: match &options.ip_adapters {
                Some(adapters) => adapters.for_pipeline(&self.pipeline),
                None => Vec::new(),
            },
            loras: match &options.loras {
                Some(loras) => loras.for_pipeline(&self.pipeline),
                None => Vec::new(),
            },
            embeddings: texts.map(TextCondition::learned_words).unwrap_or_default(),
            conditioning_image: config.image_condition().map(|condition| condition.to_string()),
            vector: self
                .pipeline
                .condition()
                .map(|vector: &VectorCondition| VectorDescription {
                    of: vector.kind().map(|kind| kind.to_string()),
                    numbers: vector.dimension(),
                }),
            attributes: self
                .pipeline
                .condition()
                .map(|attributes: &AttributesCondition| attributes.names().to_vec()),
            guides: [
                ("colour", colours),
                ("brightness", true),
                ("symmetry", true),
                ("clip", options.clip.is_some()),
            ]
            .into_iter()
            .filter_map(|(guide, possible)| possible.then_some(guide))
            .collect(),
            sampler: self.own_sampler(),
            samplers: self
                .samplers
                .iter()
                .filter_map(|sampler| SamplerDescription::of(sampler, &self.pipeline))
                .collect(),
        }
    }
}

/// What `GET /api/models` says of a model.
#[derive(Debug, Serialize)]
pub(crate) struct Description<'a> {
    name: &'a str,
    class_name: &'static str,
    /// Its pipeline's class.
    pipeline: &'static str,
    /// Whether it denoises latents.
    latent: bool,
    parameters: usize,
    height: usize,
    width: usize,
    /// What sides are divisible by.
    divisor: usize,
    channels: usize,
    /// What its class does where nobody says; of pictures the sampler says.
    usual: Option<UsualDescription>,
    classes: Option<Vec<String>>,
    null_class: bool,
    prompt: bool,
    negative_prompt: bool,
    prompt_2: bool,
    /// Whether it is told sizes, as Stable Diffusion XL is.
    sizes: bool,
    /// Whether it is told aesthetic scores, as XL's refiner is.
    scores: bool,
    /// What becomes of a picture to begin with.
    init_image: Option<&'static str>,
    inpaint: bool,
    /// Whether it draws nothing from noise alone.
    needs_picture: bool,
    depth: bool,
    /// What it sounds like, where it draws sounds.
    sound: Option<SoundDescription>,
    safety_checker: bool,
    /// The ControlNets that a request may name.
    controls: Vec<String>,
    /// The IP-Adapters that it may name.
    ip_adapters: Vec<&'a str>,
    /// The LoRA that it may name.
    loras: Vec<&'a str>,
    /// The learned words that prompts may have.
    embeddings: Vec<&'a str>,
    conditioning_image: Option<String>,
    vector: Option<VectorDescription>,
    /// The names of the attributes that it knows.
    attributes: Option<Vec<String>>,
    guides: Vec<&'static str>,
    sampler: &'static str,
    samplers: Vec<SamplerDescription>,
}

/// What it says of requests that leave it open.
#[derive(Debug, Serialize)]
struct UsualDescription {
    draw: UsageDescription,
    picture: UsageDescription,
    inpaint: UsageDescription,
}

/// Of one use.
#[derive(Debug, Serialize)]
struct UsageDescription {
    steps: usize,
    guidance_scale: f64,
    strength: f64,
}

impl UsualDescription {
    fn of(pipeline: &Pipeline) -> Option<Self> {
        let latent = pipeline.class().latent?;
        let of = |usage: Usage| UsageDescription {
            steps: usage.steps.min(pipeline.scheduler.num_train_timesteps()),
            guidance_scale: usage.guidance_scale,
            strength: usage.strength,
        };
        Some(Self {
            draw: of(latent.draw),
            picture: of(latent.picture),
            inpaint: of(latent.inpaint),
        })
    }
}

/// Of the sounds that a model draws.
#[derive(Debug, Serialize)]
struct SoundDescription {
    sample_rate: u32,
    /// How long they are where nobody says.
    seconds: f64,
    /// Whether the first row of a picture is the lowest band.
    low_first: bool,
}

/// What it says of the vector that a model is told.
#[derive(Debug, Serialize)]
struct VectorDescription {
    /// What of a picture it is, where that is known: `colour` or `clip`.
    of: Option<String>,
    numbers: usize,
}

/// What it says of a sampler.
#[derive(Debug, Serialize)]
struct SamplerDescription {
    name: &'static str,
    about: String,
    steps: usize,
    eta: bool,
    stochastic: bool,
}

impl SamplerDescription {
    fn of(sampler: &SamplerName, pipeline: &Pipeline) -> Option<Self> {
        let scheduler = pipeline.sampler(sampler.name).ok()?;
        Some(Self {
            name: sampler.name,
            // The library's words are for a command line.
            about: sampler.about.replace("--eta", "eta"),
            steps: pipeline.steps_by(&scheduler),
            eta: scheduler.takes_eta(),
            stochastic: sampler.is_stochastic,
        })
    }
}
