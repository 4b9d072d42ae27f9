//! The sums and means that diffusers' own scheduler tests (`tests/schedulers` of its repository) assert of whole loops: one file a
//! test file in `scheduler_loops`, every one of them run.
//!
//! A file names the class and its config; each of its loops has changes to the config, the number of steps, and what is
//! expected. `begin` skips steps, with noise added to the sample at the first of the others where `add_noise` says so;
//! `by_way_of` converts the scheduler to other classes and back first; `rounds` goes through the loop more than once.
//!
//! `options.json` and `sigma_options.json` hold what those tests leave out: loops of diffusers 0.42.1 under PyTorch 2.15 with other options of each class,
//! with some of the timesteps and of the values that they end with. Two of third-order DEIS were run in float64, since diffusers'
//! float32 coefficients lose digits there.

mod support;

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use langevin::{
    random::Generator,
    schedulers::{
        AnyScheduler, ConfigMap, LoopOptions, Scheduler, ScoreSdeVeConfig, ScoreSdeVeScheduler, StepOptions,
    },
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
        let groups = match support::read_json(&file) {
            Value::Array(groups) => groups,
            group => vec![group],
        };
        for group in groups {
            for case in group["loops"].as_array().expect("a file has loops") {
                let name = format!(
                    "{} {}",
                    group["source"].as_str().unwrap(),
                    case["test"].as_str().unwrap()
                );
                report.case(&name, run(&group, case).map(|()| Outcome::Ran));
            }
        }
    }
    report.finish();
}

