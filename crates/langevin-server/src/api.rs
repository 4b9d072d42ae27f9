//! The routes.

mod automatic;
mod body;
mod foreign;
mod form;
mod generate;
mod openai;
mod schedule;
mod settings;
mod tokens;
mod training;

use std::sync::Arc;

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

use crate::{
    access,
    app::{App, Caller},
    metrics::QueueStatus,
    options::Limits,
    page,
    refusal::Refusal,
};

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
        .route("/api/settings", post(settings::settings))
        .route("/sdapi/v1/txt2img", post(automatic::txt2img))
        .route("/sdapi/v1/img2img", post(automatic::img2img))
        .route("/sdapi/v1/options", get(automatic::options))
        .route("/sdapi/v1/sd-models", get(automatic::models))
        .route("/sdapi/v1/samplers", get(automatic::samplers))
        .route("/sdapi/v1/loras", get(automatic::loras))
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

async fn models(State(app): State<Arc<App>>) -> Result<Json<ModelList>, Refusal> {
    let models = described(&app, |app| app.models.describe(&app.options)).await?;
    Ok(Json(ModelList {
        version: env!("CARGO_PKG_VERSION"),
        models,
        limits: app.options.limits,
        runs: app.options.runs.is_some(),
    }))
}

/// What is said of models, on a thread that may block: which of the folders' files fit one is found out by looking into them, once.
async fn described<T: Send + 'static>(
    app: &Arc<App>,
    describe: impl FnOnce(&App) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let app = app.clone();
    let described = tokio::task::spawn_blocking(move || describe(&app)).await;
    described.map_err(|_| Refusal::internal("the models cannot be described: the server's log says why"))
}

/// One model, loaded where it is not.
async fn model(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path(name) = name.map_err(|rejection| Refusal::not_found(rejection.body_text()))?;
    let number = app.models.number(Some(&name)).map_err(Refusal::into_not_found)?;
    let _model = app.lease(number, caller).await?;
    let described = described(&app, move |app| app.models.describe_one(number, &app.options));
    described.await.map(Json)
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
