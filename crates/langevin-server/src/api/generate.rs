//! `POST /api/generate`.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Extension, Request, State},
    http::{StatusCode, header},
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

use super::{body::Body, form::Form};
use crate::{
    app::{App, Caller},
    bounds,
    events::{Event, Finished, Preview, Progress},
    order::{Asked, Order},
    queue::Job,
    refusal::Refusal,
    request::{GenerateRequest, Read},
    stage::Pass,
    worker,
};

pub(super) async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let form = Form::of(request.headers())?;
    // Whoever would be sent away in the end is so before there is work with the request.
    app.queue.has_room()?;
    let body = Body::read(&app, caller, request).await?;
    let read = Read::of(&body.bytes, &app.schema)?;
    let submitted = submit(&app, caller, read, body, form).await?;
    if form == Form::Events {
        let first = json!({ "ahead": submitted.ahead, "count": submitted.count });
        let first = sse::Event::default().event("queued").data(first.to_string());
        return Ok(stream(first, submitted.events));
    }
    answer(form, submitted.drawn().await?)
}

/// Draws what was asked for, as pictures.
///
/// # Errors
/// If it is refused, or drawing fails.
pub(super) async fn draw(app: &Arc<App>, caller: Caller, read: Read, body: Body) -> Result<Drawn, Refusal> {
    submit(app, caller, read, body, Form::Json).await?.drawn().await
}

/// Pictures that are drawn.
#[derive(Debug)]
pub(super) struct Drawn {
    /// The model that drew them.
    pub(super) model: String,
    /// In order.
    pub(super) finished: Vec<Finished>,
    gif: Option<Vec<u8>>,
    seconds: f64,
}

/// What waits in the queue or is being drawn.
struct Submitted {
    given: Vec<String>,
    model: String,
    count: usize,
    /// How many are before it.
    ahead: usize,
    events: mpsc::Receiver<Event>,
}

/// Holds a request to its model, and has it wait for its turn.
async fn submit(
    app: &Arc<App>,
    caller: Caller,
    Read { request, given }: Read,
    body: Body,
    form: Form,
) -> Result<Submitted, Refusal> {
    let since = Instant::now();
    // What fits no one field does not fit the model.
    let order = check(app, request, caller).await;
    let mut order = order.map_err(|refusal| refusal.or_field(given.iter().map(String::as_str), "model"))?;
    drop(body);
    if form != Form::Events {
        order.previews = 0;
    }
    if form == Form::Wav && order.sounding.is_none() {
        let message = "this model draws pictures, and no sounds: Accept image/png, say";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, message));
    }
    if form == Form::Gif {
        if order.plan.has_second_pass() {
            let message =
                "a GIF shows one pass, and with `upscale` there are two: ask for PNG, or leave it out";
            return Err(Refusal::unprocessable(message).with_field("upscale"));
        }
        bounds::check_animation(order.count, order.size, &app.options)?;
    }
    let (count, model) = (order.count, order.model.name.clone());
    let (sender, events) = mpsc::channel(worker::room(count));
    let ahead = app.queue.submit(Job {
        order,
        animated: form == Form::Gif,
        events: sender,
        since,
    })?;
    Ok(Submitted {
        given,
        model,
        count,
        ahead,
        events,
    })
}

impl Submitted {
    /// Waits for all pictures.
    async fn drawn(mut self) -> Result<Drawn, Refusal> {
        let (mut finished, mut gif) = (Vec::new(), None);
        loop {
            match self.events.recv().await {
                Some(Event::Finished(picture)) => finished.push(picture),
                Some(Event::Animation(animation)) => gif = Some(encode(animation, self.count).await?),
                Some(Event::Done(seconds)) => {
                    finished.sort_by_key(|picture| picture.number);
                    return Ok(Drawn {
                        model: self.model,
                        finished,
                        gif,
                        seconds,
                    });
                }
                // Scales that drive a sample beyond all numbers, say: what was asked for cannot be drawn.
                Some(Event::Failed(message)) => {
                    let given = || self.given.iter().map(String::as_str);
                    let scale = match given().any(|name| name == "guide") {
                        true => "guide",
                        false => "guidance_scale",
                    };
                    return Err(Refusal::unprocessable(message).or_field(given(), scale));
                }
                Some(Event::Started | Event::Progress(_)) => {}
                None => return Err(lost()),
            }
        }
    }
}

fn lost() -> Refusal {
    Refusal::internal("the picture was lost to a defect of this server: its log says more")
}

/// Makes an order of a request, on threads that may block. Pictures have a stage of their own, which requests without them pass by.
async fn check(app: &Arc<App>, asked: GenerateRequest, caller: Caller) -> Result<Order, Refusal> {
    let number = app.models.number(asked.model.as_deref())?;
    let model = app.lease(number, caller).await?;
    let mut asked = Asked::of(asked, number, model, &app.options)?;
    if asked.has_pictures() {
        let pass = app.stages.pictures.enter(caller.0).await?;
        let shared = app.clone();
        asked = blocking(pass, move || {
            asked.decode(&shared.options, &shared.kept)?;
            Ok(asked)
        })
        .await?;
    }
    let pass = app.stages.plans.enter(caller.0).await?;
    let shared = app.clone();
    blocking(pass, move || asked.order(&shared.options, &shared.models)).await
}

/// Does work on a thread that may block. The place at its stage is kept until it is done, also where whoever asked has gone away by then.
pub(super) async fn blocking<T: Send + 'static>(
    pass: Pass,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(pass);
        done
    });
    done.await.unwrap_or_else(|_| Err(lost()))
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
fn answer(form: Form, drawn: Drawn) -> Result<Response, Refusal> {
    let refused = |error: langevin::Error| Refusal::internal(error.to_string());
    let Drawn {
        model,
        finished,
        gif,
        seconds,
    } = drawn;
    match (form, finished.as_slice()) {
        (Form::Json, _) => {
            let pictures = finished.iter().map(finished_json).collect::<Result<Vec<_>, _>>();
            let pictures = pictures.map_err(refused)?;
            Ok(Json(json!({ "model": model, "seconds": seconds, "pictures": pictures })).into_response())
        }
        (Form::Gif, _) => {
            let gif = gif.ok_or_else(lost)?;
            Ok(([(header::CONTENT_TYPE, "image/gif")], gif).into_response())
        }
        (Form::Wav, [one, ..]) => match &one.sound {
            Some(sound) => Ok(([(header::CONTENT_TYPE, "audio/wav")], sound.wav()).into_response()),
            None => Err(lost()),
        },
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
    let wav = finished.sound.as_ref().map(|sound| STANDARD.encode(sound.wav()));
    Ok(json!({
        "number": finished.number,
        "seed": finished.seed,
        "class": finished.class,
        "flagged": finished.flagged,
        "png": STANDARD.encode(png),
        "wav": wav,
    }))
}
