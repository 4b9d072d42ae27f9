//! LoRA on Stable Diffusion's pipelines: every case found under `lora/cases` that has some. The pictures, how far every weight moves, and where
//! a case has them the merged weights, are compared with diffusers' and PEFT's, or where those drop what a file says, with the published formula.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use langevin::{
    Lora,
    options::LoraInput,
    pipelines::{LoadOptions, Pipeline},
    weights::lora::LoraScale,
};
use serde_json::Value;
use support::{
    Outcome, Report, Stored, call::Case, folders, read_json, read_tensors, reference, relative_difference,
    values, within,
};

/// Cases that put nothing on weights begin so: textual inversion.
const EMBEDDINGS: &str = "ti_";

#[test]
fn pictures_and_weights_are_those_of_the_formulas() {
    let mut report = Report::new();
    for folder in folders("lora/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with(EMBEDDINGS) {
            report.case(&name, compare(&folder));
        }
    }
    report.finish();
}

/// LoRA that lie beside the weights for one request come to what those come to that are merged into them.
#[test]
fn pictures_with_lora_beside_the_weights_are_those_too() {
    let mut report = Report::new();
    for folder in folders("lora/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with(EMBEDDINGS) {
            report.case(&name, compare_beside(&folder));
        }
    }
    report.finish();
}

/// What cannot lie beside weights says so.
const MERGED_ONLY: [&str; 4] = ["is a LoHa", "is a LoKr", "is a DoRA", "is a whole difference"];

fn compare_beside(folder: &Path) -> Result<Outcome, String> {
    let call: Value = read_json(folder.join("call.json"));
    let loras: Vec<Lora> = call["loras"].as_array().unwrap().iter().map(lora).collect();
    let case = Case::in_folder(folder);
    let (model, device) = (case.pipeline_folder(), support::device());
    let load = |loras: &[Lora]| {
        let options = LoadOptions {
            loras: loras.to_vec(),
            ..LoadOptions::default()
        };
        Pipeline::load_with(model.path(), &options, &device).map_err(|e| e.to_string())
    };
    let plain = load(&[])?;
    let mut request = case.request(&device)?;
    let inputs = loras
        .iter()
        .zip(call["loras"].as_array().unwrap())
        .map(|(lora, value)| LoraInput {
            name: lora.path.display().to_string(),
            ..input(&value["weight"])
        });
    request.loras = inputs.collect();
    let drawn = match case.draw_request(&plain, &request) {
        Err(why) if MERGED_ONLY.iter().any(|kind| why.contains(kind)) => {
            return Ok(Outcome::NotSupported(
                "beside the weights, and it says that it is to be merged".into(),
            ));
        }
        drawn => drawn?,
    };
    let merged = case.draw(&load(&loras)?, &device)?;
    let [found, expected] = [&drawn, &merged].map(|drawn| values(drawn.latents.clone()));
    let difference = relative_difference(&found, &expected);
    println!("beside and merged differ by {difference:.1e} of the largest latent");
    within("latents as if merged", difference, 1e-4)?;
    // What was drawn before is not changed by it.
    let request = case.request(&device)?;
    let [before, after] = [load(&[])?, plain].map(|pipeline| case.draw_request(&pipeline, &request));
    if values(before?.latents) != values(after?.latents) {
        return Err("the model is another one afterwards".into());
    }
    case.check(&drawn, "expected.safetensors")
}

/// The scales of a weight, as a request has them.
fn input(weight: &Value) -> LoraInput {
    match weight.as_f64() {
        Some(all) => LoraInput::new("", all),
        None => {
            let mut input = LoraInput::new("", 1.0);
            parts("", weight, &mut input);
            input
        }
    }
}

/// diffusers' blocks as paths.
fn parts(path: &str, value: &Value, input: &mut LoraInput) {
    let inside = |name: &str| format!("{path}{}{name}", if path.is_empty() { "" } else { "." });
    match value {
        Value::Object(all) => {
            for (name, value) in all {
                let name = match name.as_str() {
                    "mid" => "mid_block".to_string(),
                    "down" | "up" => format!("{name}_blocks"),
                    other => other.trim_start_matches("block_").to_string(),
                };
                parts(&inside(&name), value, input);
            }
        }
        Value::Array(all) => {
            for (number, value) in all.iter().enumerate() {
                parts(&inside(&format!("attentions.{number}")), value, input);
            }
        }
        number => {
            input.parts.insert(path.to_string(), number.as_f64().unwrap());
        }
    }
}

