//! `/sdapi/v1/…`, as the clients of AUTOMATIC1111's web UI call it.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{grid, schedulers::SamplerName, settings::upscaler_of_a1111};
use serde_json::{Map, Value, json};

use super::{
    body::Body,
    foreign::{Names, Translation, refused},
    generate::{Drawn, draw},
};
use crate::{
    app::{App, Caller},
    refusal::Refusal,
    request::{Read, object},
};

/// Their names of samplers that are called otherwise here, without spaces and in small letters.
const SAMPLERS: [(&str, &str); 4] = [
    ("plms", "pndm"),
    ("dpm++sde", "dpm-sde"),
    ("dpm++2sa", "dpm++2s"),
    ("dpm++3msde", "dpm++3m"),
];
/// What they call the noise levels that a sampler has of itself.
const USUAL_LEVELS: [&str; 3] = ["automatic", "normal", ""];

pub(super) async fn txt2img(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    answer(answered(&app, caller, request, false).await)
}

pub(super) async fn img2img(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    answer(answered(&app, caller, request, true).await)
}

/// The settings that clients read; none of them can be written.
pub(super) async fn options(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({
        "sd_model_checkpoint": app.models.names().next(), "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1, "samples_format": "png",
    }))
}

/// The models, as clients list them.
pub(super) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let model = |name| json!({ "title": name, "model_name": name, "hash": null, "sha256": null, "filename": name, "config": null });
    Json(app.models.names().map(model).collect())
}

/// The samplers, as clients list them.
pub(super) async fn samplers() -> Json<Value> {
    let all = SamplerName::ALL.iter();
    Json(
        all.map(|sampler| json!({ "name": sampler.name, "aliases": [], "options": {} }))
            .collect(),
    )
}

/// The LoRA that prompts may name, as clients list them. Where they lie is nobody's business.
pub(super) async fn loras(State(app): State<Arc<App>>) -> Json<Value> {
    let names = app.options.loras.iter().flat_map(|loras| loras.names());
    Json(
        names
            .map(|name| json!({ "name": name, "alias": name, "path": name, "metadata": {} }))
            .collect(),
    )
}

fn answer(answer: Result<Value, Refusal>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.into_response_as(|_, body| {
            let mut body = body.clone();
            // Where their clients look.
            body["detail"] = body["error"].clone();
            body
        }),
    }
}

async fn answered(
    app: &Arc<App>,
    caller: Caller,
    request: Request,
    from_picture: bool,
) -> Result<Value, Refusal> {
    app.queue.has_room()?;
    let body = Body::read(app, caller, request).await?;
    let given = object(&body.bytes)?;
    let (fields, names) = translated(given.clone(), from_picture)?;
    let theirs = |refusal: Refusal| refusal.renamed(&names);
    let read = Read::of_fields(fields, &app.schema).map_err(theirs)?;
    let drawn = draw(app, caller, read, body).await.map_err(theirs)?;
    said(&drawn, given)
}

