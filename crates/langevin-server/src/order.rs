//! What a request means: everything in it checked against the model and the limits, before it waits.

use base64::{Engine, engine::general_purpose::STANDARD};
use burn::tensor::{Tensor, TensorData};
use langevin::{
    data::decode_picture,
    guidance::{ClassifierFree, GuidanceSchedule, Guide, LossGuidance, Through},
    named::Named,
    pipelines::{ConditioningImage, Facts, SampleOptions, Sampling},
    random::Generator,
    schedulers::AnyScheduler,
};

use crate::{
    models::{Model, Models},
    options::ServerOptions,
    refusal::Refusal,
    request::GenerateRequest,
};

/// Moments of the denoising that are shown where nobody says.
const USUAL_PREVIEWS: usize = 24;

/// Pictures to be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The model's number.
    pub model: usize,
    scheduler: AnyScheduler,
    pub steps: usize,
    pub seed: u64,
    pub count: usize,
    /// The classes that the pictures take turns in; none for an unconditional model.
    classes: Vec<i64>,
    negative_class: Option<i64>,
    prompt: Option<String>,
    negative_prompt: Option<String>,
    /// `[1, numbers]`
    vector: Option<Tensor<2>>,
    guidance: ClassifierFree,
    eta: Option<f64>,
    guides: Vec<Guide>,
    guide_through: Through,
    guide_schedule: GuidanceSchedule,
    /// `[1, channels, height, width]` in -1..1, and its strength.
    init: Option<(Tensor<4>, f64)>,
    conditioning_image: Option<ConditioningImage>,
    pub previews: usize,
}

