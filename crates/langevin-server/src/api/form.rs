//! Which form of an answer a caller wants.

use axum::http::{HeaderMap, StatusCode, header};

use crate::refusal::Refusal;

/// How much a caller likes what it names by a `*` alone.
const AS_LAST: &str = "0.001";

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One picture, or a grid of all.
    Png,
    /// The way out of the noise.
    Gif,
    /// The first of the sounds.
    Wav,
    /// All pictures in base64, with their seeds.
    Json,
    /// News while they are drawn.
    Events,
}

impl Form {
    /// The form that a caller likes best of those that there are (RFC 9110, 12.5.1); of several that it likes as well, the first.
    ///
    /// Browsers end their lists in a plain `*/*`, which is no wish: as in Apache's server, it counts only where nothing else does.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut best: Option<(Self, f64)> = None;
        let mut is_empty = true;
        let lists = headers.get_all(header::ACCEPT).iter();
        for kind in lists.flat_map(|list| list.to_str().unwrap_or("?").split(',')) {
            is_empty = false;
            let mut parts = kind.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            let form = match name.as_str() {
                "image/png" => Self::Png,
                "image/gif" => Self::Gif,
                "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/*" => Self::Wav,
                "application/json" => Self::Json,
                "text/event-stream" => Self::Events,
                "image/*" | "*/*" => {
                    quality = quality.or(Some(AS_LAST));
                    Self::Png
                }
                "application/*" => Self::Json,
                "text/*" => Self::Events,
                _ => continue,
            };
            let quality = quality.map_or(Some(1.0), |quality| quality.parse().ok());
            let quality = quality.unwrap_or(0.0);
            if quality > best.map_or(0.0, |(_, best)| best) {
                best = Some((form, quality));
            }
        }
        match best {
            Some((form, _)) => Ok(form),
            None if is_empty => Ok(Self::Png),
            None => {
                let message = "pictures come as image/png, image/gif, sounds as audio/wav, both as application/json or text/event-stream: Accept one of them";
                Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_form_that_there_is_is_taken() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            Form::of(&headers).ok()
        };
        assert_eq!(Form::of(&HeaderMap::new()).ok(), Some(Form::Png));
        assert_eq!(of("*/*"), Some(Form::Png));
        assert_eq!(of("text/html, image/gif;q=0.9, */*"), Some(Form::Gif));
        assert_eq!(of("application/json"), Some(Form::Json));
        assert_eq!(of("audio/wav"), Some(Form::Wav));
        assert_eq!(of("text/event-stream"), Some(Form::Events));
        assert_eq!(of("text/html"), None);
        // What is liked less is had only where the rest is not to be had, and what is liked by 0 never.
        assert_eq!(of("image/gif;q=0.1, application/json;q=0.9"), Some(Form::Json));
        assert_eq!(of("IMAGE/GIF; Q=0.4,image/png;q=0.5"), Some(Form::Png));
        assert_eq!(of("image/gif;q=0.4, */*;q=0.8"), Some(Form::Png));
        assert_eq!(of("image/gif;q=0, text/html"), None);
        assert_eq!(of("application/*, image/gif;q=0.5"), Some(Form::Json));
        assert_eq!(of("image/gif;q=much, image/png;q=0.1"), Some(Form::Png));
    }
}