/// Their fields as ours.
fn translated(given: Map<String, Value>, from_picture: bool) -> Result<(Map<String, Value>, Names), Refusal> {
    let mut theirs = Translation::new(given);
    if theirs.asks("prompt") || theirs.asks("negative_prompt") {
        // Texts mean what they mean there.
        theirs.put("prompt", "prompt_syntax", "a1111".into());
    }
    theirs.field("prompt", "prompt");
    theirs.text("negative_prompt", "negative_prompt");
    theirs.field("steps", "steps");
    theirs.field("cfg_scale", "guidance_scale");
    sampler(&mut theirs)?;
    if theirs
        .fields
        .get("scheduler")
        .is_none_or(|sampler| sampler != "ddim")
    {
        // What it is for samplers that draw noise anyhow.
        theirs.pass_as("eta", &[1.into(), json!(1.0), 0.into(), json!(0.0)]);
    }
    theirs.field("eta", "eta");
    overrides(&mut theirs)?;
    // Any seed, where they ask for none.
    match theirs.take("seed") {
        Some(seed) if seed.as_i64() != Some(-1) => theirs.put("seed", "seed", seed),
        _ => theirs.put("seed", "seed", any_seed().into()),
    }
    let number = |value: Option<Value>| value.map_or(Some(1), |value| value.as_u64());
    let (size, rounds) = (theirs.take("batch_size"), theirs.take("n_iter"));
    match (number(size.clone()), number(rounds.clone())) {
        (Some(size), Some(rounds)) => theirs.put("batch_size", "count", size.saturating_mul(rounds).into()),
        (None, _) => return Err(refused("batch_size", &size.unwrap_or_default())),
        (_, None) => return Err(refused("n_iter", &rounds.unwrap_or_default())),
    }
    match (theirs.take("width"), theirs.take("height")) {
        (None, None) => {}
        (width, height) => {
            let side = |side: Option<Value>| side.map_or(Some(512), |side| side.as_u64());
            let (width, height) = (
                side(width.clone()).ok_or_else(|| refused("width", &width.unwrap_or_default()))?,
                side(height.clone()).ok_or_else(|| refused("height", &height.unwrap_or_default()))?,
            );
            theirs.put("width", "size", format!("{width}x{height}").into());
        }
    }
    if from_picture {
        picture(&mut theirs)?;
    } else {
        second_pass(&mut theirs)?;
    }
    clip_skip(&mut theirs, "clip_skip")?;
    // This server keeps no pictures, and one request's settings for no other.
    theirs.pass(&[
        "save_images",
        "do_not_save_samples",
        "do_not_save_grid",
        "override_settings_restore_afterwards",
        "disable_extra_networks",
        "comments",
    ]);
    theirs.pass_as("send_images", &[true.into()]);
    theirs.pass_as("s_noise", &[1.into(), json!(1.0)]);
    theirs.pass_as("initial_noise_multiplier", &[1.into(), json!(1.0)]);
    if from_picture && !theirs.asks("enable_hr") {
        theirs.pass_all_of("hr_");
        theirs.pass(&["firstphase_width", "firstphase_height"]);
    }
    if !theirs.asks("refiner_checkpoint") {
        theirs.pass(&["refiner_switch_at"]);
    }
    if !theirs.asks("subseed_strength") {
        theirs.pass(&["subseed"]);
    }
    let names = theirs.names();
    Ok((theirs.end()?, names))
}

/// A sampler by their name, with the noise levels that they name beside it.
fn sampler(theirs: &mut Translation) -> Result<(), Refusal> {
    let index = theirs
        .take("sampler_index")
        .filter(|value| value != "" && *value != 0);
    let name = theirs.take("sampler_name").filter(|value| value != "").or(index);
    let levels = theirs.take("scheduler");
    if let Some(ours) = named_sampler("sampler_name", name, "scheduler", levels)? {
        theirs.put("sampler_name", "scheduler", ours.name.into());
    }
    Ok(())
}

/// The sampler of their name, with the noise levels that are named beside it; `None` where neither is.
fn named_sampler(
    field: &'static str,
    name: Option<Value>,
    levels_field: &'static str,
    levels: Option<Value>,
) -> Result<Option<&'static SamplerName>, Refusal> {
    let levels = levels
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_lowercase();
    let is_usual = USUAL_LEVELS.contains(&levels.as_str());
    let Some(name) = name else {
        return if is_usual {
            Ok(None)
        } else {
            Err(refused(levels_field, &levels.into()))
        };
    };
    let plain = |name: &str| -> String { name.to_lowercase().split([' ', '-', '_']).collect() };
    let asked = plain(name.as_str().unwrap_or_default());
    let own = SAMPLERS.iter().find(|(theirs, _)| *theirs == asked);
    let asked = own.map_or(asked.clone(), |(_, ours)| plain(ours));
    let asked = if is_usual {
        asked
    } else {
        format!("{asked}{}", plain(&levels))
    };
    // What they know and this server does not is refused by its own name.
    let found = SamplerName::ALL
        .iter()
        .find(|sampler| plain(sampler.name) == asked);
    let ours = found.ok_or_else(|| {
        let there: Vec<&str> = SamplerName::ALL.iter().map(|sampler| sampler.name).collect();
        let levels = if is_usual {
            String::new()
        } else {
            format!(" with the noise levels `{levels}`")
        };
        let message = format!(
            "there is no sampler {name}{levels}; there are {}",
            there.join(", ")
        );
        Refusal::unprocessable(message).with_field(field)
    })?;
    Ok(Some(ours))
}

