//! The sums and means that diffusers' own scheduler tests (`tests/schedulers` of its repository) assert of whole loops: one file a
//! test file in `scheduler_loops`, every one of them run.
//!
//! A file names the class and its config; each of its loops has changes to the config, the number of steps, and what is
//! expected. `begin` skips steps, with noise added to the sample at the first of the others where `add_noise` says so;
//! `by_way_of` converts the scheduler to other classes and back first.

mod support;

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use langevin::{
    random::Generator,
    schedulers::{AnyScheduler, ConfigMap, Scheduler, StepOptions},
};
use serde_json::Value;
use support::{Outcome, Report, values, within};

#[test]
fn loops_come_to_what_diffusers_tests_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scheduler_loops");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut report = Report::new();
    for file in files {
        let file = support::read_json(&file);
        for case in file["loops"].as_array().expect("a file has loops") {
            let name = format!(
                "{} {}",
                file["source"].as_str().unwrap(),
                case["test"].as_str().unwrap()
            );
            report.case(&name, run(&file, case).map(|()| Outcome::Ran));
        }
    }
    report.finish();
}

fn run(file: &Value, case: &Value) -> Result<(), String> {
    let class = file["class"].as_str().ok_or("names no class")?;
    let mut scheduler = build(class, file, case).map_err(|e| e.to_string())?;
    if let Some(steps) = case["steps"].as_u64() {
        scheduler
            .set_timesteps(steps as usize)
            .map_err(|e| e.to_string())?;
    }
    let x = sample(&mut scheduler, file, case).map_err(|e| e.to_string())?;
    let found: Vec<f64> = values(x).into_iter().map(|x| f64::from(x.abs())).collect();
    let sum: f64 = found.iter().sum();
    for (what, found) in [("sum", sum), ("mean", sum / found.len() as f64)] {
        let expected = &case[what];
        if let (Some(value), Some(tolerance)) = (expected["value"].as_f64(), expected["within"].as_f64()) {
            within(&format!("the {what}, {found},"), (found - value).abs(), tolerance)?;
        }
    }
    Ok(())
}

fn build(class: &str, file: &Value, case: &Value) -> langevin::Result<AnyScheduler> {
    let mut config: ConfigMap = file["config"].as_object().cloned().unwrap_or_default();
    config.extend(case["config"].as_object().cloned().unwrap_or_default());
    config.insert("_class_name".to_owned(), class.into());
    let mut scheduler = AnyScheduler::from_json(config)?;
    for other in case["by_way_of"].as_array().into_iter().flatten() {
        scheduler = scheduler.convert(other.as_str().unwrap())?;
    }
    if scheduler.class_name() != class {
        scheduler = scheduler.convert(class)?;
    }
    Ok(scheduler)
}

/// The loop of diffusers' tests with the stand-in model x · t / (t + 1).
fn sample(scheduler: &mut AnyScheduler, file: &Value, case: &Value) -> langevin::Result<Tensor<4>> {
    let height = file["height"].as_u64().unwrap_or(8) as usize;
    let begin = case["begin"].as_u64().unwrap_or(0) as usize;
    let timesteps = scheduler.timesteps()[begin * scheduler.order()..].to_vec();
    let mut x = ramp(height, false);
    if case["add_noise"].as_bool().unwrap_or(false) {
        x = scheduler.add_noise_at(x, ramp(height, true), timesteps[0])?;
    } else if file["scale_initial_sample"].as_bool().unwrap_or(false) {
        x = x * scheduler.init_noise_sigma();
    }
    let scales = file["scale_model_input"].as_bool().unwrap_or(true);
    let mut generator = Generator::new(0);
    for (i, &t) in timesteps.iter().enumerate() {
        // Most of diffusers' tests carry the scaled sample on.
        if scales {
            x = scheduler.scale_model_input(x, t)?;
        }
        let prediction = x.clone() * (t / (t + 1.0));
        let next = timesteps.get(i + 1).map(|&t| t as usize);
        let mut options = StepOptions {
            generator: Some(&mut generator),
            eta: case["eta"].as_f64(),
            prev_timestep: next.filter(|_| case["prev_timestep"].as_bool().unwrap_or(false)),
            ..StepOptions::default()
        };
        x = scheduler.step(prediction, t, x, &mut options)?.previous;
    }
    Ok(x)
}

/// `arange(n) / n` as `[3, height, 8, 4]` with the last dimension moved to the front, rising or falling.
fn ramp(height: usize, falling: bool) -> Tensor<4> {
    let n = 4 * 3 * height * 8;
    let rising = (0..n).map(|i| i as f32 / n as f32);
    let values: Vec<f32> = if falling {
        rising.rev().collect()
    } else {
        rising.collect()
    };
    Tensor::<4>::from_data(TensorData::new(values, [3, height, 8, 4]), &Device::default())
        .permute([3, 0, 1, 2])
}
