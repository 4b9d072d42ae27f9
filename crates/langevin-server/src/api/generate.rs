//! `POST /api/generate`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{self, KeepAlive},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::stream;
use langevin::{data::Picture, generate::Animation, grid};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::App;
use crate::{
    bounds,
    events::{Event, Finished, Preview, Progress},
    order::Order,
    queue::Job,
    refusal::Refusal,
    request::GenerateRequest,
    worker,
};

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One picture, or a grid of all.
    Png,
    /// The way out of the noise.
    Gif,
    /// All pictures in base64, with their seeds.
    Json,
    /// News while they are drawn.
    Events,
}

impl Form {
    /// The form that a caller wants: the first one of `Accept` that there is.
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(accept) = headers.get(header::ACCEPT) else {
            return Ok(Self::Png);
        };
        let accept = accept.to_str().unwrap_or_default();
        let kinds = accept
            .split(',')
            .map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let forms = kinds.map(|kind| match kind {
            "image/png" | "image/*" | "*/*" => Some(Self::Png),
            "image/gif" => Some(Self::Gif),
            "application/json" => Some(Self::Json),
            "text/event-stream" => Some(Self::Events),
            _ => None,
        });
        forms.flatten().next().ok_or_else(|| {
            let message = "pictures come as image/png, image/gif, application/json or text/event-stream: Accept one of them";
            Refusal::new(StatusCode::NOT_ACCEPTABLE, message)
        })
    }
}

pub(super) async fn generate(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let form = Form::of(request.headers())?;
    // Whoever would be sent away in the end is so before there is work with the request.
    app.queue.has_room()?;
    let reading = app.reading.acquire().await;
    let asked = read(&app, request).await?;
    let since = Instant::now();
    let mut order = check(&app, asked).await?;
    drop(reading);
    if form != Form::Events {
        order.previews = 0;
    }
    if form == Form::Gif {
        bounds::check_animation(order.count, order.size, &app.options)?;
    }
    let (count, model) = (order.count, order.model);
    let (sender, mut events) = mpsc::channel(worker::room(count));
    let ahead = app.queue.submit(Job {
        order,
        animated: form == Form::Gif,
        events: sender,
        since,
    })?;
    if form == Form::Events {
        let first = sse::Event::default()
            .event("queued")
            .data(json!({ "ahead": ahead, "count": count }).to_string());
        return Ok(stream(first, events));
    }
    let model = app.models.get(model).map(|model| model.name.clone());
    let (mut finished, mut gif) = (Vec::new(), None);
    loop {
        match events.recv().await {
            Some(Event::Finished(picture)) => finished.push(picture),
            Some(Event::Animation(animation)) => gif = Some(encode(animation, count).await?),
            Some(Event::Done(seconds)) => {
                finished.sort_by_key(|picture| picture.number);
                return answer(form, &model.unwrap_or_default(), &finished, gif, seconds);
            }
            // Scales that drive a sample beyond all numbers, say: what was asked for cannot be drawn.
            Some(Event::Failed(message)) => return Err(Refusal::unprocessable(message)),
            Some(Event::Started | Event::Progress(_)) => {}
            None => return Err(lost()),
        }
    }
}

fn lost() -> Refusal {
    Refusal::internal("the picture was lost to a defect of this server: its log says more")
}

/// Reads the body.
async fn read(app: &App, request: Request) -> Result<GenerateRequest, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    {
        let message = "a request is JSON, and says so: `Content-Type: application/json`";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = tokio::time::timeout(PATIENCE, Bytes::from_request(request, &())).await;
    let body = body.map_err(|_| {
        let message = format!("the body did not arrive within {} seconds", PATIENCE.as_secs());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let limit = app.options.limits.body as u64;
            let message = format!("a request may have {limit} bytes at most on this server");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message).with_limit("body", limit)
        }
        status => Refusal::new(status, "the body did not arrive whole"),
    })?;
    GenerateRequest::read(&body)
}

/// Makes an order of a request, on a thread that may block.
async fn check(app: &Arc<App>, asked: GenerateRequest) -> Result<Order, Refusal> {
    // The semaphore is never closed.
    let permit = app.checking.clone().acquire_owned().await;
    let shared = app.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let order = Order::of(&asked, &shared.models, &shared.options);
        drop(permit);
        order
    });
    checked.await.unwrap_or_else(|_| Err(lost()))
}

