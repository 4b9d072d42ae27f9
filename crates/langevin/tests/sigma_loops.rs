//! The figures that diffusers' own scheduler tests assert: the sum and the mean of the absolute sample after a loop.
//!
//! `sigma_loops.json` holds them with the settings of each test (`tests/schedulers` of diffusers 0.42.1, Apache
//! licence). `start` is the step that a loop begins at, from a sample with noise; `steps_from_scaled` says that the test
//! steps from the model's scaled input in place of the sample, as most of those tests do.
//!
//! `sigma_options.json` holds loops of diffusers 0.42.1 under PyTorch 2.15 (CPU) with the options that those tests and the
//! reference values leave out: the sum of the absolute sample, four of its values (places 0, 100, 333 and 767), and the first
//! timesteps.

mod support;

use burn::tensor::{Device, Tensor, TensorData};
use langevin::{
    random::Generator,
    schedulers::{
        AnyScheduler, ConfigMap, LoopOptions, Scheduler, ScoreSdeVeConfig, ScoreSdeVeScheduler, StepOptions,
    },
};
use serde_json::Value;
use support::{Outcome, Report, values, within};

const LEN: usize = 4 * 3 * 8 * 8;

#[test]
fn loops_have_the_sums_and_means_of_diffusers_tests() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("sigma_loops.json")).unwrap();
    let mut report = Report::new();
    for case in &cases {
        let name = format!(
            "{} {}",
            case["class"].as_str().unwrap(),
            case["test"].as_str().unwrap()
        );
        report.case(&name, compare(case).map(|()| Outcome::Ran));
    }
    report.finish();
}

#[test]
fn options_do_what_they_do_in_diffusers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("sigma_options.json")).unwrap();
    let mut report = Report::new();
    for case in &cases {
        let name = format!("{} {}", case["class"].as_str().unwrap(), case["config"]);
        report.case(&name, compare(case).map(|()| Outcome::Ran));
    }
    report.finish();
}

fn compare(case: &Value) -> Result<(), String> {
    let (timesteps, sample) = run(case).map_err(|e| e.to_string())?;
    let sample = values(sample);
    for (found, expected) in timesteps
        .iter()
        .zip(case["timesteps"].as_array().into_iter().flatten())
    {
        let expected = expected.as_f64().ok_or("has a timestep that is no number")?;
        within(
            "a timestep",
            (found - expected).abs(),
            1e-6 * expected.abs().max(1.0),
        )?;
    }
    for (place, expected) in [0, 100, 333, 767]
        .into_iter()
        .zip(case["values"].as_array().into_iter().flatten())
    {
        let expected = expected.as_f64().ok_or("has a value that is no number")?;
        let difference = (f64::from(sample[place]) - expected).abs();
        within(
            &format!("value {place}"),
            difference,
            1e-4 * expected.abs().max(1.0),
        )?;
    }
    let sum: f64 = sample.iter().map(|&x| f64::from(x.abs())).sum();
    for (name, found) in [("sum", sum), ("mean", sum / LEN as f64)] {
        if let Some(expected) = case[name].as_f64() {
            let tolerance = case[format!("{name}_tolerance")]
                .as_f64()
                .ok_or("has no tolerance")?;
            within(
                &format!("the {name}, {found},"),
                (found - expected).abs(),
                tolerance,
            )?;
        }
    }
    Ok(())
}

/// The timesteps of the loop and the sample after it.
fn run(case: &Value) -> langevin::Result<(Vec<f64>, Tensor<4>)> {
    let mut config: ConfigMap = case["config"].as_object().unwrap().clone();
    config.insert("_class_name".to_owned(), case["class"].clone());
    let mut scheduler = AnyScheduler::from_json(config)?;
    let numbers = |values: &Value| {
        values
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_f64).collect())
    };
    scheduler.set_loop(&LoopOptions {
        num_inference_steps: case["num_inference_steps"].as_u64().map(|n| n as usize),
        timesteps: numbers(&case["loop"]["timesteps"]),
        sigmas: numbers(&case["loop"]["sigmas"]),
        mu: case["loop"]["mu"].as_f64(),
        ..LoopOptions::default()
    })?;
    let mut timesteps = scheduler.timesteps().to_vec();
    let mut x = ramp(false);
    if case["unscaled_start"].as_bool() != Some(true) {
        x = x * scheduler.init_noise_sigma();
    }
    let step = |name: &str, default: f64| case["step"][name].as_f64().unwrap_or(default);
    if let Some(start) = case["start"].as_u64() {
        timesteps.drain(..start as usize * scheduler.order());
        x = scheduler.add_noise_at(x, ramp(true), timesteps[0])?;
    }
    let mut generator = Generator::new(0);
    for turn in 0..case["loops"].as_u64().unwrap_or(1) {
        if turn > 0 {
            // From the first timestep again, with what the scheduler remembers of the first loop.
            scheduler.set_begin_index(0);
        }
        for &t in &timesteps {
            let scaled = scheduler.scale_model_input(x.clone(), t)?;
            let prediction = model(&scaled, t);
            if case["steps_from_scaled"].as_bool() == Some(true) {
                x = scaled;
            }
            let mut options = StepOptions {
                generator: Some(&mut generator),
                s_churn: step("s_churn", 0.0),
                s_tmin: step("s_tmin", 0.0),
                s_tmax: step("s_tmax", f64::INFINITY),
                s_noise: step("s_noise", 1.0),
                order: step("order", 4.0) as usize,
                ..StepOptions::default()
            };
            x = scheduler.step(prediction, t, x, &mut options)?.previous;
        }
    }
    Ok((timesteps, x))
}

/// The model of diffusers' tests, in float32.
fn model(x: &Tensor<4>, t: f64) -> Tensor<4> {
    let t = t as f32;
    x.clone() * t / (t + 1.0)
}

/// arange(768) / 768, or the same from the other end, as `[3, 8, 8, 4]` with the last dimension moved to the front.
fn ramp(reversed: bool) -> Tensor<4> {
    let place = |i: usize| if reversed { LEN - 1 - i } else { i };
    let values: Vec<f32> = (0..LEN).map(|i| place(i) as f32 / LEN as f32).collect();
    Tensor::<4>::from_data(TensorData::new(values, [3, 8, 8, 4]), &Device::default()).permute([3, 0, 1, 2])
}

/// `test_scheduler_score_sde_ve.py`, whose loop has a corrector and a model of its own kind.
#[test]
fn predictor_and_corrector_have_the_sum_of_diffusers_test() {
    let mut scheduler = ScoreSdeVeScheduler::new(ScoreSdeVeConfig::default()).unwrap();
    // The test takes the levels that the model is told from the loop of 2000 steps that was there before.
    let told = scheduler.sigmas()[..3].to_vec();
    scheduler.set_timesteps(3).unwrap();
    let mut generator = Generator::new(0);
    let mut x = ramp(false);
    for (&t, sigma) in scheduler.timesteps().iter().zip(told) {
        let score = model(&x, sigma.into());
        x = scheduler.correct(score, x, &mut generator).unwrap();
        let score = model(&x, sigma.into());
        let mut options = StepOptions {
            generator: Some(&mut generator),
            ..StepOptions::default()
        };
        x = scheduler.predict(score, t, x, &mut options).unwrap().previous;
    }
    let sum: f64 = values(x).iter().map(|&x| f64::from(x.abs())).sum();
    assert!((sum / 14_372_758_528.0 - 1.0).abs() < 1e-5, "{sum}");
}
