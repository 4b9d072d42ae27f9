//! Sampling loops against `schedulers.json` and `schedulers.safetensors`: every case found there whose class the library has.

mod support;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use langevin::{
    Error,
    random::Generator,
    schedulers::{AnyScheduler, ConfigMap, Scheduler, StepOptions},
};
use serde_json::Value;
use support::{Outcome, Report, Stored, largest_difference, values, within};

/// How far the table of ᾱ may be off, relative to each value.
const TABLE: f64 = 1e-6;
/// How far a loop's samples may be off.
const LOOP: f64 = 1e-4;
/// Every how many timesteps ᾱ is stored.
const STRIDE: usize = 37;

type Tensors = BTreeMap<String, Stored>;

#[test]
fn loops_end_where_diffusers_loops_end() {
    let tensors = support::read_tensors("schedulers.safetensors");
    let cases = support::read_json("schedulers.json");
    let mut report = Report::new();
    for case in cases["cases"]
        .as_array()
        .expect("schedulers.json holds a list of cases")
    {
        let name = format!(
            "{} {}",
            case["id"].as_str().unwrap(),
            case["class"].as_str().unwrap()
        );
        report.case(&name, compare(case, &tensors));
    }
    report.finish();
}

fn compare(case: &Value, tensors: &Tensors) -> Result<Outcome, String> {
    let class = case["class"].as_str().ok_or("has no class")?;
    let mut config: ConfigMap = case["config"].as_object().ok_or("has no config")?.clone();
    config.insert("_class_name".to_owned(), class.into());
    // Whether a class is there is asked of the library's list, so that one which is can never be skipped.
    if !AnyScheduler::NAMES.iter().any(|(_, name)| *name == class) {
        let error = AnyScheduler::from_json(config).map(|_| "built a class that it does not list");
        return match error {
            Err(Error::Unsupported(_)) => Ok(Outcome::NotSupported(class.to_owned())),
            other => Err(format!("{other:?}")),
        };
    }
    run(case, config, tensors).map(|()| Outcome::Ran)
}

fn run(case: &Value, config: ConfigMap, tensors: &Tensors) -> Result<(), String> {
    let id = case["id"].as_str().ok_or("has no id")?;
    let stored = |what: &str| tensors.get(&format!("{id}.{what}"));
    let mut scheduler = AnyScheduler::from_json(config).map_err(|e| e.to_string())?;
    let steps = case["num_inference_steps"]
        .as_u64()
        .ok_or("has no number of steps")? as usize;
    scheduler.set_timesteps(steps).map_err(|e| e.to_string())?;
    within(
        "init_noise_sigma",
        (scheduler.init_noise_sigma() / case["init_noise_sigma"].as_f64().unwrap() - 1.0).abs(),
        TABLE,
    )?;
    if let Some(expected) = stored("timesteps") {
        let (found, expected) = (scheduler.timesteps(), &expected.values);
        // Whole timesteps are places in a table, for which near is not enough. Methods of two calls a step look half-way
        // levels up in logarithms of float32, whose rounding is a few hundred-thousandths of a timestep.
        let near = |t: f64| match scheduler.order() {
            2 => 1e-4,
            _ if expected.iter().all(|t| t.fract() == 0.0) => 0.0,
            _ => TABLE * t.abs().max(1.0),
        };
        let agree = |(a, b): (&f64, &f64)| (a - b).abs() <= near(*b);
        if found.len() != expected.len() || !found.iter().zip(expected).all(agree) {
            return Err(format!("visits {found:?}, not {expected:?}"));
        }
    }
    if let Some(expected) = stored("sigmas") {
        table("sigmas", scheduler.sigmas(), &expected.f32())?;
    }
    if let Some(expected) = stored("alphas_cumprod") {
        let found: Vec<f32> = scheduler
            .alphas_cumprod()
            .iter()
            .copied()
            .step_by(STRIDE)
            .collect();
        table("alphas_cumprod", &found, &expected.f32())?;
    }
    sample(case, scheduler, stored("final"), stored("noise"))
}

/// Runs the loop and compares the mean after every step, the last sample, and the noise drawn on the way.
fn sample(
    case: &Value,
    mut scheduler: AnyScheduler,
    last: Option<&Stored>,
    noise: Option<&Stored>,
) -> Result<(), String> {
    let mut generator = Generator::new(0);
    let mut x = initial_sample();
    if !case["flow_unscaled_input"].as_bool().unwrap_or(false) {
        x = x * scheduler.init_noise_sigma();
    }
    let kwargs = &case["step_kwargs"];
    let means = case["step_abs_means"].as_array().ok_or("has no means")?;
    let timesteps = scheduler.timesteps().to_vec();
    if means.len() != timesteps.len() {
        return Err(format!("does {} steps, not {}", timesteps.len(), means.len()));
    }
    for (t, mean) in timesteps.into_iter().zip(means) {
        let scaled = scheduler
            .scale_model_input(x.clone(), t)
            .map_err(|e| e.to_string())?;
        let prediction = scaled * (t / (t + 1.0));
        let mut options = StepOptions {
            generator: Some(&mut generator),
            eta: kwargs["eta"].as_f64(),
            s_churn: kwargs["s_churn"].as_f64().unwrap_or(0.0),
            s_noise: kwargs["s_noise"].as_f64().unwrap_or(1.0),
            use_clipped_model_output: kwargs["use_clipped_model_output"].as_bool().unwrap_or(false),
            ..StepOptions::default()
        };
        x = scheduler
            .step(prediction, t, x, &mut options)
            .map_err(|e| e.to_string())?
            .previous;
        let found: f64 = x.clone().abs().mean().into_scalar::<f32>().into();
        within(
            &format!("the mean after timestep {t}"),
            (found - mean.as_f64().unwrap()).abs(),
            LOOP,
        )?;
    }
    if let Some(expected) = last {
        within(
            "the last sample",
            largest_difference(&values(x), &expected.f32()),
            LOOP,
        )?;
    }
    // The loop's generator drew this noise and nothing else.
    let mut fresh = Generator::new(0);
    if let Some(expected) = noise {
        let [draws, shape @ ..] = expected.shape.as_slice() else {
            return Err("has noise of no shape".to_owned());
        };
        let size: usize = shape.iter().product();
        let found: Vec<f32> = (0..*draws).flat_map(|_| fresh.randn(size)).collect();
        within("the noise", largest_difference(&found, &expected.f32()), 1e-6)?;
    } else {
        for _ in 0..case["num_noises"].as_u64().unwrap_or(0) {
            fresh.randn(4 * 3 * 8 * 8);
        }
    }
    if generator.rand(1) == fresh.rand(1) {
        Ok(())
    } else {
        Err("draws other noise".to_owned())
    }
}

/// arange(768) / 768 as `[3, 8, 8, 4]`, with the last dimension moved to the front.
fn initial_sample() -> Tensor<4> {
    let n = 4 * 3 * 8 * 8;
    let ramp: Vec<f32> = (0..n).map(|i| i as f32 / n as f32).collect();
    Tensor::<4>::from_data(TensorData::new(ramp, [3, 8, 8, 4]), &Device::default()).permute([3, 0, 1, 2])
}

fn table(what: &str, found: &[f32], expected: &[f32]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!(
            "{what} has {} values, not {}",
            found.len(),
            expected.len()
        ));
    }
    let off = |(&a, &b): (&f32, &f32)| {
        if a == b {
            0.0
        } else {
            f64::from(((a - b) / b).abs())
        }
    };
    within(
        what,
        found.iter().zip(expected).map(off).fold(0.0, f64::max),
        TABLE,
    )
}
