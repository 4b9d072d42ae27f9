//! `POST /v1/images/generations`, as OpenAI's clients call it.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::grid;
use serde_json::{Map, Value, json};

use super::{
    body::Body,
    foreign::{Names, Translation},
    generate::draw,
};
use crate::{
    app::{App, Caller},
    refusal::Refusal,
    request::{Read, object},
};

pub(super) async fn generations(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    match generated(&app, caller, request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.into_response_as(in_openai_s_words),
    }
}

async fn generated(app: &Arc<App>, caller: Caller, request: Request) -> Result<Value, Refusal> {
    app.queue.has_room()?;
    let body = Body::read(app, caller, request).await?;
    let (fields, names) = translated(object(&body.bytes)?, |name| app.schema.has(name))?;
    let theirs = |refusal: Refusal| refusal.renamed(&names);
    let read = Read::of_fields(fields, &app.schema).map_err(theirs)?;
    let drawn = draw(app, caller, read, body).await.map_err(theirs)?;
    let pictures = drawn.finished.iter().map(|one| {
        let png = grid::png_bytes_with(&one.picture, &one.texts)?;
        Ok(json!({ "b64_json": STANDARD.encode(png) }))
    });
    let pictures: langevin::Result<Vec<Value>> = pictures.collect();
    let pictures = pictures.map_err(|error| Refusal::internal(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(json!({ "created": now.as_secs(), "data": pictures, "output_format": "png" }))
}

/// Their fields as ours. Our own names go beside theirs, as a client's `extra_body` has them.
fn translated(
    given: Map<String, Value>,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(Map<String, Value>, Names), Refusal> {
    let mut theirs = Translation::new(given);
    theirs.text("model", "model");
    theirs.field("prompt", "prompt");
    theirs.field("n", "count");
    theirs.pass_as("size", &["auto".into()]);
    theirs.field("size", "size");
    // A picture comes in the answer: this server keeps none that an address could lead to.
    theirs.pass_as("response_format", &["b64_json".into()]);
    theirs.pass_as("output_format", &["png".into()]);
    theirs.pass_as("quality", &["auto".into(), "standard".into()]);
    theirs.pass_as("background", &["auto".into(), "opaque".into()]);
    theirs.pass_as("moderation", &["auto".into()]);
    theirs.pass_as("output_compression", &[100.into()]);
    theirs.pass(&["user"]);
    theirs.take_ours(is_ours);
    let names = theirs.names();
    Ok((theirs.end()?, names))
}

/// An error as OpenAI's clients read it.
fn in_openai_s_words(status: u16, body: &Value) -> Value {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({ "error": { "message": body["error"], "type": kind, "param": body["field"], "code": null } })
}