impl Order {
    /// What a request means on a server with these models. It decodes pictures and begins a loop, so it is work for a thread
    /// that may block.
    ///
    /// # Errors
    /// If it asks for more than the limits, or for what the model cannot do.
    pub fn of(request: &GenerateRequest, models: &Models, options: &ServerOptions) -> Result<Self, Refusal> {
        check_texts(request, options.limits.text)?;
        let number = match &request.model {
            None => 0,
            Some(name) => models.find(name).ok_or_else(|| unknown_model(name, models))?,
        };
        let model = models
            .get(number)
            .ok_or_else(|| Refusal::unprocessable("this server has no model"))?;
        let (_, scheduler) = model.sampler(request.sampler.as_deref())?;
        let steps = request.steps.unwrap_or_else(|| scheduler.usual_steps());
        let count = request.count.unwrap_or(1);
        check_limits(request, steps, count, options)?;
        if request.eta.is_some() && !scheduler.takes_eta() {
            return Err(Refusal::unprocessable(
                "eta belongs to the samplers ddim and tcd: choose one of them, or leave it out",
            ));
        }
        let init = match (&request.init_image, request.strength) {
            (Some(text), strength) => {
                let picture = picture(text, "init_image", model, options)?;
                Some((picture, strength.unwrap_or(Sampling::USUAL_STRENGTH)))
            }
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Refusal::unprocessable(
                    "strength does nothing without an init_image: send one, or leave it out",
                ));
            }
        };
        let conditioning_image = match &request.conditioning_image {
            Some(text) => Some(ConditioningImage {
                picture: picture(text, "conditioning_image", model, options)?,
                mask: None,
                as_is: false,
            }),
            None => None,
        };
        let classes = |asked: &Option<String>| model.pipeline.class_numbers(asked.as_slice());
        let negative_class = match &request.negative_class {
            Some(_) => classes(&request.negative_class)?.first().copied(),
            None => None,
        };
        let order = Self {
            model: number,
            scheduler,
            steps,
            seed: request.seed,
            count,
            classes: classes(&request.class)?,
            negative_class,
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            vector: vector(&request.vector, model),
            guidance: ClassifierFree {
                scale: request.guidance_scale.unwrap_or(1.0),
                rescale: request.guidance_rescale.unwrap_or(0.0),
                interval: None,
            },
            eta: request.eta,
            guides: guides(&request.guide, options)?,
            guide_through: named(request.guide_through.as_deref(), Through::Clean)?,
            guide_schedule: named(request.guide_schedule.as_deref(), GuidanceSchedule::Signal)?,
            init,
            conditioning_image,
            previews: request.previews.unwrap_or(USUAL_PREVIEWS),
        };
        // What cannot be begun is refused now and not when its turn has come.
        order.start(model, 0, options)?;
        Ok(order)
    }

    /// The loop that draws picture `number` of the order, with a generator of its own.
    pub fn start<'m>(
        &self,
        model: &'m Model,
        number: usize,
        server: &ServerOptions,
    ) -> langevin::Result<Sampling<'m>> {
        let options = SampleOptions {
            batch_size: 1,
            num_inference_steps: Some(self.steps),
            eta: self.eta,
            classes: self.class_of(number).map(|class| vec![class]),
            prompts: self.prompt.clone().map(|text| vec![text]),
            vectors: self.vector.clone(),
            conditioning_image: self.conditioning_image.clone(),
            guidance: self.guidance,
            negative_classes: self.negative_class.map(|class| vec![class]),
            negative_prompts: self.negative_prompt.clone().map(|text| vec![text]),
            ..SampleOptions::default()
        };
        let seed = self.seed_of(number);
        let mut sampling = model
            .pipeline
            .start(self.scheduler.clone(), &options, Generator::new(seed))?;
        if let Some((picture, strength)) = &self.init {
            sampling = sampling.starting_from(picture, *strength)?;
        }
        if self.guides.is_empty() {
            return Ok(sampling);
        }
        let mut maker = model.maker.clone();
        (maker.clip, maker.cuts) = (server.clip.clone(), server.cuts);
        let mut guidance = LossGuidance::new(self.guide_through)
            .with_schedule(self.guide_schedule)
            .with_generator(Generator::new(seed));
        for guide in &self.guides {
            guidance = guidance.with(maker.make(guide)?, guide.scale);
        }
        Ok(sampling.guided_by(guidance))
    }

    /// The seed of a picture of the order.
    pub fn seed_of(&self, number: usize) -> u64 {
        self.seed.wrapping_add(number as u64)
    }

    /// The class of a picture of the order.
    fn class_of(&self, number: usize) -> Option<i64> {
        self.classes.get(number % self.classes.len().max(1)).copied()
    }

    /// The name of that class.
    pub fn class_name(&self, model: &Model, number: usize) -> Option<String> {
        let class = usize::try_from(self.class_of(number)?).ok()?;
        let classes = model.pipeline.known_classes()?;
        let is_null = classes.null_class == Some(class);
        classes
            .names
            .get(class)
            .cloned()
            .or_else(|| is_null.then(|| "none".into()))
    }

    /// What the file of a picture says about how it was drawn.
    pub fn texts(&self, model: &Model, number: usize) -> Vec<(&'static str, String)> {
        let prompts: Vec<String> = self.prompt.clone().into_iter().collect();
        let facts = Facts {
            seed: self.seed_of(number),
            scheduler: self.scheduler.class_name(),
            steps: self.steps,
            model: &model.name,
            eta: self.eta,
            prompts: &prompts,
            guidance: self.guidance,
            guides: &self.guides,
            strength: self.init.as_ref().map(|(_, strength)| *strength),
        };
        let mut texts = facts.texts();
        if let Some(class) = self.class_name(model, number) {
            texts.push(("class", class));
        }
        texts
    }
}

pub(crate) fn unknown_model(name: &str, models: &Models) -> Refusal {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    Refusal::unprocessable(format!(
        "there is no model `{name}` on this server; there are {}",
        names.join(", ")
    ))
}

