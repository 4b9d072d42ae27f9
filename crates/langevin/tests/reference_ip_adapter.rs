//! IP-Adapters against what diffusers computes with them: what every adapter under `ip_adapter/alone` makes of pictures, and every call under
//! `ip_adapter/cases`.

mod support;

use std::path::{Path, PathBuf};

use langevin::{
    data::read_picture,
    models::{AnyModelConfig, IpAdapterConfig, IpAdapterModel, ModelConfig, UNet2DConditionConfig},
};
use serde_json::Value;
use support::{
    Outcome, Report, call::Case, own_or_given, read_json, read_tensors, relative_difference, values, within,
};

const TOLERANCE: f64 = 1e-4;

fn said(error: langevin::Error) -> String {
    error.to_string()
}

/// A path from the folder of reference values that a case lies in.
fn from_root(case: &Path, path: &Value) -> PathBuf {
    case.ancestors().nth(3).unwrap().join(path.as_str().unwrap())
}

fn compare(folder: &Path) -> Result<Outcome, String> {
    let device = support::device();
    let case: Value = read_json(folder.join("case.json"));
    let io = read_tensors(folder.join("io.safetensors"));
    let encoder = from_root(folder, &case["image_encoder"]);
    let file = from_root(folder, &case["file"]);
    // Where nobody says which encoder, it is the one beside the file.
    let model = IpAdapterModel::open(&file, None, &device).map_err(said)?;
    IpAdapterModel::open(&file, Some(&encoder), &device).map_err(said)?;
    let pictures: Result<Vec<_>, _> = case["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| read_picture(folder.join(name.as_str().unwrap())))
        .collect();
    let shown = model
        .encoder
        .prepare(&pictures.map_err(said)?, &device)
        .map_err(said)?;
    let same = |name: &str, found: Vec<f32>| {
        let difference = relative_difference(&found, &io[name].f32());
        within(name, difference, TOLERANCE)
    };
    same("clip_input", values(shown.clone()))?;
    let seen = model.adapter.see(&model.encoder, shown).map_err(said)?;
    same("towards", values(model.adapter.tokens(seen.towards)))?;
    same("away", values(model.adapter.tokens(seen.away)))?;
    // The file says which model it is for.
    let unet = UNet2DConditionConfig::load(from_root(folder, &case["model"]).join("unet")).map_err(said)?;
    let config = IpAdapterConfig::at(&file).map_err(said)?;
    config
        .check_fits(&AnyModelConfig::Condition(unet.clone()))
        .map_err(said)?;
    let other = UNet2DConditionConfig {
        layers_per_block: langevin::models::unet2d_condition::PerLevel::All(3),
        ..unet
    };
    match config.check_fits(&AnyModelConfig::Condition(other)) {
        Ok(()) => Err("it fits any model".into()),
        Err(_) => Ok(Outcome::Ran),
    }
}

#[test]
fn every_adapter_makes_the_same_of_pictures() {
    let mut report = Report::new();
    for folder in own_or_given("ip_adapter/alone") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, compare(&folder));
    }
    report.finish();
}

#[test]
fn calls_give_diffusers_latents_and_pictures() {
    let mut report = Report::new();
    for folder in own_or_given("ip_adapter/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, Case::in_folder(&folder).compare());
    }
    report.finish();
}
