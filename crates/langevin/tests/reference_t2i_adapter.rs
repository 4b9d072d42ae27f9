//! T2I-Adapters against what diffusers computes with them: every adapter alone under `t2i_adapter/alone`, and every call under
//! `t2i_adapter/cases`.

mod support;

use langevin::models::{Model, T2IAdapter};
use serde_json::Value;
use support::{
    Outcome, Report, call::Case, own_or_given, read_json, read_tensors, relative_difference, values, within,
};

const TOLERANCE: f64 = 1e-4;

fn said(error: langevin::Error) -> String {
    error.to_string()
}

#[test]
fn every_adapter_makes_the_same_of_a_picture() {
    let mut report = Report::new();
    for folder in own_or_given("t2i_adapter/alone") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let check = || {
            let case: Value = read_json(folder.join("case.json"));
            // The model lies in the same folder of reference values as the case.
            let root = folder.ancestors().nth(3).unwrap();
            let model = root.join(case["model"].as_str().unwrap());
            let adapter = T2IAdapter::load(model, &support::device()).map_err(said)?;
            let io = read_tensors(folder.join("io.safetensors"));
            let levels = adapter
                .residuals(io["picture"].tensor(&support::device()))
                .map_err(said)?
                .levels;
            let expected = io.keys().filter(|key| key.starts_with("level.")).count();
            if levels.len() != expected {
                return Err(format!("{} levels where there are {expected}", levels.len()));
            }
            for (number, level) in levels.into_iter().enumerate() {
                let name = format!("level.{number}");
                let expected = &io[&name];
                let level = level.permute([0, 3, 1, 2]);
                if level.dims()[..] != expected.shape[..] {
                    return Err(format!("{name} has shape {:?}", level.dims()));
                }
                let difference = relative_difference(&values(level), &expected.f32());
                within(&name, difference, TOLERANCE)?;
            }
            Ok(Outcome::Ran)
        };
        report.case(&name, check());
    }
    report.finish();
}

#[test]
fn calls_give_diffusers_latents_and_pictures() {
    let mut report = Report::new();
    for folder in own_or_given("t2i_adapter/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, Case::in_folder(&folder).compare());
    }
    report.finish();
}
