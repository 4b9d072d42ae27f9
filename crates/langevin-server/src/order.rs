//! What a request means: everything in it checked against the model and the limits, before it waits.

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    Request, Size,
    data::{ImageInput, decode_picture},
    generate::Plan,
    options::ClassName,
    pipelines::Sampling,
};

use crate::{
    models::{Model, Models},
    options::ServerOptions,
    refusal::Refusal,
    request::GenerateRequest,
};

/// Moments of the denoising that are shown where nobody says.
const USUAL_PREVIEWS: usize = 24;
/// How many times as high and as wide as the model's own a picture may be.
const LARGEST: usize = 2;

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
        let (_, scheduler) = model.sampler(request.scheduler.as_deref())?;
        let steps = request
            .steps
            .unwrap_or_else(|| model.pipeline.steps_by(&scheduler));
        let count = request.count.unwrap_or(1);
        request.count = Some(count);
        check_limits(asked, steps, count, options)?;
        check_sizes(&request, model, options)?;
        check_guides(&request, options)?;
        decode_images(&mut request, options)?;
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

fn check_limits(
    asked: &GenerateRequest,
    steps: usize,
    count: usize,
    options: &ServerOptions,
) -> Result<(), Refusal> {
    let limits = options.limits;
    for (field, asked, limit) in [
        ("steps", steps, limits.steps),
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

/// Refuses pictures that are much larger than the model's own, which could take all of the machine's memory, and lists that are longer
/// than the pictures that may be asked for.
fn check_sizes(request: &Request, model: &Model, options: &ServerOptions) -> Result<(), Refusal> {
    let own = model.size;
    let most = Size {
        height: LARGEST * own.height,
        width: LARGEST * own.width,
    };
    if let Some(size) = request.size
        && (size.height > most.height || size.width > most.width)
    {
        return Err(Refusal::beyond("size", size, LARGEST as u64 * own.width as u64));
    }
    let limit = options.limits.count;
    let texts = lists_of_texts(request).map(|(field, texts)| (field, texts.len()));
    let lists = [
        ("class", request.class.len()),
        ("seeds", request.seeds.len()),
        ("timesteps", request.timesteps.len()),
    ];
    for (field, asked) in lists.into_iter().chain(texts) {
        if asked > limit {
            let message = format!("{field} lists {asked}, and may list {limit} at most on this server");
            return Err(Refusal::unprocessable(message).with_limit(field, limit as u64));
        }
    }
    Ok(())
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
    for (field, image) in request.images_mut() {
        for image in image.each_mut() {
            decode_image(field, image, options)?;
        }
    }
    Ok(())
}

fn decode_image(field: &'static str, image: &mut ImageInput, options: &ServerOptions) -> Result<(), Refusal> {
    let ImageInput::Base64(text) = image else {
        return Ok(());
    };
    // `data:image/png;base64,…`, as browsers make it.
    let encoded = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map(|(_, data)| data),
        None => Some(text.as_str()),
    };
    let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    let bytes = bytes.ok_or_else(|| {
            Refusal::unprocessable(format!(
                "{field} is not in base64: a picture is sent as its file's bytes in base64, or as a data: URL of them"
            ))
        })?;
    *image = decode_picture(&bytes, options.limits.side, field)?.into();
    Ok(())
}