/// The second pass at a larger size.
fn second_pass(theirs: &mut Translation) -> Result<(), Refusal> {
    if !theirs.asks("enable_hr") {
        theirs.pass_all_of("hr_");
        // It is of the second pass.
        theirs.pass(&[
            "enable_hr",
            "denoising_strength",
            "firstphase_width",
            "firstphase_height",
        ]);
        return Ok(());
    }
    theirs.pass(&["enable_hr"]);
    let scale = theirs.take("hr_scale").unwrap_or(json!(2.0));
    let scale = scale.as_f64().ok_or_else(|| refused("hr_scale", &scale))?;
    let mut side = |field: &str| match theirs.take(field) {
        None => Ok(0),
        Some(side) => side.as_u64().ok_or_else(|| refused(field, &side)),
    };
    let sides = [side("hr_resize_x")?, side("hr_resize_y")?];
    let size = theirs
        .fields
        .get("size")
        .and_then(Value::as_str)
        .unwrap_or("512x512");
    let first: langevin::Size = size.parse().map_err(|_| refused("width", &size.into()))?;
    let by = |side: u64, own: usize| side as f64 / own.max(1) as f64;
    let factors = [by(sides[0], first.width), by(sides[1], first.height)];
    let scale = match (factors, sides) {
        (_, [0, 0]) => scale,
        ([across, _], [_, 0]) => across,
        ([_, down], [0, _]) => down,
        ([across, down], _) if (across - down).abs() < 1e-3 => across,
        _ => return Err(refused("hr_resize_x", &sides[0].into())),
    };
    theirs.put("hr_scale", "upscale", scale.into());
    let strength = theirs.take("denoising_strength").unwrap_or(json!(0.75));
    theirs.put("denoising_strength", "upscale_strength", strength);
    if let Some(steps) = theirs.take("hr_second_pass_steps").filter(|steps| *steps != 0) {
        theirs.put("hr_second_pass_steps", "upscale_steps", steps);
    }
    let asked = theirs.take("hr_upscaler").unwrap_or(json!("Latent"));
    let ours = asked.as_str().and_then(upscaler_of_a1111);
    let ours = ours.ok_or_else(|| refused("hr_upscaler", &asked))?;
    theirs.put("hr_upscaler", "upscale_by", ours.to_string().into());
    let sampler = theirs
        .take("hr_sampler_name")
        .filter(|name| name != "" && name != "Use same sampler");
    let levels = theirs
        .take("hr_scheduler")
        .filter(|levels| levels != "Use same scheduler");
    if let Some(ours) = named_sampler("hr_sampler_name", sampler, "hr_scheduler", levels)? {
        theirs.put("hr_sampler_name", "upscale_scheduler", ours.name.into());
    }
    theirs.pass_as("hr_checkpoint_name", &["Use same checkpoint".into(), "".into()]);
    theirs.pass_as("hr_prompt", &["".into()]);
    theirs.pass_as("hr_negative_prompt", &["".into()]);
    Ok(())
}

/// Settings that hold for one request.
fn overrides(theirs: &mut Translation) -> Result<(), Refusal> {
    let Some(Value::Object(settings)) = theirs.take("override_settings") else {
        return Ok(());
    };
    for (name, value) in settings {
        match (name.as_str(), &value) {
            ("sd_model_checkpoint", Value::String(model)) => {
                // As they show it: with a hash behind it, an ending, and the folder before it.
                let model = model.split(" [").next().unwrap_or_default();
                let model = model.rsplit(['/', '\\']).next().unwrap_or_default();
                let model = [".safetensors", ".ckpt"]
                    .iter()
                    .find_map(|end| model.strip_suffix(end))
                    .unwrap_or(model);
                theirs.put("override_settings", "model", model.into());
            }
            ("CLIP_stop_at_last_layers", value) => skip_layers(theirs, "override_settings", value)?,
            ("sd_vae", value) if *value == "Automatic" => {}
            ("samples_format", value) if *value == "png" => {}
            _ => return Err(refused(&format!("override_settings.{name}"), &value)),
        }
    }
    Ok(())
}

