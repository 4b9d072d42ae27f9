//! The routes, and what their handlers share.

mod generate;
mod schedule;
mod tokens;
mod training;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::header,
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{get, post},
};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::{
    access,
    metrics::Metrics,
    models::{Description, Models},
    options::{Limits, ServerOptions},
    page,
    queue::{Queue, QueueStatus},
    refusal::Refusal,
};

/// Requests that are checked at once, pictures in them decoded: more would take memory and win no time.
const CHECKED_AT_ONCE: usize = 2;
/// Requests whose bodies are in memory at once, on their way in or waiting to be checked.
const READ_AT_ONCE: usize = 64;

/// What handlers share.
pub(crate) struct App {
    pub models: Arc<Models>,
    pub options: Arc<ServerOptions>,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    /// Whether nothing but this machine can call, and whoever calls is let in.
    pub only_local: bool,
    /// Held while a request is checked, also where whoever sent it has gone away by then.
    pub checking: Arc<Semaphore>,
    /// Held from before a body is read until it is checked.
    pub reading: Semaphore,
}

impl App {
    pub(crate) fn new(
        models: Arc<Models>,
        options: Arc<ServerOptions>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        address: SocketAddr,
    ) -> Arc<Self> {
        Arc::new(Self {
            only_local: address.ip().is_loopback() && options.api_key.is_none(),
            models,
            options,
            queue,
            metrics,
            checking: Arc::new(Semaphore::new(CHECKED_AT_ONCE)),
            reading: Semaphore::new(READ_AT_ONCE),
        })
    }
}

/// The whole server.
pub(crate) fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/api/generate", post(generate::generate))
        .route("/api/models", get(models))
        .route("/api/queue", get(queue))
        .route("/api/schedule", get(schedule::schedule))
        .route("/api/tokens", get(tokens::tokens))
        .route("/api/runs", get(training::runs))
        .route("/api/runs/{run}", get(training::run))
        .route("/api/runs/{run}/pictures/{picture}", get(training::picture))
        .route("/metrics", get(metrics))
        .route_layer(from_fn_with_state(app.clone(), access::guard));
    Router::new()
        .merge(guarded)
        .route("/health", get(health))
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
struct ModelList<'a> {
    version: &'static str,
    models: Vec<Description<'a>>,
    limits: Limits,
    /// Whether there are training runs to follow.
    runs: bool,
}

async fn models(State(app): State<Arc<App>>) -> impl IntoResponse {
    let clip = app.options.clip.is_some();
    let list = ModelList {
        version: env!("CARGO_PKG_VERSION"),
        models: app
            .models
            .iter()
            .map(|model| model.describe(clip, app.options.controls.as_deref()))
            .collect(),
        limits: app.options.limits,
        runs: app.options.runs.is_some(),
    };
    Json(list).into_response()
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
