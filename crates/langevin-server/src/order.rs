//! What a request means: everything in it checked against the model and the limits, before it waits.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, sync::Arc};

use axum::http::StatusCode;
use langevin::{
    Request, Size,
    generate::{Aids, Plan, Sounding},
    pipelines::Sampling,
    settings::ModelName,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    bounds, controls, ip_adapters, loras,
    model::Model,
    models::{Lease, Models},
    options::ServerOptions,
    pictures,
    refusal::Refusal,
    request::GenerateRequest,
};

/// Moments of the denoising that are shown where nobody says.
const USUAL_PREVIEWS: usize = 24;

/// Pictures to be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The model's number.
    pub(crate) number: usize,
    /// The model, which stays in memory until the order is done.
    pub(crate) model: Lease,
    pub(crate) plan: Plan,
    /// What makes sounds of its pictures, where these are spectrograms.
    pub(crate) sounding: Option<Sounding>,
    pub(crate) count: usize,
    pub(crate) size: Size,
    /// The classes that the pictures take turns in; none for an unconditional model.
    classes: Vec<i64>,
    /// What others know the LoRA and learned words by that it is drawn with, by their files.
    hashes: BTreeMap<PathBuf, String>,
    pub(crate) previews: usize,
    /// The room in memory that its pictures take while it waits and is drawn.
    _kept: Option<Arc<OwnedSemaphorePermit>>,
}

/// A request on its way to an order: each step is bounded by the one before.
#[derive(Debug)]
pub(crate) struct Asked {
    number: usize,
    model: Lease,
    request: Request,
    count: usize,
    previews: usize,
    kept: Option<Arc<OwnedSemaphorePermit>>,
}

/// When those may try again whose pictures there was no room for.
const FEW_SECONDS: u64 = 5;

/// Mebibytes, of which the last may not be full.
fn mebibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

impl Asked {
    /// Holds what a request says to what its model can be.
    ///
    /// # Errors
    /// If it asks for more, or for a sampler or a guide that is not there.
    pub(crate) fn of(
        asked: GenerateRequest,
        number: usize,
        model: Lease,
        options: &ServerOptions,
    ) -> Result<Self, Refusal> {
        let mut request = asked.request;
        // So that a sampler that is not there is found out before the rest.
        let sampler = model.sampler(request.scheduler.as_deref());
        sampler.map_err(|error| Refusal::from(error).or_field(std::iter::empty(), "scheduler"))?;
        let count = request.count.unwrap_or(1);
        bounds::check_size(&request, &model, options)?;
        check_guides(&request, options)?;
        request.count = Some(count);
        Ok(Self {
            number,
            model,
            request,
            count,
            previews: asked.previews.unwrap_or(USUAL_PREVIEWS),
            kept: None,
        })
    }

    /// Whether there are pictures in it.
    pub(crate) fn has_pictures(&mut self) -> bool {
        self.request.images_mut().next().is_some() || self.request.sound.sounds_mut().next().is_some()
    }

    /// Decodes its pictures, which is work for a thread that may block.
    ///
    /// # Errors
    /// If one is none, or they are larger than the limits.
    pub(crate) fn decode(&mut self, options: &ServerOptions, kept: &Arc<Semaphore>) -> Result<(), Refusal> {
        let bytes = pictures::decode(&mut self.request, options)?;
        bounds::check_begun(&self.request, &self.model, options)?;
        let kept = kept.clone().try_acquire_many_owned(mebibytes(bytes));
        let kept = kept.map_err(|_| {
            let message = "the pictures of requests that wait take as much memory as they may: try again in a few seconds";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(FEW_SECONDS)
        })?;
        self.kept = Some(Arc::new(kept));
        Ok(())
    }