/// Refuses texts that are longer than the server allows, before any of them is looked up or said again.
fn check_texts(request: &GenerateRequest, limit: usize) -> Result<(), Refusal> {
    let guides = request.guide.iter().map(|guide| ("guide", Some(guide)));
    let texts = [
        ("model", request.model.as_ref()),
        ("sampler", request.sampler.as_ref()),
        ("class", request.class.as_ref()),
        ("negative_class", request.negative_class.as_ref()),
        ("prompt", request.prompt.as_ref()),
        ("negative_prompt", request.negative_prompt.as_ref()),
        ("guide_through", request.guide_through.as_ref()),
        ("guide_schedule", request.guide_schedule.as_ref()),
    ];
    for (field, text) in texts.into_iter().chain(guides) {
        let asked = text.map_or(0, |text| text.chars().count());
        if asked > limit {
            let message =
                format!("{field} has {asked} characters, and may have {limit} at most on this server");
            return Err(Refusal::unprocessable(message).with_limit(field, limit as u64));
        }
    }
    Ok(())
}

fn check_limits(
    request: &GenerateRequest,
    steps: usize,
    count: usize,
    options: &ServerOptions,
) -> Result<(), Refusal> {
    let limits = options.limits;
    for (field, asked, limit) in [
        ("steps", steps, limits.steps),
        ("count", count, limits.count),
        ("previews", request.previews.unwrap_or(0), limits.previews),
    ] {
        if asked > limit {
            return Err(Refusal::beyond(field, asked, limit as u64));
        }
    }
    if request.guide.len() > limits.guides {
        let (asked, limit) = (request.guide.len(), limits.guides);
        let message = format!("there are {asked} guides, and may be {limit} at most on this server");
        return Err(Refusal::unprocessable(message).with_limit("guide", limit as u64));
    }
    for (field, asked) in [("steps", steps), ("count", count)] {
        if asked == 0 {
            return Err(Refusal::unprocessable(format!(
                "{field} is 0, and must be at least 1"
            )));
        }
    }
    Ok(())
}

/// Reads guides, none of which may name a file of this machine.
fn guides(texts: &[String], options: &ServerOptions) -> Result<Vec<Guide>, Refusal> {
    let read = |text: &String| {
        let guide: Guide = text.parse()?;
        if guide.names_a_file() {
            return Err(Refusal::unprocessable(format!(
                "`{text}` names a file, and a request may not; colour, brightness, symmetry and clip can guide here"
            )));
        }
        if guide.needs_clip() && options.clip.is_none() {
            return Err(Refusal::unprocessable(format!(
                "`{text}` needs CLIP, which this server was not started with (--clip)"
            )));
        }
        Ok(guide)
    };
    texts.iter().map(read).collect()
}

fn named<T: Named>(name: Option<&str>, usual: T) -> Result<T, Refusal> {
    match name {
        Some(name) => Ok(T::from_name(name)?),
        None => Ok(usual),
    }
}

/// The numbers as a tensor. Whether they are as many as the model is told, the loop finds out when it begins.
fn vector(numbers: &[f32], model: &Model) -> Option<Tensor<2>> {
    let data = TensorData::new(numbers.to_vec(), [1, numbers.len()]);
    (!numbers.is_empty()).then(|| Tensor::from_data(data, &model.maker.device))
}

/// A picture that was sent, at the model's size.
fn picture(
    text: &str,
    field: &'static str,
    model: &Model,
    options: &ServerOptions,
) -> Result<Tensor<4>, Refusal> {
    // `data:image/png;base64,…`, as browsers make it.
    let encoded = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map(|(_, data)| data),
        None => Some(text),
    };
    let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    let bytes = bytes.ok_or_else(|| {
        Refusal::unprocessable(format!(
            "{field} is not in base64: a picture is sent as its file's bytes in base64, or as a data: URL of them"
        ))
    })?;
    let picture = decode_picture(&bytes, options.limits.side, field)?;
    Ok(model.maker.picture(&picture)?)
}
