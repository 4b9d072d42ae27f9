//! The body of a request, on its way in.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};

use crate::{
    app::{App, Caller},
    refusal::Refusal,
    stage::Pass,
};

/// A longer body may hold pictures, and so needs a place in memory.
const SHORT: u64 = 64 << 10;

/// A body in memory, with its place there.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _place: Option<Pass>,
}

impl Body {
    /// Reads the JSON of a request.
    ///
    /// # Errors
    /// If it is not called JSON, is too large or too slow, or as many as may are being read.
    pub(super) async fn read(app: &App, caller: Caller, request: Request) -> Result<Self, Refusal> {
        let message = "a request is JSON, and says so: `Content-Type: application/json`";
        Self::read_as("application/json", message, app, caller, request).await
    }

    /// Reads a PNG.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) async fn read_png(app: &App, caller: Caller, request: Request) -> Result<Self, Refusal> {
        let message = "what is read is a PNG, and says so: `Content-Type: image/png`";
        Self::read_as("image/png", message, app, caller, request).await
    }

    /// Reads what is called so; `message` says what else it may be.
    async fn read_as(
        wanted: &str,
        message: &str,
        app: &App,
        caller: Caller,
        request: Request,
    ) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(wanted) {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let place = match is_short(&request) {
            true => None,
            false => Some(app.stages.bodies.enter(caller.0).await?),
        };
        let patience = app.options.patience;
        let bytes = tokio::time::timeout(patience, Bytes::from_request(request, &())).await;
        let bytes = bytes.map_err(|_| {
            let message = format!("the body did not arrive within {} seconds", patience.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
        })?;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let limit = app.options.limits.body as u64;
                let message = format!("a request may have {limit} bytes at most on this server");
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_limit("body", limit)
            }
            status => Refusal::new(status, "the body did not arrive whole"),
        })?;
        Ok(Self { bytes, _place: place })
    }
}

/// Whether a body says that it is short.
fn is_short(request: &Request) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length <= SHORT)
}
