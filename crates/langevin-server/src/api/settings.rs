//! `POST /api/settings`: what a picture's file says about how it was drawn, as a request for it.

use std::{io::Cursor, path::Path, sync::Arc};

use axum::{
    Json,
    extract::{Extension, Request, State},
};
use langevin::{
    Request as Asked, grid,
    options::LoraInput,
    settings::{NotedLora, Program, Settings},
    weights::lora::LORA_ENDINGS,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{body::Body, generate::blocking};
use crate::{
    app::{App, Caller},
    refusal::Refusal,
};

/// What a picture says.
#[derive(Debug, Serialize)]
pub(super) struct Said {
    /// Who wrote it.
    program: &'static str,
    /// The model, where there is one of its name here.
    model: Option<String>,
    /// The fields of a request that draws it again, as far as can be; those that are as usual are left out.
    request: Map<String, Value>,
    /// What will not be as it was.
    notices: Vec<String>,
}

pub(super) async fn settings(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Said>, Refusal> {
    let body = Body::read_png(&app, caller, request).await?;
    let pass = app.stages.plans.enter(caller.0).await?;
    blocking(pass, move || said(&app, &body.bytes)).await.map(Json)
}

/// What a PNG says.
fn said(app: &App, png: &[u8]) -> Result<Said, Refusal> {
    let texts = grid::png_texts(Cursor::new(png))
        .map_err(|error| Refusal::unprocessable(format!("the picture {error}")))?;
    let nothing = |what: &str| Refusal::unprocessable(format!("this picture's file says {what}"));
    let settings = Settings::of_texts(&texts)?;
    let settings = settings.ok_or_else(|| nothing("nothing about how it was drawn"))?;
    let Settings {
        program,
        model,
        loras,
        embeddings,
        request,
        mut notices,
        ..
    } = settings;
    let mut asked = request.ok_or_else(|| {
        nothing("something about how it was drawn, but not enough to draw it again; `langevin info` shows it")
    })?;
    let named = model.map(|model| model.short());
    let here = named
        .as_deref()
        .and_then(|named| app.models.names().find(|name| *name == named).map(String::from));
    if let Some(named) = named.filter(|_| here.is_none()) {
        notices.push(format!(
            "it was drawn with the model `{named}`, which is not here"
        ));
    }
    // As they were noted, in place of what the request may say of them.
    asked.loras.clear();
    // What is on the model already counts without being asked for; it is noted before what is.
    let merged = here.as_deref().map_or(&[][..], |here| app.models.merged(here));
    let mut merged: Vec<&Path> = merged.iter().map(|lora| lora.path.as_path()).collect();
    for noted in &loras {
        let same = |path: &&Path| names(path).iter().any(|name| names(&noted.path).contains(name));
        if let Some(place) = merged.iter().position(same) {
            merged.remove(place);
            continue;
        }
        match lora(app, noted) {
            Ok((input, notice)) => {
                notices.extend(notice);
                asked.loras.push(input);
            }
            Err(missing) => notices.push(missing),
        }
    }
    for word in &embeddings {
        let name = word.path.file_stem().unwrap_or_default().to_string_lossy();
        notices.push(format!(
            "it was drawn with the learned words of {name}{}: what they are is seen in the model's `embeddings`",
            noted_hash(word.hash.as_deref())
        ));
    }
    let pictures: Vec<&str> = asked.images_mut().map(|(option, _)| option).collect();
    notices.extend(pictures.iter().map(|option| {
        format!("it was drawn with a picture (`{option}`), which is not in its file: give it again")
    }));
    asked.leave_images();
    let mut request = changed(&asked)?;
    request.retain(|field, _| app.schema.has(field));
    Ok(Said {
        program: match program {
            Program::Langevin => "langevin",
            Program::A1111 => "A1111",
            Program::Comfy => "ComfyUI",
        },
        model: here,
        request,
        notices,
    })
}

/// A LoRA by its name here, with a word where it is another one under that name. The error is a sentence.
fn lora(app: &App, noted: &NotedLora) -> Result<(LoraInput, Option<String>), String> {
    let names = names(&noted.path);
    let shown = names.first().map_or("", String::as_str);
    let there = app.options.loras.as_deref();
    let found = names
        .iter()
        .find(|name| there.is_some_and(|loras| loras.names().any(|there| there == name.as_str())));
    let Some(name) = found else {
        return Err(format!(
            "it was drawn with the LoRA {shown}{}, which is not here and is left out",
            noted_hash(noted.hash.as_deref())
        ));
    };
    // Its file is read for that, so only where there is something to compare.
    let notice = noted.hash.as_deref().and_then(|noted| {
        let (_, own) = there?.hash(name)?;
        let is_same = own.starts_with(noted) || noted.starts_with(&own);
        (!is_same).then(|| {
            format!(
                "the LoRA {name} here is another one than the picture was drawn with: its hash is {}, and was {}",
                short(&own),
                short(noted)
            )
        })
    });
    Ok((LoraInput::of_scales(name, noted.scale.clone()), notice))
}

/// What a LoRA may be called that was noted by its file, or by its name alone, which may have a full stop in it.
fn names(path: &Path) -> Vec<String> {
    let is_file = path
        .extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| LORA_ENDINGS.contains(&ending.to_ascii_lowercase().as_str()));
    let stem = path.file_stem().filter(|_| is_file);
    let names = [stem, path.file_name()].into_iter().flatten();
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

fn noted_hash(hash: Option<&str>) -> String {
    hash.map_or(String::new(), |hash| format!(" ({})", short(hash)))
}

/// As many digits of a hash as others show.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// The fields of a request that are not as usual.
fn changed(request: &Asked) -> Result<Map<String, Value>, Refusal> {
    let written = |request: &Asked| match serde_json::to_value(request) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(Refusal::unprocessable(
            "what the picture's file says cannot be written as a request",
        )),
    };
    let usual = written(&Asked::default())?;
    let mut fields = written(request)?;
    fields.retain(|name, value| usual.get(name) != Some(value));
    Ok(fields)
}
