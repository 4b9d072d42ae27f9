//! `GET /api/runs` and below: training runs, as they go on.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    app::{App, Caller},
    refusal::Refusal,
    runs::Runs,
};

/// Does `work` with the runs on a thread that may block, one at a time, so that drawing keeps the other threads.
async fn with_runs<T: Send + 'static>(
    app: &App,
    caller: Caller,
    work: impl FnOnce(&Runs) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let runs = app
        .runs
        .clone()
        .ok_or_else(|| Refusal::not_found("this server shows no training runs (--runs FOLDER)"))?;
    let place = app.stages.runs.enter(caller.0).await?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&runs);
        drop(place);
        done
    });
    done.await.unwrap_or_else(|_| {
        Err(Refusal::internal(
            "reading the runs failed in a way that it should not",
        ))
    })
}

fn json(bytes: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// What is no text is no name of anything.
fn no_name(rejection: PathRejection) -> Refusal {
    Refusal::not_found(rejection.body_text())
}

pub(super) async fn runs(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    with_runs(&app, caller, Runs::list).await.map(json)
}

pub(super) async fn run(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    run: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(run) = run.map_err(no_name)?;
    with_runs(&app, caller, move |runs| runs.details(&run))
        .await
        .map(json)
}

pub(super) async fn picture(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    names: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((run, picture)) = names.map_err(no_name)?;
    let bytes = with_runs(&app, caller, move |runs| runs.picture(&run, &picture)).await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], bytes).into_response())
}
