//! The pictures that come with a request, decoded within bounds.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    Request,
    data::{
        ImageInput, Picture, decode_picture,
        sound::{Bytes, SoundInput, SoundReader},
    },
};

use crate::{bounds::too_many, options::ServerOptions, refusal::Refusal};

/// The pictures of a request may together have as many pixels as this many of the largest.
const LARGEST_PICTURES: u64 = 4;

/// Sounds may be so many seconds long.
const LONGEST_SOUND: f64 = 600.0;

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
    for (field, sound) in request.sound.sounds_mut() {
        let SoundInput::Base64(text) = &*sound else {
            continue;
        };
        let encoded = unpacked(field, text, "a sound")?;
        bytes += encoded.len();
        // It is decoded where it is needed, and as much of it as is; all of it where it is gone on from.
        let encoded = Bytes(encoded.into());
        let reader = SoundReader::of_bytes(Path::new("the sound"), encoded.clone(), None);
        let seconds = reader
            .map_err(|error| Refusal::from(error).with_field(field))?
            .seconds();
        if seconds > LONGEST_SOUND {
            let message = format!(
                "{field} is {seconds:.0} seconds long, and may be {LONGEST_SOUND} at most on this server"
            );
            return Err(Refusal::unprocessable(message).with_limit(field, LONGEST_SOUND as u64));
        }
        bytes += (seconds * 4.0 * 48_000.0) as usize;
        *sound = SoundInput::Bytes(encoded);
    }
    Ok(bytes)
}

/// The bytes of a file that was sent.
fn unpacked(field: &'static str, text: &str, what: &str) -> Result<Vec<u8>, Refusal> {
    // `data:image/png;base64,…`, as browsers make it.
    let encoded = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map(|(_, data)| data),
        None => Some(text),
    };
    let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    bytes.ok_or_else(|| {
        let message = format!(
            "{field} is not in base64: {what} is sent as its file's bytes in base64, or as a data: URL of them"
        );
        Refusal::unprocessable(message).with_field(field)
    })
}

fn decoded(field: &'static str, image: &ImageInput, options: &ServerOptions) -> Result<Picture, Refusal> {
    let ImageInput::Base64(text) = image else {
        return Ok(image.read()?);
    };
    let bytes = unpacked(field, text, "a picture")?;
    let picture = decode_picture(&bytes, options.limits.side, field);
    picture.map_err(|error| Refusal::from(error).with_field(field))
}
