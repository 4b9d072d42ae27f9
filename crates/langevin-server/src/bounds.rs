//! How much a request may ask for: what takes memory or time is bounded before any of it is taken.

use langevin::{Request, Size, data::ImageInput, options::ClassName, pipelines::PictureUse};

use crate::{models::Model, options::ServerOptions, refusal::Refusal, request::GenerateRequest};

/// How many times as high and as wide as the model's own a picture may be, where no latents are denoised.
const LARGEST: usize = 2;
/// More layers than any text encoder has.
const MOST_LAYERS: usize = 100;
/// More timesteps than any noise schedule has.
const MOST_TIMESTEP: usize = 100_000;
/// The least and the most that a guidance scale may be.
const SCALES: [f64; 2] = [-1000.0, 1000.0];
/// The same of a score of how well a picture is liked.
const SCORES: [f64; 2] = [0.0, 10.0];
/// Controls of a request; each asks another network in every step.
const MOST_CONTROLS: usize = 4;
/// The pictures that a request draws may together have as many pixels as this many of the largest.
const DRAWN: usize = 16;

/// Refuses what is beyond the limits, before the pictures in the request are decoded.
///
/// # Errors
/// If something is.
pub(crate) fn check(
    asked: &GenerateRequest,
    count: usize,
    model: &Model,
    options: &ServerOptions,
) -> Result<(), Refusal> {
    check_limits(asked, count, options)?;
    check_numbers(&asked.request, options)?;
    check_sizes(&asked.request, model, options)
}

/// Refuses what is beyond the limits once they are decoded.
///
/// # Errors
/// If something is.
pub(crate) fn check_decoded(
    request: &Request,
    count: usize,
    model: &Model,
    options: &ServerOptions,
) -> Result<(), Refusal> {
    check_begun(request, model, options)?;
    check_drawn(count, drawn(request, model), options)
}

/// The texts that a request lists, by the names of their fields.
fn lists_of_texts(request: &Request) -> [(&'static str, &Vec<String>); 5] {
    [
        ("prompt", &request.prompt),
        ("negative_prompt", &request.negative_prompt),
        ("prompt_2", &request.prompt_2),
        ("negative_prompt_2", &request.negative_prompt_2),
        ("attributes", &request.attributes),
    ]
}

/// Refuses texts that are longer than the server allows, before any of them is looked up or said again.
///
/// # Errors
/// If one is.
pub(crate) fn check_texts(asked: &GenerateRequest, limit: usize) -> Result<(), Refusal> {
    let request = &asked.request;
    let name = |class: &ClassName| class.to_string();
    let guides = request.guide.iter().map(|guide| ("guide", guide.to_string()));
    let texts = [
        ("model", asked.model.clone()),
        ("sampler", request.scheduler.clone()),
        ("negative_class", request.negative_class.as_ref().map(name)),
    ];
    let texts = texts.into_iter().filter_map(|(field, text)| Some((field, text?)));
    let controls = request.control.iter();
    let controls = controls.filter_map(|control| Some(("control", control.model.clone()?)));
    let classes = request.class.iter().map(|class| ("class", name(class)));
    let prompts = lists_of_texts(request);
    let prompts = prompts
        .iter()
        .flat_map(|(field, texts)| texts.iter().map(|text| (*field, text.clone())));
    for (field, text) in texts.chain(classes).chain(prompts).chain(guides).chain(controls) {
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
    let controls = request.control.len();
    if controls > MOST_CONTROLS {
        return Err(too_many("control", controls, MOST_CONTROLS));
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
    let scales = request.control.iter();
    let scales = scales.map(|control| ("control", control.scale, SCALES));
    let timesteps = request.timesteps.iter();
    let timesteps = timesteps.map(|&timestep| ("timesteps", Some(timestep), [0.0, MOST_TIMESTEP as f64]));
    for (field, number, [least, most]) in numbers.into_iter().chain(timesteps).chain(scales) {
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

/// A list that is too long.
pub(crate) fn too_many(field: &'static str, listed: usize, limit: usize) -> Refusal {
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

/// Refuses latents of larger pictures than the server allows, and more pictures to begin with than one of the largest has pixels, since all
/// of them are encoded together.
fn check_begun(request: &Request, model: &Model, options: &ServerOptions) -> Result<(), Refusal> {
    if !model.pipeline.codec().is_latent() {
        return Ok(());
    }
    let (side, drawn) = (options.limits.size, drawn(request, model));
    if drawn.height.max(drawn.width) > side {
        let begun = if request.init_image.is_some() {
            " with this `init_image`"
        } else {
            ""
        };
        let instead = match model.pipeline.class().picture_use() {
            PictureUse::Upscale => "begin with a smaller one",
            _ => "give a `size`",
        };
        let message = format!(
            "the pictures would be of {drawn} pixels{begun}, and may have {side} a side at most on this server: {instead}"
        );
        return Err(Refusal::unprocessable(message).with_limit("size", side as u64));
    }
    let most = (side * side / pixels(drawn)).max(1);
    let begun = [("init_image", &request.init_image), ("inpaint", &request.inpaint)];
    let lists = begun
        .into_iter()
        .filter_map(|(field, image)| Some((field, sizes(image.as_ref()?).0)));
    match lists.into_iter().find(|(_, listed)| *listed > most) {
        Some((field, listed)) => Err(too_many(field, listed, most)),
        None => Ok(()),
    }
}

/// Refuses more pictures than the server has room for until all of them are done.
fn check_drawn(count: usize, size: Size, options: &ServerOptions) -> Result<(), Refusal> {
    let most = (DRAWN * options.limits.size.pow(2) / pixels(size)).max(1);
    if count > most {
        let message =
            format!("there are to be {count} pictures of {size}, and may be {most} at most on this server");
        return Err(Refusal::unprocessable(message).with_limit("count", most as u64));
    }
    Ok(())
}

/// Refuses an animation that would take too much room: every picture is kept as it was at up to some sixty moments.
///
/// # Errors
/// If it would.
pub(crate) fn check_animation(count: usize, size: Size, options: &ServerOptions) -> Result<(), Refusal> {
    let most = options.limits.size.pow(2) / pixels(size);
    if count > most {
        let message = format!(
            "a GIF may show {most} pictures of {size} at most on this server, and there are to be {count}: ask for fewer or for smaller ones"
        );
        return Err(Refusal::unprocessable(message).with_limit("count", most as u64));
    }
    Ok(())
}

fn pixels(size: Size) -> usize {
    (size.height * size.width).max(1)
}

/// The size of the pictures that a request draws, once the pictures in it are decoded.
pub(crate) fn drawn(request: &Request, model: &Model) -> Size {
    let picture_use = model.pipeline.class().picture_use();
    if let Some(size) = request.size {
        return size;
    }
    let like = match (&request.init_image, &request.inpaint) {
        (Some(image), _) => Some(image),
        // Painted in, pictures have the model's size.
        (None, Some(_)) => None,
        (None, None) => request.control.first().map(|control| &control.picture),
    };
    match like {
        Some(image) if model.pipeline.codec().is_latent() && picture_use != PictureUse::Variation => {
            let (_, own) = sizes(image);
            let factor = match picture_use {
                PictureUse::Upscale => model.pipeline.size_divisor(),
                _ => 1,
            };
            [own.height * factor, own.width * factor].into()
        }
        _ => model.size,
    }
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
