//! `GET /api/schedule`: a model's noise schedule, and where a sampler's steps fall on it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use langevin::{plot::ScheduleCurves, schedulers::Scheduler};
use serde::{Deserialize, Serialize};

use super::App;
use crate::{order::unknown_model, refusal::Refusal};

/// Points of a curve that are sent at most.
const POINTS: usize = 250;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    model: Option<String>,
    sampler: Option<String>,
    steps: Option<usize>,
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
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Schedule>, Refusal> {
    let Query(asked) = asked.map_err(|error| Refusal::unprocessable(error.body_text()))?;
    let number = match &asked.model {
        None => 0,
        Some(name) => app
            .models
            .find(name)
            .ok_or_else(|| unknown_model(name, &app.models))?,
    };
    let model = app
        .models
        .get(number)
        .ok_or_else(|| Refusal::unprocessable("this server has no model"))?;
    let (sampler, mut scheduler) = model.sampler(asked.sampler.as_deref())?;
    let steps = asked.steps.unwrap_or_else(|| model.pipeline.steps_by(&scheduler));
    if steps > app.options.limits.steps {
        return Err(Refusal::beyond("steps", steps, app.options.limits.steps as u64));
    }
    scheduler.set_timesteps(steps)?;
    let curves = ScheduleCurves::of(&scheduler)?;
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