fn compare(folder: &Path) -> Result<Outcome, String> {
    let call: Value = read_json(folder.join("call.json"));
    let loras: Vec<Lora> = call["loras"].as_array().unwrap().iter().map(lora).collect();
    let case = Case::in_folder(folder);
    let model = case.pipeline_folder();
    let device = support::device();
    let load = |loras: &[Lora]| {
        let options = LoadOptions {
            loras: loras.to_vec(),
            ..LoadOptions::default()
        };
        Pipeline::load_with(model.path(), &options, &device).map_err(|e| e.to_string())
    };
    let pipeline = load(&loras)?;
    case.check(&case.draw(&pipeline, &device)?, "expected.safetensors")?;

    let expected = read_tensors(folder.join("expected.safetensors"));
    let plain = saved(&load(&[])?);
    // With several, each one's change by itself, numbered.
    match loras.as_slice() {
        [_] => moved(&expected, "", &plain, &saved(&pipeline))?,
        several => {
            for (number, lora) in several.iter().enumerate() {
                let alone = saved(&load(std::slice::from_ref(lora))?);
                moved(&expected, &format!("{number}."), &plain, &alone)?;
            }
        }
    }
    let merged = saved(&pipeline);
    for (name, stored) in &expected {
        if let Some(name) = name.strip_prefix("weight.") {
            let found = &weight(&merged, name)?.f32();
            within(name, relative_difference(found, &stored.f32()), 1e-5)?;
        }
    }
    Ok(Outcome::Ran)
}

/// Compares how far weights moved: `delta_norm.COMPONENT.MODULE` is the Frobenius norm of a weight's change. All others are where they were.
fn moved(
    expected: &BTreeMap<String, Stored>,
    number: &str,
    plain: &BTreeMap<String, Stored>,
    merged: &BTreeMap<String, Stored>,
) -> Result<(), String> {
    let mut norms: BTreeMap<String, f64> = BTreeMap::new();
    for (name, stored) in expected {
        if let Some(module) = name.strip_prefix(&format!("{number}delta_norm.")) {
            norms.insert(with_prefix(plain, &format!("{module}.weight"))?, stored.item());
        }
    }
    if norms.is_empty() {
        return Ok(());
    }
    let largest = norms.values().fold(0.0_f64, |largest, norm| largest.max(*norm));
    for (name, before) in plain {
        let change = before.values.iter().zip(&merged[name].values);
        let norm = change.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let norm_expected = norms.get(name).copied().unwrap_or(0.0);
        within(
            name,
            (norm - norm_expected).abs() / largest.max(f64::MIN_POSITIVE),
            1e-4,
        )?;
    }
    Ok(())
}

/// The key of a weight, with the prefix that text encoders' names may lack.
fn with_prefix(weights: &BTreeMap<String, Stored>, name: &str) -> Result<String, String> {
    if weights.contains_key(name) {
        return Ok(name.into());
    }
    let (component, rest) = name.split_once('.').unwrap_or_default();
    let prefixed = format!("{component}.text_model.{rest}");
    match weights.contains_key(&prefixed) {
        true => Ok(prefixed),
        false => Err(format!("there is no weight {name}")),
    }
}

fn weight<'a>(weights: &'a BTreeMap<String, Stored>, name: &str) -> Result<&'a Stored, String> {
    Ok(&weights[&with_prefix(weights, name)?])
}

/// A pipeline's weights, with the component before each name.
fn saved(pipeline: &Pipeline) -> BTreeMap<String, Stored> {
    let folder = tempfile::tempdir().unwrap();
    pipeline.save(folder.path()).unwrap();
    let mut weights = BTreeMap::new();
    for component in ["unet", "text_encoder", "text_encoder_2"] {
        for file in fs::read_dir(folder.path().join(component))
            .into_iter()
            .flatten()
            .flatten()
        {
            if file
                .path()
                .extension()
                .is_some_and(|extension| extension == "safetensors")
            {
                let tensors = read_tensors(file.path()).into_iter();
                weights.extend(tensors.map(|(name, stored)| (format!("{component}.{name}"), stored)));
            }
        }
    }
    weights
}

/// `{file, weight}`, whose weight is a number, or what diffusers' `set_adapters` takes.
fn lora(value: &Value) -> Lora {
    let path = reference().join(value["file"].as_str().unwrap());
    let weight = &value["weight"];
    if let Some(all) = weight.as_f64() {
        return Lora::new(path, all);
    }
    let mut scale = LoraScale::default();
    for (component, part) in weight.as_object().unwrap() {
        match part.as_f64() {
            Some(number) => scale = scale.with(component, number),
            None => {
                for (block, number) in part.as_object().unwrap() {
                    let block = match block.as_str() {
                        "mid" => "mid_block".to_string(),
                        side => format!("{side}_blocks"),
                    };
                    scale = blocks(scale, &format!("{component}.{block}"), number);
                }
            }
        }
    }
    Lora::new(path, scale)
}

/// A number for a side, or one for each of its blocks, or for each of a block's attentions.
fn blocks(scale: LoraScale, part: &str, value: &Value) -> LoraScale {
    match value {
        Value::Object(inner) => inner.iter().fold(scale, |scale, (block, value)| {
            blocks(
                scale,
                &format!("{part}.{}", block.trim_start_matches("block_")),
                value,
            )
        }),
        Value::Array(all) => all.iter().enumerate().fold(scale, |scale, (number, value)| {
            blocks(scale, &format!("{part}.attentions.{number}"), value)
        }),
        number => scale.with(part, number.as_f64().unwrap()),
    }
}
