//! `--like`: what a picture says of how it was drawn.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{
    Lora, Request,
    conditioning::EmbeddingFile,
    settings::{ModelName, Settings, addition_hash},
    weights::{lora, single_file::ENDINGS},
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
    let additions = additions(&settings, args);
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

/// The LoRA and learned words that a picture names, as far as they are here: where it has them, or by their names in the folders that are named.
fn additions(settings: &Settings, args: &SampleArgs) -> Additions {
    let mut additions = Additions::default();
    for noted in &settings.loras {
        let inside = args.lora_dir.as_deref().and_then(|folder| {
            let names = [noted.path.file_name(), noted.path.file_stem()];
            let names = names.into_iter().flatten().filter_map(|name| name.to_str());
            names
                .map(|name| lora::named(folder, name))
                .find_map(|path| path.ok())
        });
        let path = Some(noted.path.clone()).filter(|path| path.exists()).or(inside);
        match path {
            Some(path) => {
                say_if_another("LoRA", &path, noted.hash.as_deref(), true);
                additions.loras.push(Lora::new(path, noted.scale.clone()));
            }
            None => say_missing("LoRA", &noted.path, noted.hash.as_deref(), "--lora-dir"),
        }
    }
    for noted in &settings.embeddings {
        let inside = args.loading.embedding_dir().and_then(|folder| {
            let path = folder.join(noted.path.file_name()?);
            path.is_file().then_some(path)
        });
        let path = Some(noted.path.clone()).filter(|path| path.exists()).or(inside);
        match path {
            Some(path) => {
                say_if_another("file of learned words", &path, noted.hash.as_deref(), false);
                additions.embeddings.push(EmbeddingFile {
                    path,
                    token: noted.token.clone(),
                });
            }
            None => say_missing(
                "file of learned words",
                &noted.path,
                noted.hash.as_deref(),
                "--embedding-dir",
            ),
        }
    }
    additions
}

/// Says that something is not here that a picture was drawn with.
fn say_missing(what: &str, path: &Path, hash: Option<&str>, flag: &str) {
    let noted = hash.map_or(String::new(), |hash| format!(" ({})", short(hash)));
    terminal::say(&format!(
        "it was drawn with the {what} {}{noted}, which is not here and is left out; {flag} names a folder to look for it in",
        path.display()
    ));
}

/// Says where something is another than a picture was drawn with.
fn say_if_another(what: &str, path: &Path, noted: Option<&str>, is_lora: bool) {
    let own = addition_hash(path, is_lora).ok();
    if let (Some(noted), Some(own)) = (noted, own)
        && !own.starts_with(noted)
    {
        terminal::say(&format!(
            "{} is another {what} than the picture was drawn with: its hash is {}, and was {}",
            path.display(),
            short(&own),
            short(noted)
        ));
    }
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
