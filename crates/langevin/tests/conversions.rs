//! `from_config` between classes, against what diffusers 0.42.1 makes of the same configs (`conversions.json`): `given` are the
//! keyword arguments of `source`, which is saved and read again first where `loaded` says so, and `result` is the file that the
//! `target` class's scheduler writes.

mod support;

use std::{fs, path::Path};

use langevin::schedulers::{AnyScheduler, ConfigMap};
use serde_json::Value;
use support::{Outcome, Report};

#[test]
fn converted_configs_are_those_of_diffusers() {
    let cases = support::read_json(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversions.json"));
    let mut report = Report::new();
    for case in cases.as_array().unwrap() {
        let word = |key: &str| case[key].as_str().unwrap();
        let name = format!("{} to {}", word("source"), word("target"));
        report.case(&name, compare(case).map(|()| Outcome::Ran));
    }
    report.finish();
}

fn compare(case: &Value) -> Result<(), String> {
    let mut config: ConfigMap = case["given"].as_object().ok_or("has no config")?.clone();
    config.insert("_class_name".to_owned(), case["source"].clone());
    let build = |config| AnyScheduler::from_json(config).map_err(|e| e.to_string());
    let mut scheduler = build(config)?;
    if case["loaded"].as_bool().unwrap_or(false) {
        scheduler = build(scheduler.to_json().map_err(|e| e.to_string())?)?;
    }
    let converted = scheduler
        .convert(case["target"].as_str().ok_or("has no target")?)
        .map_err(|e| e.to_string())?;
    let found = converted.to_json().map_err(|e| e.to_string())?;
    let expected = case["result"].as_object().ok_or("has no result")?;
    for (key, value) in expected {
        match found.get(key) {
            Some(other) if same(value, other) => {}
            Some(other) => return Err(format!("{key} is {other}, not {value}")),
            None => return Err(format!("{key} is missing, and should be {value}")),
        }
    }
    match found.keys().find(|key| !expected.contains_key(*key)) {
        Some(key) => Err(format!("{key} is there, with {}", found[key])),
        None => Ok(()),
    }
}

/// Whether two values are the same; 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[test]
fn files_hold_pythons_infinity() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler_config.json");
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "of_another": Infinity}"#;
    fs::write(&file, text).unwrap();
    let scheduler = AnyScheduler::load(folder.path()).unwrap();
    fs::remove_file(&file).unwrap();
    scheduler.save(folder.path()).unwrap();
    let written = fs::read_to_string(&file).unwrap();
    assert!(
        written.contains("\"lambda_min_clipped\": -Infinity,"),
        "{written}"
    );
    assert!(written.contains("\"of_another\": Infinity,"), "{written}");
    let again = AnyScheduler::load(folder.path()).unwrap();
    assert_eq!(again.to_json().unwrap(), scheduler.to_json().unwrap());
}
