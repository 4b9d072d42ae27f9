//! `GET /api/schedule`: a model's noise schedule, and where a sampler's steps fall on it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Extension, Query, State, rejection::QueryRejection},
};
use langevin::{plot::ScheduleCurves, schedulers::Scheduler};
use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Caller},
    refusal::Refusal,
};

/// Points of a curve that are sent at most.
const POINTS: usize = 250;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    model: Option<String>,
    sampler: Option<String>,
    steps: Option<String>,
}

/// A place on the schedule.
#[derive(Debug, Serialize)]
struct Point {
    timestep: f64,
    /// √ᾱ, the share of the picture.
    signal: f64,
    /// √(1 - ᾱ), the share of the noise.
    noise: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Schedule {
    sampler: String,
    steps: usize,
    train_timesteps: usize,
    curve: Vec<Point>,
    /// Where the model is asked, in the order in which it is.
    calls: Vec<Point>,
}

pub(super) async fn schedule(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Schedule>, Refusal> {
    let Query(asked) =
        asked.map_err(|error| Refusal::unprocessable(error.body_text()).with_field("query"))?;
    let steps = asked.steps.as_deref().map(whole_number).transpose()?;
    let number = app.models.number(asked.model.as_deref())?;
    let model = app.lease(number, caller).await?;
    let sampler = model.sampler(asked.sampler.as_deref());
    let (sampler, mut scheduler) =
        sampler.map_err(|error| Refusal::from(error).or_field(std::iter::once("sampler"), "sampler"))?;
    let steps = steps.unwrap_or_else(|| model.pipeline.steps_by(&scheduler));
    if steps > app.options.limits.steps {
        return Err(Refusal::beyond("steps", steps, app.options.limits.steps as u64));
    }
    // A sampler that has no schedule, or none of so many steps.
    let refused = |error| Refusal::from(error).or_field(["sampler", "steps"].into_iter(), "sampler");
    scheduler.set_timesteps(steps).map_err(refused)?;
    let curves = ScheduleCurves::of(&scheduler).map_err(refused)?;
    let last = curves.signal.len().saturating_sub(1);
    let stride = (last as f64 / POINTS as f64).max(1.0);
    let places = (0..=POINTS)
        .map(|i| (i as f64 * stride).round())
        .take_while(|&t| t <= last as f64);
    Ok(Json(Schedule {
        sampler,
        steps,
        train_timesteps: curves.signal.len(),
        curve: places.map(|t| point(&curves, t)).collect(),
        calls: curves.timesteps.iter().map(|&t| point(&curves, t)).collect(),
    }))
}

/// A number of steps in an address.
fn whole_number(text: &str) -> Result<usize, Refusal> {
    text.parse().map_err(|error| {
        let shown: String = text.chars().take(40).collect();
        Refusal::unprocessable(format!("steps is a whole number, and not `{shown}` ({error})"))
            .with_field("steps")
    })
}

/// The place of a timestep, which may lie between two of the table.
fn point(curves: &ScheduleCurves, timestep: f64) -> Point {
    let last = curves.signal.len().saturating_sub(1);
    let low = (timestep.max(0.0).floor() as usize).min(last);
    let (high, part) = ((low + 1).min(last), (timestep - low as f64).clamp(0.0, 1.0));
    let between = |values: &[f64]| {
        let at = |place: usize| values.get(place).copied().unwrap_or_default();
        at(low) * (1.0 - part) + at(high) * part
    };
    Point {
        timestep,
        signal: between(&curves.signal),
        noise: between(&curves.noise),
    }
}