fn run(file: &Value, case: &Value) -> Result<(), String> {
    let class = file["class"].as_str().ok_or("names no class")?;
    let mut scheduler = build(class, file, case).map_err(|e| e.to_string())?;
    set_loop(&mut scheduler, case).map_err(|e| e.to_string())?;
    if let Some(calls) = case["calls"].as_u64() {
        let found = scheduler.timesteps().len();
        if found as u64 != calls {
            return Err(format!("does {found} calls, not {calls}"));
        }
    }
    for (&found, expected) in scheduler.timesteps().iter().zip(array(&case["timesteps"])) {
        let expected = expected.as_f64().ok_or("has a timestep that is no number")?;
        within("a timestep", (found - expected).abs(), 1e-6 * expected.abs())?;
    }
    let x = sample(&mut scheduler, file, case).map_err(|e| e.to_string())?;
    let sampled = values(x.clone());
    for pair in array(&case["values"]) {
        let (place, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
        let off = (f64::from(sampled[place]) - expected).abs() / expected.abs().max(1.0);
        within(&format!("value {place}, {},", sampled[place]), off, 1e-4)?;
    }
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

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Sets the loop, where the case does not leave it at all of the timesteps.
fn set_loop(scheduler: &mut AnyScheduler, case: &Value) -> langevin::Result<()> {
    let (steps, given) = (case["steps"].as_u64(), &case["loop"]);
    if steps.is_none() && given.is_null() {
        return Ok(());
    }
    let numbers = |key: &str| {
        let values = given[key].as_array()?;
        Some(values.iter().filter_map(Value::as_f64).collect())
    };
    let whole = |key: &str| given[key].as_u64().map(|n| n as usize);
    scheduler.set_loop(&LoopOptions {
        num_inference_steps: steps.map(|n| n as usize),
        timesteps: numbers("timesteps"),
        sigmas: numbers("sigmas"),
        mu: given["mu"].as_f64(),
        original_inference_steps: whole("original_inference_steps"),
        strength: given["strength"].as_f64(),
        jump_length: whole("jump_length"),
        jump_n_sample: whole("jump_n_sample"),
        ..LoopOptions::default()
    })
}

/// The loop of diffusers' tests with the stand-in model x · t / (t + 1).
fn sample(scheduler: &mut AnyScheduler, file: &Value, case: &Value) -> langevin::Result<Tensor<4>> {
    let height = file["height"].as_u64().unwrap_or(8) as usize;
    let begin = case["begin"].as_u64().unwrap_or(0) as usize;
    let timesteps = scheduler.timesteps()[begin * scheduler.order()..].to_vec();
    let mut x = ramp(height, false);
    if file["scale_initial_sample"].as_bool().unwrap_or(false) {
        x = x * scheduler.init_noise_sigma();
    }
    if case["add_noise"].as_bool().unwrap_or(false) {
        x = scheduler.add_noise_at(x, ramp(height, true), timesteps[0])?;
    }
    let mut generator = Generator::new(0);
    for round in 0..case["rounds"].as_u64().unwrap_or(1) {
        if round > 0 {
            // From the first timestep again, with what the scheduler remembers of the round before.
            scheduler.set_begin_index(0);
        }
        x = round_of(scheduler, x, &timesteps, (file, case), &mut generator)?;
    }
    Ok(x)
}

/// Once over the timesteps.
fn round_of(
    scheduler: &mut AnyScheduler,
    mut x: Tensor<4>,
    timesteps: &[f64],
    (file, case): (&Value, &Value),
    generator: &mut Generator,
) -> langevin::Result<Tensor<4>> {
    let height = x.dims()[2];
    let scales = file["scale_model_input"].as_bool().unwrap_or(true);
    let carries_on = file["carries_scaled_input"].as_bool().unwrap_or(true);
    let option = |name: &str, default: f64| case["step"][name].as_f64().unwrap_or(default);
    let mut last = f64::INFINITY;
    for (i, &t) in timesteps.iter().enumerate() {
        if let AnyScheduler::RePaint(repaint) = &*scheduler
            && t >= last
        {
            x = repaint.undo_step(x, last, generator)?;
            last = t;
            continue;
        }
        last = t;
        let mut input = x.clone();
        if scales {
            input = scheduler.scale_model_input(x.clone(), t)?;
        }
        // Most of diffusers' tests carry the scaled sample on.
        if carries_on {
            x = input.clone();
        }
        let mut prediction = model(input, t);
        if case["doubled"].as_bool().unwrap_or(false) {
            prediction = Tensor::cat(vec![prediction.clone(), prediction.sin()], 1);
        }
        let next = timesteps.get(i + 1).map(|&t| t as usize);
        let mut options = StepOptions {
            generator: Some(&mut *generator),
            eta: case["eta"].as_f64(),
            s_churn: option("s_churn", 0.0),
            s_tmin: option("s_tmin", 0.0),
            s_tmax: option("s_tmax", f64::INFINITY),
            s_noise: option("s_noise", 1.0),
            order: option("order", 4.0) as usize,
            original_image: Some(ramp(height, true)),
            mask: Some(ramp(height, false).greater_elem(0.5).float()),
            prev_timestep: next.filter(|_| case["prev_timestep"].as_bool().unwrap_or(false)),
            ..StepOptions::default()
        };
        x = scheduler.step(prediction, t, x, &mut options)?.previous;
    }
    Ok(x)
}

/// The model of diffusers' tests.
fn model(x: Tensor<4>, t: f64) -> Tensor<4> {
    x * (t / (t + 1.0))
}

/// `test_scheduler_score_sde_ve.py`, whose loop has a corrector and a model of its own kind.
#[test]
fn predictor_and_corrector_have_the_sum_of_diffusers_test() {
    let mut scheduler = ScoreSdeVeScheduler::new(ScoreSdeVeConfig::default()).unwrap();
    // The test takes the levels that the model is told from the loop of 2000 steps that was there before.
    let told = scheduler.sigmas()[..3].to_vec();
    scheduler.set_timesteps(3).unwrap();
    let mut generator = Generator::new(0);
    let mut x = ramp(8, false);
    for (&t, sigma) in scheduler.timesteps().iter().zip(told) {
        let score = model(x.clone(), sigma.into());
        x = scheduler.correct(score, x, &mut generator).unwrap();
        let score = model(x.clone(), sigma.into());
        let mut options = StepOptions {
            generator: Some(&mut generator),
            ..StepOptions::default()
        };
        x = scheduler.predict(score, t, x, &mut options).unwrap().previous;
    }
    let sum: f64 = values(x).iter().map(|&x| f64::from(x.abs())).sum();
    assert!((sum / 14_372_758_528.0 - 1.0).abs() < 1e-5, "{sum}");
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
