//! The routes, and what their handlers share.

mod automatic;
mod body;
mod foreign;
mod form;
mod generate;
mod openai;
mod schedule;
mod tokens;
mod training;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Extension, Path, State, rejection::PathRejection},
    http::header,
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{get, post},
};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    access,
    metrics::Metrics,
    models::{Lease, Models},
    options::{Limits, ServerOptions},
    page,
    queue::{Queue, QueueStatus},
    refusal::Refusal,
    runs::Runs,
    schema::RequestSchema,
    stage::{Room, Stage},
};

/// Mebibytes of decoded pictures that wait at once, which is five times what one request may have.
const PICTURES_KEPT: usize = 1024;

/// Who calls, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) IpAddr);

/// What a request goes through before it waits to be drawn.
pub(crate) struct Stages {
    /// Bodies that may hold pictures are in memory, from when they are read until they are checked.
    pub(crate) bodies: Arc<Stage>,
    /// Pictures are decoded: more at once would take memory and win no time.
    pub(crate) pictures: Arc<Stage>,
    /// Models are waited for, where they are not in memory.
    pub(crate) models: Arc<Stage>,
    /// Texts are encoded, and what is asked for is held to the model.
    pub(crate) plans: Arc<Stage>,
    /// What training runs have written is read.
    pub(crate) runs: Arc<Stage>,
}

impl Stages {
    fn new() -> Self {
        let stage = |name, at_once, at_once_of_one, there| {
            Stage::new(
                name,
                Room {
                    at_once,
                    at_once_of_one,
                    there,
                },
            )
        };
        Self {
            bodies: stage("sending pictures", 32, 16, 32),
            pictures: stage("having their pictures decoded", 2, 1, 32),
            models: stage("waiting for a model", 128, 64, 128),
            plans: stage("being checked", 2, 1, 128),
            runs: stage("reading training runs", 1, 1, 128),
        }
    }
}

/// What handlers share.
pub(crate) struct App {
    pub(crate) models: Arc<Models>,
    pub(crate) options: Arc<ServerOptions>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether nothing but this machine can call, and whoever calls is let in.
    pub(crate) only_local: bool,
    pub(crate) stages: Stages,
    /// The mebibytes that decoded pictures of requests may take until these are drawn.
    pub(crate) kept: Arc<Semaphore>,
    /// What a request may hold.
    pub(crate) schema: RequestSchema,
    /// The training runs that are shown.
    pub(crate) runs: Option<Arc<Runs>>,
}

impl App {
    pub(crate) fn new(
        models: Arc<Models>,
        options: Arc<ServerOptions>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        address: SocketAddr,
    ) -> Arc<Self> {
        let (runs, schema) = (options.runs.clone(), RequestSchema::new(&options));
        Arc::new(Self {
            only_local: address.ip().is_loopback() && options.api_key.is_none(),
            models,
            options,
            queue,
            metrics,
            stages: Stages::new(),
            kept: Arc::new(Semaphore::new(PICTURES_KEPT)),
            schema,
            runs: runs.map(|folder| Arc::new(Runs::new(folder))),
        })
    }
}

/// The whole server.
pub(crate) fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/api/generate", post(generate::generate))
        .route("/api/models", get(models))
        .route("/api/models/{model}", get(model))
        .route("/api/queue", get(queue))
        .route("/api/schedule", get(schedule::schedule))
        .route("/api/tokens", get(tokens::tokens))
        .route("/api/runs", get(training::runs))
        .route("/api/runs/{run}", get(training::run))
        .route("/api/runs/{run}/pictures/{picture}", get(training::picture))
        .route("/metrics", get(metrics))
        .route("/sdapi/v1/txt2img", post(automatic::txt2img))
        .route("/sdapi/v1/img2img", post(automatic::img2img))
        .route("/sdapi/v1/options", get(automatic::options))
        .route("/sdapi/v1/sd-models", get(automatic::models))
        .route("/sdapi/v1/samplers", get(automatic::samplers))
        .route("/v1/images/generations", post(openai::generations))
        .route_layer(from_fn_with_state(app.clone(), access::guard));
    Router::new()
        .merge(guarded)
        .route("/health", get(health))
        .route("/api/openapi.json", get(description))
        .merge(page::routes())
        .fallback(|| async { Refusal::not_found("there is nothing at this address; /docs lists the API") })
        .layer(DefaultBodyLimit::max(app.options.limits.body))
        .layer(from_fn_with_state(app.clone(), access::known_host))
        .layer(from_fn_with_state(app.clone(), access::dress))
        .layer(from_fn(plain_method_error))
        .with_state(app)
}

/// An address that is called with the wrong method is answered as any other error is.
async fn plain_method_error(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let response = next.run(request).await;
    if response.status() != axum::http::StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let (parts, _) = response.into_parts();
    let body = Json(
        serde_json::json!({ "error": "this address is not called by this method; /docs lists the API" }),
    );
    let mut response = (parts.status, body).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

#[derive(Serialize)]
struct ModelList {
    version: &'static str,
    models: Vec<Value>,
    limits: Limits,
    /// Whether there are training runs to follow.
    runs: bool,
}

async fn models(State(app): State<Arc<App>>) -> impl IntoResponse {
    let list = ModelList {
        version: env!("CARGO_PKG_VERSION"),
        models: app.models.describe(&app.options),
        limits: app.options.limits,
        runs: app.options.runs.is_some(),
    };
    Json(list).into_response()
}

/// One model, loaded where it is not.
async fn model(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path(name) = name.map_err(|rejection| Refusal::not_found(rejection.body_text()))?;
    let number = app.models.number(Some(&name)).map_err(Refusal::into_not_found)?;
    let _model = lease(&app, number, caller).await?;
    Ok(Json(app.models.describe_one(number, &app.options)))
}

/// A model, for which a caller may have to wait.
async fn lease(app: &App, number: usize, caller: Caller) -> Result<Lease, Refusal> {
    let _place = app.stages.models.enter(caller.0).await?;
    app.models.lease(number).await
}

/// What the API is, with the schema of a request in its place.
async fn description(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refusal> {
    let description = serde_json::from_str::<Value>(page::DESCRIPTION);
    let mut description = description.map_err(|error| Refusal::internal(error.to_string()))?;
    description["components"]["schemas"]["GenerateRequest"] = app.schema.to_value();
    Ok(([(header::CACHE_CONTROL, "no-cache")], Json(description)))
}

async fn queue(State(app): State<Arc<App>>) -> Json<QueueStatus> {
    Json(app.queue.status())
}

/// Answers as long as the server lives; `draining` once it takes no more requests.
async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    let draining = app.queue.status().draining;
    let status = if draining { "draining" } else { "ok" };
    Json(serde_json::json!({ "status": status }))
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.metrics.text(app.queue.status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