fn clip_skip(theirs: &mut Translation, name: &'static str) -> Result<(), Refusal> {
    match theirs.take(name) {
        Some(value) => skip_layers(theirs, name, &value),
        None => Ok(()),
    }
}

/// The layer of the text encoder to end at. They count from the last one, which is 1.
fn skip_layers(theirs: &mut Translation, name: &'static str, value: &Value) -> Result<(), Refusal> {
    match value.as_u64() {
        Some(0 | 1) => Ok(()),
        Some(layer) => {
            theirs.put(name, "clip_skip", (layer - 1).into());
            Ok(())
        }
        None => Err(refused(name, value)),
    }
}

/// What begins with a picture.
fn picture(theirs: &mut Translation) -> Result<(), Refusal> {
    let images = theirs
        .take("init_images")
        .filter(|images| images.as_array().is_none_or(|all| !all.is_empty()));
    let images = images.ok_or_else(|| {
        let message = "init_images lists no picture, and img2img begins with one";
        Refusal::unprocessable(message).with_field("init_images")
    })?;
    let strength = theirs.take("denoising_strength").unwrap_or(json!(0.75));
    theirs.put("denoising_strength", "strength", strength);
    theirs.field("image_cfg_scale", "image_guidance_scale");
    theirs.pass(&["include_init_images"]);
    match theirs.take("mask").filter(|mask| mask != "") {
        Some(mask) => {
            theirs.put("init_images", "inpaint", images);
            theirs.put("mask", "mask", mask);
            theirs.pass_as("inpainting_fill", &[1.into()]);
            let around = theirs.take("inpaint_full_res_padding").unwrap_or(json!(0));
            if theirs
                .take("inpaint_full_res")
                .is_none_or(|full| full == true || full == 1)
            {
                theirs.put("inpaint_full_res_padding", "mask_crop", around);
            }
        }
        None => {
            theirs.put("init_images", "init_image", images);
            theirs.pass_all_of("inpaint");
            theirs.pass_all_of("mask_");
        }
    }
    Ok(())
}

fn any_seed() -> u32 {
    // Keyed anew each time, by the system's randomness.
    RandomState::new().build_hasher().finish() as u32
}

/// Pictures as they answer.
fn said(drawn: &Drawn, given: Map<String, Value>) -> Result<Value, Refusal> {
    let png =
        |one: &crate::events::Finished| Ok(STANDARD.encode(grid::png_bytes_with(&one.picture, &one.texts)?));
    let images: langevin::Result<Vec<String>> = drawn.finished.iter().map(png).collect();
    let images = images.map_err(|error| Refusal::internal(error.to_string()))?;
    let seeds: Vec<u64> = drawn.finished.iter().map(|one| one.seed).collect();
    let first = drawn.finished.first();
    let texts = first.map_or(&[][..], |one| one.texts.as_slice());
    let text = |name: &str| {
        texts
            .iter()
            .find(|(keyword, _)| *keyword == name)
            .map(|(_, text)| text.clone())
    };
    let info = json!({
        "prompt": given.get("prompt"), "negative_prompt": given.get("negative_prompt"), "seed": seeds.first(), "all_seeds": seeds,
        "width": first.map(|one| one.picture.width()), "height": first.map(|one| one.picture.height()), "sampler_name": text("scheduler"),
        "steps": text("steps").and_then(|steps| steps.parse::<u64>().ok()), "cfg_scale": given.get("cfg_scale"),
        "batch_size": drawn.finished.len(), "sd_model_name": drawn.model,
    });
    let mut parameters = given;
    // The answer need not carry back what was sent.
    parameters.remove("init_images");
    parameters.remove("mask");
    Ok(json!({ "images": images, "parameters": parameters, "info": info.to_string() }))
}
