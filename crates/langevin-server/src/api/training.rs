//! `GET /api/runs` and below: training runs, as they go on.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
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

/// What is no text is no name of anything.
fn no_name(rejection: PathRejection) -> Refusal {
    Refusal::not_found(rejection.body_text())
}

pub(super) async fn runs(State(app): State<Arc<App>>) -> Result<Json<Vec<RunEntry>>, Refusal> {
    with_folder(&app, |folder| runs::list(&folder)).await.map(Json)
}

pub(super) async fn run(
    State(app): State<Arc<App>>,
    run: Result<Path<String>, PathRejection>,
) -> Result<Json<RunDetails>, Refusal> {
    let Path(run) = run.map_err(no_name)?;
    with_folder(&app, move |folder| runs::details(&folder, &run))
        .await
        .map(Json)
}

pub(super) async fn picture(
    State(app): State<Arc<App>>,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((run, picture)) = names.map_err(no_name)?;
    let bytes = with_folder(&app, move |folder| runs::picture(&folder, &run, &picture)).await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], bytes).into_response())
}
