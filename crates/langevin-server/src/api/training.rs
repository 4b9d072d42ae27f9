//! `GET /api/runs` and below: training runs, as they go on.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};

use super::App;
use crate::{
    refusal::Refusal,
    runs::{self, RunDetails, RunEntry},
};

/// Does `work` with the folder of runs on a thread that may block.
async fn with_folder<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(PathBuf) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let folder = app
        .options
        .runs
        .clone()
        .ok_or_else(|| Refusal::not_found("this server shows no training runs (--runs FOLDER)"))?;
    let done = tokio::task::spawn_blocking(move || work(folder)).await;
    done.unwrap_or_else(|_| {
        Err(Refusal::internal(
            "reading the runs failed in a way that it should not",
        ))
    })
}

pub(super) async fn runs(State(app): State<Arc<App>>) -> Result<Json<Vec<RunEntry>>, Refusal> {
    with_folder(&app, |folder| runs::list(&folder)).await.map(Json)
}

pub(super) async fn run(
    State(app): State<Arc<App>>,
    Path(run): Path<String>,
) -> Result<Json<RunDetails>, Refusal> {
    with_folder(&app, move |folder| runs::details(&folder, &run))
        .await
        .map(Json)
}

pub(super) async fn picture(
    State(app): State<Arc<App>>,
    Path((run, picture)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let bytes = with_folder(&app, move |folder| runs::picture(&folder, &run, &picture)).await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], bytes).into_response())
}
