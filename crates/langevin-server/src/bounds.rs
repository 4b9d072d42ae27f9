//! How much a request may ask for: what takes memory or time is bounded before any of it is taken.

use langevin::{Request, Size, data::ImageInput, pipelines::PictureUse};

use crate::{model::Model, options::ServerOptions, refusal::Refusal};

/// How many times as high and as wide as the model's own a picture may be, where no latents are denoised.
const LARGEST: usize = 2;
/// The pictures that a request draws may together have as many pixels as this many of the largest.
const DRAWN: usize = 16;

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
    if model.pipeline.mel().is_some() {
        // A sound is as long as it is asked for, and a spectrogram is low.
        return Size {
            height: model.size.height,
            width: options.limits.size.max(LARGEST * model.size.width),
        };
    }
    Size {
        height: LARGEST * model.size.height,
        width: LARGEST * model.size.width,
    }
}

/// Refuses pictures that are so large that they could take all of the machine's memory. What needs no model to be refused, the request's
/// schema has refused before.
///
/// # Errors
/// If they are.
pub(crate) fn check_size(request: &Request, model: &Model, options: &ServerOptions) -> Result<(), Refusal> {
    let most = largest(model, options);
    if let (Some(seconds), Some(mel)) = (request.sound.seconds, model.pipeline.mel()) {
        let longest = mel.seconds(most.width);
        if seconds > longest {
            let message = format!("seconds is {seconds}, and may be {longest:.1} at most on this server");
            return Err(Refusal::unprocessable(message).with_field("seconds"));
        }
    }
    match request.size {
        Some(size) if size.height > most.height || size.width > most.width => {
            Err(Refusal::beyond("size", size, most.width as u64))
        }
        _ => Ok(()),
    }
}

/// Refuses latents of larger pictures than the server allows, and more pictures to begin with than one of the largest has pixels, since all
/// of them are encoded together.
///
/// # Errors
/// If they are.
pub(crate) fn check_begun(request: &Request, model: &Model, options: &ServerOptions) -> Result<(), Refusal> {
    if !model.pipeline.codec().is_latent() {
        return Ok(());
    }
    let (side, drawn) = (options.limits.size, drawn(request, model));
    if drawn.height.max(drawn.width) > side {
        let begun = match (request.init_image.is_some(), request.upscale.is_some()) {
            (_, true) => " with this `upscale`",
            (true, false) => " with this `init_image`",
            (false, false) => "",
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

/// Refuses larger pictures, or more of them, than the server has room for until all of them are done.
///
/// # Errors
/// If they are.
pub(crate) fn check_drawn(
    request: &Request,
    count: usize,
    model: &Model,
    options: &ServerOptions,
) -> Result<(), Refusal> {
    check_begun(request, model, options)?;
    let size = drawn(request, model);
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
    let size = first(request, model);
    let factor = request.upscale.filter(|factor| *factor > 1.0).unwrap_or(1.0);
    let side = |side: usize| (side as f64 * factor) as usize;
    [side(size.height), side(size.width)].into()
}

/// The size of what the first pass draws.
fn first(request: &Request, model: &Model) -> Size {
    let picture_use = model.pipeline.class().picture_use();
    if let Some(size) = request.size {
        return size;
    }
    if let (Some(seconds), Some(mel)) = (request.sound.seconds, model.pipeline.mel()) {
        return Size {
            height: model.size.height,
            width: (seconds * mel.columns_per_second()) as usize + model.pipeline.size_divisor() + 1,
        };
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
