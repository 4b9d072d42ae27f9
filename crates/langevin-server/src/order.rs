//! What a request means: everything in it checked against the model and the limits, before it waits.

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    Request, Size,
    data::{ImageInput, Picture, decode_picture},
    generate::Plan,
    options::ClassName,
    pipelines::{PictureUse, Sampling},
};

use crate::{
    models::{Model, Models},
    options::ServerOptions,
    refusal::Refusal,
    request::GenerateRequest,
};

/// Moments of the denoising that are shown where nobody says.
const USUAL_PREVIEWS: usize = 24;
/// How many times as high and as wide as the model's own a picture may be, where no latents are denoised.
const LARGEST: usize = 2;
/// The pictures of a request may together have as many pixels as this many of the largest.
const LARGEST_PICTURES: u64 = 4;
/// More layers than any text encoder has.
const MOST_LAYERS: usize = 100;
/// More timesteps than any noise schedule has.
const MOST_TIMESTEP: usize = 100_000;
/// The least and the most that a guidance scale may be.
const SCALES: [f64; 2] = [-1000.0, 1000.0];
/// The same of a score of how well a picture is liked.
const SCORES: [f64; 2] = [0.0, 10.0];

/// Pictures to be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The model's number.
    pub model: usize,
    pub plan: Plan,
    pub count: usize,
    /// The classes that the pictures take turns in; none for an unconditional model.
    classes: Vec<i64>,
    pub previews: usize,
}

impl Order {
    /// What a request means on a server with these models. It decodes pictures and begins a loop, so it is work for a thread
    /// that may block.
    ///
    /// # Errors
    /// If it asks for more than the limits, or for what the model cannot do.
    pub fn of(asked: &GenerateRequest, models: &Models, options: &ServerOptions) -> Result<Self, Refusal> {
        check_texts(asked, options.limits.text)?;
        let number = match &asked.model {
            None => 0,
            Some(name) => models.find(name).ok_or_else(|| unknown_model(name, models))?,
        };
        let model = models
            .get(number)
            .ok_or_else(|| Refusal::unprocessable("this server has no model"))?;
        let mut request = asked.request.clone();
        // So that a sampler that is not there is found out before the rest.
        model.sampler(request.scheduler.as_deref())?;
        let count = request.count.unwrap_or(1);
        request.count = Some(count);
        check_limits(asked, count, options)?;
        check_numbers(&request, options)?;
        check_sizes(&request, model, options)?;
        check_guides(&request, options)?;
        decode_images(&mut request, options)?;
        check_begun(&request, model, options)?;
        if request.class.is_empty() {
            request.class = model.pipeline.every_class();
        }
        request.cuts = options.cuts;
        let classes = request
            .class
            .iter()
            .map(|class| model.pipeline.class_number(class));
        let classes = classes.collect::<langevin::Result<_>>()?;
        // What cannot be begun is refused now and not when its turn has come.
        let plan = Plan::with_clip(&model.pipeline, &request, options.clip.clone())?;
        // Where nobody said how many, the model's class or the sampler did.
        if plan.steps() > options.limits.steps {
            return Err(Refusal::beyond(
                "steps",
                plan.steps(),
                options.limits.steps as u64,
            ));
        }
        Ok(Self {
            model: number,
            plan,
            count,
            classes,
            previews: asked.previews.unwrap_or(USUAL_PREVIEWS),
        })
    }

