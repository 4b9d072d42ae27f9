//! The pictures that come with a request, decoded within bounds.

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    Request,
    data::{ImageInput, Picture, decode_picture},
};

use crate::{bounds::too_many, options::ServerOptions, refusal::Refusal};

/// The pictures of a request may together have as many pixels as this many of the largest.
const LARGEST_PICTURES: u64 = 4;

/// Puts decoded pictures in place of those that were sent, and says how many bytes they take.
///
/// # Errors
/// If one is none, or they are more or larger than the server allows.
pub(crate) fn decode(request: &mut Request, options: &ServerOptions) -> Result<usize, Refusal> {
    let (side, count) = (u64::from(options.limits.side), options.limits.count);
    let most = LARGEST_PICTURES * side * side;
    let (mut pixels, mut bytes) = (0, 0);
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
            bytes += picture.pixels().len();
            *image = picture.into();
        }
    }
    Ok(bytes)
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