/// The bytes of a GIF of `count` pictures, made on a thread that may block.
async fn encode(animation: Box<Animation>, count: usize) -> Result<Vec<u8>, Refusal> {
    let encoded = tokio::task::spawn_blocking(move || {
        let grids = animation.grids(grid::columns(count))?;
        grid::gif_bytes(&grids, Animation::FRAME_MS, Animation::LAST_FRAME_MS)
    });
    let encoded = encoded.await.map_err(|_| lost())?;
    encoded.map_err(|error| Refusal::internal(error.to_string()))
}

/// The answer to somebody who waited for all pictures.
fn answer(
    form: Form,
    model: &str,
    finished: &[Finished],
    gif: Option<Vec<u8>>,
    seconds: f64,
) -> Result<Response, Refusal> {
    let refused = |error: langevin::Error| Refusal::internal(error.to_string());
    match (form, finished) {
        (Form::Json, _) => {
            let pictures = finished.iter().map(finished_json).collect::<Result<Vec<_>, _>>();
            let pictures = pictures.map_err(refused)?;
            Ok(Json(json!({ "model": model, "seconds": seconds, "pictures": pictures })).into_response())
        }
        (Form::Gif, _) => {
            let gif = gif.ok_or_else(lost)?;
            Ok(([(header::CONTENT_TYPE, "image/gif")], gif).into_response())
        }
        (_, [one]) => {
            let png = grid::png_bytes_with(&one.picture, &one.texts).map_err(refused)?;
            Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
        }
        (_, several) => {
            let pictures: Vec<Picture> = several.iter().map(|one| one.picture.clone()).collect();
            let whole = grid::side_by_side(&pictures, grid::columns(pictures.len())).map_err(refused)?;
            let texts = several
                .first()
                .map(|first| first.texts.as_slice())
                .unwrap_or_default();
            let png = grid::png_bytes_with(&whole, texts).map_err(refused)?;
            Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
        }
    }
}

/// News as server-sent events, which end with `done` or `error`.
fn stream(first: sse::Event, events: mpsc::Receiver<Event>) -> Response {
    let rest = stream::unfold(Some((Some(first), events)), |state| async {
        let (first, mut events) = state?;
        if let Some(first) = first {
            return Some((Ok::<_, std::convert::Infallible>(first), Some((None, events))));
        }
        let (name, data, is_last) = match events.recv().await {
            Some(event) => said(event),
            None => (
                "error",
                json!({ "error": "the picture was lost to a defect of this server" }),
                true,
            ),
        };
        let event = sse::Event::default().event(name).data(data.to_string());
        Some((Ok(event), (!is_last).then_some((None, events))))
    });
    Sse::new(rest).keep_alive(KeepAlive::default()).into_response()
}

/// An event's name, what it says, and whether it is the last.
fn said(event: Event) -> (&'static str, Value, bool) {
    let failed = |error: langevin::Error| ("error", json!({ "error": error.to_string() }), true);
    match event {
        Event::Started => ("started", json!({}), false),
        Event::Progress(progress) => match progress_json(&progress) {
            Ok(data) => ("progress", data, false),
            Err(error) => failed(error),
        },
        Event::Finished(finished) => match finished_json(&finished) {
            Ok(data) => ("picture", data, false),
            Err(error) => failed(error),
        },
        // Only an answer as a GIF has one.
        Event::Animation(_) => ("animation", json!({}), false),
        Event::Done(seconds) => ("done", json!({ "seconds": seconds }), true),
        Event::Failed(message) => ("error", json!({ "error": message }), true),
    }
}

fn progress_json(progress: &Progress) -> langevin::Result<Value> {
    let preview = |preview: &Preview| {
        Ok(json!({
            "number": preview.number,
            "step": preview.step,
            "sample": STANDARD.encode(grid::png_bytes(&preview.sample)?),
            "clean": STANDARD.encode(grid::png_bytes(&preview.clean)?),
        }))
    };
    let previews: langevin::Result<Vec<Value>> = progress.previews.iter().map(preview).collect();
    Ok(json!({
        "done": progress.done,
        "total": progress.total,
        "seconds_left": progress.seconds_left,
        "previews": previews?,
    }))
}

fn finished_json(finished: &Finished) -> langevin::Result<Value> {
    let png = grid::png_bytes_with(&finished.picture, &finished.texts)?;
    Ok(json!({
        "number": finished.number,
        "seed": finished.seed,
        "class": finished.class,
        "flagged": finished.flagged,
        "png": STANDARD.encode(png),
    }))
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
        assert_eq!(of("text/event-stream"), Some(Form::Events));
        assert_eq!(of("text/html"), None);
    }
}