    /// The loop that draws picture `number` of the order, with a generator of its own.
    pub fn start<'m>(&self, model: &'m Model, number: usize) -> langevin::Result<Sampling<'m>> {
        self.plan.picture(&model.pipeline, number)
    }

    /// The seed of a picture of the order.
    pub fn seed_of(&self, number: usize) -> u64 {
        self.plan.seed_of(number)
    }

    /// The name of a picture's class.
    pub fn class_name(&self, model: &Model, number: usize) -> Option<String> {
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
    pub fn texts(&self, model: &Model, number: usize) -> Vec<(&'static str, String)> {
        let mut texts = self.plan.facts(&model.name, Some(number));
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

/// The texts that a request lists, by the names of their fields.
fn lists_of_texts(request: &Request) -> [(&'static str, &Vec<String>); 4] {
    [
        ("prompt", &request.prompt),
        ("negative_prompt", &request.negative_prompt),
        ("prompt_2", &request.prompt_2),
        ("negative_prompt_2", &request.negative_prompt_2),
    ]
}

/// Refuses texts that are longer than the server allows, before any of them is looked up or said again.
fn check_texts(asked: &GenerateRequest, limit: usize) -> Result<(), Refusal> {
    let request = &asked.request;
    let name = |class: &ClassName| class.to_string();
    let guides = request.guide.iter().map(|guide| ("guide", guide.to_string()));
    let texts = [
        ("model", asked.model.clone()),
        ("sampler", request.scheduler.clone()),
        ("negative_class", request.negative_class.as_ref().map(name)),
    ];
    let texts = texts.into_iter().filter_map(|(field, text)| Some((field, text?)));
    let classes = request.class.iter().map(|class| ("class", name(class)));
    let prompts = lists_of_texts(request);
    let prompts = prompts
        .iter()
        .flat_map(|(field, texts)| texts.iter().map(|text| (*field, text.clone())));
    for (field, text) in texts.chain(classes).chain(prompts).chain(guides) {
        let length = text.chars().count();
        if length > limit {
            let message =
                format!("{field} has {length} characters, and may have {limit} at most on this server");
            return Err(Refusal::unprocessable(message).with_limit(field, limit as u64));
        }
    }
    Ok(())
}

fn check_limits(asked: &GenerateRequest, count: usize, options: &ServerOptions) -> Result<(), Refusal> {
    let limits = options.limits;
    let request = &asked.request;
    let original_steps = request.original_inference_steps.unwrap_or(0);
    for (field, asked, limit) in [
        ("steps", request.steps.unwrap_or(0), limits.steps),
        ("original_inference_steps", original_steps, limits.steps),
        ("clip_skip", request.clip_skip.unwrap_or(0), MOST_LAYERS),
        ("noise_level", request.noise_level.unwrap_or(0), MOST_TIMESTEP),
        ("mask_crop", request.mask_crop.unwrap_or(0), limits.side as usize),
        ("count", count, limits.count),
        ("previews", asked.previews.unwrap_or(0), limits.previews),
    ] {
        if asked > limit {
            return Err(Refusal::beyond(field, asked, limit as u64));
        }
    }
    let (guides, limit) = (asked.request.guide.len(), limits.guides);
    if guides > limit {
        let message = format!("there are {guides} guides, and may be {limit} at most on this server");
        return Err(Refusal::unprocessable(message).with_limit("guide", limit as u64));
    }
    Ok(())
}

/// Refuses numbers that make no sense to any model.
fn check_numbers(request: &Request, options: &ServerOptions) -> Result<(), Refusal> {
    let numbers = [
        ("guidance_scale", request.guidance.scale, SCALES),
        ("image_guidance_scale", request.image_guidance_scale, SCALES),
        ("aesthetic_score", request.aesthetic_score, SCORES),
        (
            "negative_aesthetic_score",
            request.negative_aesthetic_score,
            SCORES,
        ),
    ];
    let timesteps = request.timesteps.iter();
    let timesteps = timesteps.map(|&timestep| ("timesteps", Some(timestep), [0.0, MOST_TIMESTEP as f64]));
    for (field, number, [least, most]) in numbers.into_iter().chain(timesteps) {
        if number.is_some_and(|number| !(least..=most).contains(&number)) {
            let number = number.unwrap_or_default();
            let message = format!("{field} is {number}, and may be {least} to {most} on this server");
            return Err(Refusal::unprocessable(message).with_field(field));
        }
    }
    let (listed, limit) = (request.timesteps.len(), options.limits.steps);
    if listed > limit {
        return Err(too_many("timesteps", listed, limit));
    }
    Ok(())
}

fn too_many(field: &'static str, listed: usize, limit: usize) -> Refusal {
    let message = format!("{field} lists {listed}, and may list {limit} at most on this server");
    Refusal::unprocessable(message).with_limit(field, limit as u64)
}

/// The largest pictures of a model.
fn largest(model: &Model, options: &ServerOptions) -> Size {
    if model.pipeline.codec().is_latent() {
        return Size::square(options.limits.size);
    }
    Size {
        height: LARGEST * model.size.height,
        width: LARGEST * model.size.width,
    }
}

/// Refuses pictures that are so large that they could take all of the machine's memory, and lists that are longer than the pictures that
/// may be asked for.
fn check_sizes(request: &Request, model: &Model, options: &ServerOptions) -> Result<(), Refusal> {
    let most = largest(model, options);
    if let Some(size) = request.size
        && (size.height > most.height || size.width > most.width)
    {
        return Err(Refusal::beyond("size", size, most.width as u64));
    }
    let limit = options.limits.count;
    let texts = lists_of_texts(request).map(|(field, texts)| (field, texts.len()));
    let lists = [("class", request.class.len()), ("seeds", request.seeds.len())];
    match lists.into_iter().chain(texts).find(|(_, listed)| *listed > limit) {
        Some((field, listed)) => Err(too_many(field, listed, limit)),
        None => Ok(()),
    }
}

/// Refuses what would be drawn larger than the server allows because of the picture that it begins with, and more pictures at once than
/// one of the largest has pixels, all of which are encoded together.
fn check_begun(request: &Request, model: &Model, options: &ServerOptions) -> Result<(), Refusal> {
    if !model.pipeline.codec().is_latent() {
        return Ok(());
    }
    let side = options.limits.size;
    // It is drawn as many times as large.
    let factor = match model.pipeline.class().picture_use() {
        PictureUse::Upscale => model.pipeline.size_divisor(),
        _ => 1,
    };
    let images = [("init_image", &request.init_image), ("inpaint", &request.inpaint)];
    let given = images
        .into_iter()
        .filter_map(|(field, image)| Some((field, image.as_ref()?)));
    for (field, image) in given {
        let (count, own) = sizes(image);
        // What is painted in is drawn at the model's size.
        let drawn = request
            .size
            .unwrap_or(if field == "inpaint" { model.size } else { own });
        if (drawn.height.max(drawn.width)).saturating_mul(factor) > side {
            let limit = side / factor;
            let message = format!(
                "{field} is of {drawn} pixels, and may have {limit} a side at most on this server; `size` draws it smaller"
            );
            return Err(Refusal::unprocessable(message).with_limit(field, limit as u64));
        }
        let most = ((side / factor).pow(2) / (drawn.height * drawn.width).max(1)).max(1);
        if count > most {
            return Err(too_many(field, count, most));
        }
    }
    Ok(())
}

/// How many pictures, and the size of the first.
fn sizes(image: &ImageInput) -> (usize, Size) {
    match image {
        ImageInput::Picture(picture) => (1, [picture.height(), picture.width()].into()),
        ImageInput::Several(all) => (
            all.len(),
            all.first().map_or(Size::square(1), |first| sizes(first).1),
        ),
        // Nothing else comes over the wire.
        _ => (1, Size::square(1)),
    }
}

/// Refuses guides that name a file of this machine, or need what the server was not started with.
fn check_guides(request: &Request, options: &ServerOptions) -> Result<(), Refusal> {
    for guide in &request.guide {
        if guide.names_a_file() {
            return Err(Refusal::unprocessable(format!(
                "`{guide}` names a file, and a request may not; colour, brightness, symmetry and clip can guide here"
            )));
        }
        if guide.needs_clip() && options.clip.is_none() {
            return Err(Refusal::unprocessable(format!(
                "`{guide}` needs CLIP, which this server was not started with (--clip)"
            )));
        }
    }
    Ok(())
}

/// Puts decoded pictures in place of those that were sent.
fn decode_images(request: &mut Request, options: &ServerOptions) -> Result<(), Refusal> {
    let (side, count) = (u64::from(options.limits.side), options.limits.count);
    let most = LARGEST_PICTURES * side * side;
    let mut pixels = 0;
    for (field, image) in request.images_mut() {
        let images = image.each_mut();
        if images.len() > count {
            return Err(too_many(field, images.len(), count));
        }
        for image in images {
            let picture = decoded(field, image, options)?;
            pixels += (picture.height() * picture.width()) as u64;
            if pixels > most {
                let message = format!(
                    "the pictures of a request may have {most} pixels together at most on this server, and with {field} there are more"
                );
                return Err(Refusal::unprocessable(message).with_limit(field, most));
            }
            *image = picture.into();
        }
    }
    Ok(())
}

fn decoded(field: &'static str, image: &ImageInput, options: &ServerOptions) -> Result<Picture, Refusal> {
    let ImageInput::Base64(text) = image else {
        return Ok(image.read()?);
    };
    // `data:image/png;base64,…`, as browsers make it.
    let encoded = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map(|(_, data)| data),
        None => Some(text.as_str()),
    };
    let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    let bytes = bytes.ok_or_else(|| {
        let message = format!(
            "{field} is not in base64: a picture is sent as its file's bytes in base64, or as a data: URL of them"
        );
        Refusal::unprocessable(message).with_field(field)
    })?;
    let picture = decode_picture(&bytes, options.limits.side, field);
    picture.map_err(|error| Refusal::from(error).with_field(field))
}
