//! `--like`: what a picture says of how it was drawn.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{
    Lora, Request,
    conditioning::EmbeddingFile,
    settings::{ModelName, Settings, addition_hash},
    weights::single_file::ENDINGS,
};

use super::SampleArgs;
use crate::{loading::Additions, terminal};

/// What is asked for and the model that is to draw it: what was typed, over what the picture says that is named.
///
/// # Errors
/// If the picture says nothing, or too little, or no model is named.
pub(super) fn resolve(args: &SampleArgs) -> Result<(Request, PathBuf, Additions)> {
    let Some(picture) = &args.like else {
        // The command line has been checked for it.
        let path = args.path.clone().unwrap_or_default();
        return Ok((args.request.0.clone(), path, Additions::default()));
    };
    let Some(settings) = Settings::read(picture)? else {
        bail!(
            "--like {}: says nothing about how it was drawn",
            picture.display()
        );
    };
    let Some(request) = settings.request.clone() else {
        bail!(
            "--like {}: says something about how it was drawn, but not enough to draw it again; `langevin info {0}` shows it",
            picture.display()
        );
    };
    for notice in &settings.notices {
        terminal::say(notice);
    }
    let additions = additions(&settings);
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
    Ok((request, path, additions))
}

/// The LoRA and learned words that a picture names, as far as they are here.
fn additions(settings: &Settings) -> Additions {
    let mut additions = Additions::default();
    let is_here = |what: &str, path: &Path, hash: &Option<String>, is_lora: bool| {
        let noted = hash
            .as_deref()
            .map_or(String::new(), |hash| format!(" ({})", short(hash)));
        if !path.exists() {
            terminal::say(&format!(
                "it was drawn with the {what} {}{noted}, which is not here and is left out",
                path.display()
            ));
            return false;
        }
        let own = addition_hash(path, is_lora).ok();
        if let (Some(noted), Some(own)) = (hash, own)
            && *noted != own
        {
            terminal::say(&format!(
                "{} is another {what} than the picture was drawn with: its hash is {}, and was {}",
                path.display(),
                short(&own),
                short(noted)
            ));
        }
        true
    };
    for noted in &settings.loras {
        if is_here("LoRA", &noted.path, &noted.hash, true) {
            additions.loras.push(Lora::new(&noted.path, noted.scale.clone()));
        }
    }
    for noted in &settings.embeddings {
        if is_here("file of learned words", &noted.path, &noted.hash, false) {
            additions.embeddings.push(EmbeddingFile {
                path: noted.path.clone(),
                token: noted.token.clone(),
            });
        }
    }
    additions
}

/// As many digits of a hash as others show.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
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
