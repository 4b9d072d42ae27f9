//! `--like`: what a picture says of how it was drawn.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{
    Request,
    settings::{ModelName, Settings},
};

use super::SampleArgs;
use crate::terminal;

/// Endings of single files, where a picture names a model without one.
const ENDINGS: [&str; 3] = ["safetensors", "ckpt", "pt"];

/// What is asked for and the model that is to draw it: what was typed, over what the picture says that is named.
///
/// # Errors
/// If the picture says nothing, or too little, or no model is named.
pub(super) fn resolve(args: &SampleArgs) -> Result<(Request, PathBuf)> {
    let Some(picture) = &args.like else {
        // The command line has been checked for it.
        let path = args.path.clone().unwrap_or_default();
        return Ok((args.request.0.clone(), path));
    };
    let Some(settings) = Settings::read(picture)? else {
        bail!(
            "--like {}: says nothing about how it was drawn",
            picture.display()
        );
    };
    let Some(request) = settings.request else {
        bail!(
            "--like {}: says something about how it was drawn, but not enough to draw it again; `langevin info {0}` shows it",
            picture.display()
        );
    };
    for notice in &settings.notices {
        terminal::say(notice);
    }
    let path = match (&args.path, &settings.model) {
        (Some(path), _) => path.clone(),
        (None, Some(model)) => found(picture, model)?,
        (None, None) => bail!("--like {}: names no model; name one before it", picture.display()),
    };
    let mut request = args.request.over(request)?;
    if request.control.is_empty() {
        // What was said about controls that are not named again means nothing.
        let Request {
            guess_mode,
            control_preprocess,
            control_resize,
            ..
        } = args.request.0.clone();
        request = Request {
            guess_mode,
            control_preprocess,
            control_resize,
            ..request
        };
    }
    let typed = &args.request.0;
    // One of them in place of the other, whichever the picture has.
    if typed.seed != Request::default().seed {
        request.seeds = Vec::new();
    }
    if !typed.seeds.is_empty() || !typed.prompt.is_empty() {
        request.count = typed.count;
    }
    if typed.steps.is_some() {
        request.timesteps = Vec::new();
    }
    Ok((request, path))
}

/// The model that a picture names, where it is there; a name of the Hub is taken at its word.
fn found(picture: &Path, model: &ModelName) -> Result<PathBuf> {
    let path = PathBuf::from(&model.path);
    let with = |ending: &str| PathBuf::from(format!("{}.{ending}", model.path));
    let places = std::iter::once(path.clone()).chain(ENDINGS.iter().map(|ending| with(ending)));
    if let Some(place) = places.into_iter().find(|place| place.exists()) {
        return Ok(place);
    }
    match crate::hub::remote(&model.path) {
        Some(Ok(_)) => Ok(path),
        _ => bail!(
            "--like {}: it was drawn with `{}`, which is not here: name a model before --like",
            picture.display(),
            model.path
        ),
    }
}
