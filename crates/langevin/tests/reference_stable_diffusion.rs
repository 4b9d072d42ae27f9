//! Calls of the Stable Diffusion family's pipelines against what diffusers draws: every case found under `sd/cases`.

mod support;

use langevin::{Pipeline, Request, generate::Plan, models::ClipTokenizer};
use support::{Outcome, Report, call::Case, device, folders, read_json, reference};

#[test]
fn calls_give_diffusers_latents_and_pictures() {
    let mut report = Report::new();
    for folder in folders("sd/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if folder.join("call.json").is_file() {
            report.case(&name, Case::in_folder(&folder).compare());
        }
    }
    report.finish();
}

#[test]
fn tokens_are_clips() {
    let mut report = Report::new();
    let cases = read_json("sd/tokens.json");
    for (folder, ids) in [("sd/tokenizer", "ids"), ("sd/tokenizer_pad0", "ids_pad0")] {
        let tokenizer = ClipTokenizer::load(reference().join(folder)).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(case[ids].clone()).unwrap();
            let found = tokenizer.encode(text).unwrap();
            let outcome = if found == expected {
                Ok(Outcome::Ran)
            } else {
                Err(format!("{found:?} where {expected:?} is expected"))
            };
            report.case(&format!("{folder}: {text}"), outcome);
        }
    }
    report.finish();
}

#[test]
fn a_plan_counts_the_timesteps_that_it_is_given() {
    let device = device();
    let pipeline = Pipeline::load(reference().join("sd/models/sd1"), &device).unwrap();
    let request = Request {
        prompt: vec!["a house".into()],
        scheduler: Some("ddpm".into()),
        timesteps: vec![801.0, 601.0, 401.0, 201.0, 1.0],
        ..Request::default()
    };
    let plan = Plan::of(&pipeline, &request).unwrap();
    assert_eq!(plan.steps(), 5);
    assert!(plan.to_string().contains("5 steps"), "{plan}");
    let facts = plan.facts("sd1", None);
    assert!(facts.contains(&("steps", "5".to_string())), "{facts:?}");
}