    /// What it means for its model. This encodes texts and begins a loop, so it is work for a thread that may block.
    ///
    /// # Errors
    /// If it asks for what the model cannot do.
    pub(crate) fn order(self, options: &ServerOptions, models: &Models) -> Result<Order, Refusal> {
        let Self {
            number,
            model,
            mut request,
            count,
            previews,
            kept,
        } = self;
        bounds::check_drawn(&request, count, &model, options)?;
        if request.class.is_empty() {
            request.class = model.pipeline.every_class();
        }
        request.cuts = options.cuts;
        let classes = request
            .class
            .iter()
            .map(|class| model.pipeline.class_number(class));
        let classes = classes.collect::<langevin::Result<_>>();
        let classes = classes.map_err(|error| Refusal::from(error).or_field(std::iter::empty(), "class"))?;
        if let Some(class) = &request.negative_class {
            let known = model.pipeline.class_number(class);
            known.map_err(|error| Refusal::from(error).or_field(std::iter::empty(), "negative_class"))?;
        }
        request.take_lora_tags()?;
        if request.loras.len() > loras::KEPT {
            return Err(bounds::too_many("loras", request.loras.len(), loras::KEPT));
        }
        // What cannot be begun is refused now and not when its turn has come.
        let short = RefCell::new(None);
        let room = |bytes: u64, what: &str| {
            models.room_beside(bytes, what).map_err(|refusal| {
                short.replace(Some(refusal));
                langevin::Error::Config("there is no room".into())
            })
        };
        let load_control = |name: &str| match &options.controls {
            Some(controls) => controls.get(name, &room),
            None => Err(controls::unknown(name)),
        };
        let load_ip_adapter = |name: &str| match &options.ip_adapters {
            Some(adapters) => adapters.get(name, &room),
            None => Err(ip_adapters::unknown(name)),
        };
        let load_lora = |name: &str| match &options.loras {
            Some(loras) => loras.get(name, &model.pipeline, &model.lent, &room),
            None => Err(loras::unknown(name)),
        };
        let aids = Aids {
            clip: options.clip.clone(),
            controls: &load_control,
            ip_adapters: &load_ip_adapter,
            loras: &load_lora,
        };
        let plan = Plan::with(&model.pipeline, &request, aids)
            .map_err(|error| short.take().unwrap_or_else(|| Refusal::from(error)))?;
        // Where nobody said how many, the model's class or the sampler did.
        if plan.steps() > options.limits.steps {
            return Err(Refusal::beyond(
                "steps",
                plan.steps(),
                options.limits.steps as u64,
            ));
        }
        Ok(Order {
            number,
            sounding: plan.sounding(&model.pipeline)?,
            plan,
            count,
            size: bounds::drawn(&request, &model),
            hashes: hashes(&request, &model, options),
            classes,
            previews,
            model,
            _kept: kept,
        })
    }
}

impl Order {
    /// The loop that draws picture `number` of the order, with a generator of its own.
    pub(crate) fn start<'m>(&self, model: &'m Model, number: usize) -> langevin::Result<Sampling<'m>> {
        self.plan.picture(&model.pipeline, number)
    }

    /// The seed of a picture of the order.
    pub(crate) fn seed_of(&self, number: usize) -> u64 {
        self.plan.seed_of(number)
    }

    /// The name of a picture's class.
    pub(crate) fn class_name(&self, model: &Model, number: usize) -> Option<String> {
        let class = *self.classes.get(number % self.classes.len().max(1))?;
        let class = usize::try_from(class).ok()?;
        let classes = model.pipeline.known_classes()?;
        let is_null = classes.null_class == Some(class);
        classes
            .names
            .get(class)
            .cloned()
            .or_else(|| is_null.then(|| "none".into()))
    }

    /// What the file of a picture says about how it was drawn.
    pub(crate) fn texts(&self, model: &Model, number: usize) -> Vec<(&'static str, String)> {
        let mut texts = self.plan.facts(&model.name, Some(number));
        let name = ModelName {
            without_folders: true,
            hashes: self.hashes.clone(),
            ..ModelName::of(&model.name)
        };
        texts.extend(self.plan.settings(&name, Some(number)));
        if let Some(class) = self.class_name(model, number) {
            texts.push(("class", class));
        }
        texts
    }
}

/// The hashes of what a request is drawn with; none where pictures do not say.
fn hashes(request: &Request, model: &Model, options: &ServerOptions) -> BTreeMap<PathBuf, String> {
    if options.no_metadata {
        return BTreeMap::new();
    }
    let mut hashes = model.hashes.clone();
    if let Some(loras) = &options.loras {
        hashes.extend(request.loras.iter().filter_map(|lora| loras.hash(&lora.name)));
    }
    hashes
}

/// Refuses guides that name a file of this machine, or need what the server was not started with.
fn check_guides(request: &Request, options: &ServerOptions) -> Result<(), Refusal> {
    for guide in &request.guide {
        if guide.names_a_file() {
            let message = format!(
                "`{guide}` names a file, and a request may not; colour, brightness, symmetry and clip can guide here"
            );
            return Err(Refusal::unprocessable(message).with_field("guide"));
        }
        if guide.needs_clip() && options.clip.is_none() {
            let message = format!("`{guide}` needs CLIP, which this server was not started with (--clip)");
            return Err(Refusal::unprocessable(message).with_field("guide"));
        }
    }
    Ok(())
}
