//! The models that are served, by the names that callers know them by.

use std::path::Path;

use langevin::{
    Error, Result, Size,
    conditioning::TextCondition,
    device::Device,
    pipelines::Pipeline,
    schedulers::{AnyScheduler, SamplerName},
};
use serde::Serialize;

/// The models of a server. The first is drawn from where a request names none.
#[derive(Debug, Default)]
pub struct Models {
    all: Vec<Model>,
}

impl Models {
    /// Loads the pipeline in `folder`, to be known as `name`.
    ///
    /// # Errors
    /// If there is none, it cannot be sampled from, or another model has that name.
    pub fn load(&mut self, name: &str, folder: impl AsRef<Path>, device: &Device) -> Result<()> {
        if name.is_empty() || self.find(name).is_some() {
            return Err(Error::Config(format!(
                "every model needs a name of its own, and `{name}` is none: give it one, as in my-name={}",
                folder.as_ref().display()
            )));
        }
        let pipeline = Pipeline::load(folder, device)?;
        let size = pipeline.size()?;
        self.all.push(Model {
            name: name.to_string(),
            samplers: samplers(&pipeline),
            pipeline,
            size,
        });
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of the model of this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|model| model.name == name)
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Model> {
        self.all.get(number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Model> {
        self.all.iter()
    }
}

/// A model with what requests are made into orders by.
#[derive(Debug)]
pub(crate) struct Model {
    pub name: String,
    pub pipeline: Pipeline,
    pub size: Size,
    /// Those that fit it.
    samplers: Vec<&'static SamplerName>,
}

/// The samplers that draw pictures with this model.
fn samplers(pipeline: &Pipeline) -> Vec<&'static SamplerName> {
    let fits = |sampler: &&SamplerName| pipeline.sampler(sampler.name).is_ok();
    SamplerName::ALL.iter().filter(fits).collect()
}

impl Model {
    /// The sampler of a name, or the model's own, with its name.
    pub fn sampler(&self, name: Option<&str>) -> Result<(String, AnyScheduler)> {
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

    /// What a caller may know of it.
    pub fn describe(&self, clip: bool) -> Description<'_> {
        let model = &self.pipeline.model;
        let config = model.config();
        let classes = self.pipeline.known_classes();
        let channels = self.pipeline.picture_channels();
        let colours = channels == 3;
        Description {
            name: &self.name,
            class_name: config.class_name(),
            parameters: self.pipeline.num_parameters(),
            height: self.size.height,
            width: self.size.width,
            channels,
            null_class: classes
                .as_ref()
                .is_some_and(|classes| classes.null_class.is_some()),
            classes: classes.map(|classes| classes.names),
            prompt: self.pipeline.condition::<TextCondition>().is_some(),
            conditioning_image: config.image_condition().map(|condition| condition.to_string()),
            vector: config.vector_dim().map(|numbers| VectorDescription {
                of: config.picture_vector().map(|vector| vector.to_string()),
                numbers,
            }),
            guides: [
                ("colour", colours),
                ("brightness", true),
                ("symmetry", true),
                ("clip", clip),
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
    parameters: usize,
    height: usize,
    width: usize,
    channels: usize,
    classes: Option<Vec<String>>,
    null_class: bool,
    prompt: bool,
    conditioning_image: Option<String>,
    vector: Option<VectorDescription>,
    guides: Vec<&'static str>,
    sampler: &'static str,
    samplers: Vec<SamplerDescription>,
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
