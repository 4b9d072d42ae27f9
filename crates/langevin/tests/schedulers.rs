//! What `reference_schedulers` does not reach: single steps, files, bad configs, gradients, and every number of steps.

mod support;

use burn::tensor::{Device, Tensor, TensorData};
use langevin::{
    Error,
    objectives::PredictionType,
    random::Generator,
    schedulers::{
        AnyScheduler, BetaSchedule, ConfigMap, DDIMConfig, DDIMScheduler, DDPMConfig, DDPMScheduler,
        Scheduler, StepOptions, TimestepSpacing, VarianceType,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::values;

/// linspace(-3, 3, 96) as `[2, 3, 4, 4]`, and the same with its two pictures exchanged.
fn setting(device: &Device) -> (Tensor<4>, Tensor<4>) {
    let ramp: Vec<f32> = (0..96).map(|i| -3.0 + 6.0 * i as f32 / 95.0).collect();
    let x = Tensor::<4>::from_data(TensorData::new(ramp, [2, 3, 4, 4]), device);
    (x.clone(), x.flip([0]))
}

fn ddpm(config: DDPMConfig) -> DDPMScheduler {
    let mut scheduler = DDPMScheduler::new(config).unwrap();
    scheduler
        .set_timesteps(10.min(scheduler.num_train_timesteps()))
        .unwrap();
    scheduler
}

/// Compares four values and the sum of absolute values with PyTorch's.
fn same(found: Tensor<4>, at: [f32; 4], sum: Option<f32>) {
    let found = values(found);
    for (place, expected) in [0, 10, 40, 95].into_iter().zip(at) {
        assert!(
            (found[place] - expected).abs() < 1e-5,
            "{} is not {expected}",
            found[place]
        );
    }
    if let Some(sum) = sum {
        let total: f32 = found.iter().map(|value| value.abs()).sum();
        assert!((total - sum).abs() < 1e-5 * sum, "{total} is not {sum}");
    }
}

// The expected values are those of diffusers 0.42.1 under PyTorch 2.15, generator seeded with 1 where there is noise.

#[test]
fn learned_variances_are_read_from_the_second_half_of_the_channels() {
    let (x, other) = setting(&Device::default());
    let mut generator = Generator::new(1);
    let mut step = |variance_type, variance: Tensor<4>| {
        let mut scheduler = ddpm(DDPMConfig {
            variance_type,
            ..DDPMConfig::default()
        });
        let prediction = Tensor::cat(vec![other.clone() * 0.3, variance], 1);
        generator = Generator::new(1);
        let mut options = StepOptions {
            generator: Some(&mut generator),
            ..StepOptions::default()
        };
        scheduler
            .step(prediction, 500.0, x.clone(), &mut options)
            .map(|output| output.previous)
    };
    let range = step(VarianceType::LearnedRange, x.clone().cos()).unwrap();
    same(
        range,
        [-3.052_123, -2.165_856_8, -0.633_481_74, 3.388_600_8],
        Some(118.491),
    );
    let learned = step(VarianceType::Learned, x.clone().cos().square()).unwrap();
    same(
        learned,
        [-3.458_776, -2.154_643_5, -0.646_734_8, 3.919_229_5],
        Some(123.5519),
    );
    // A variance below zero is taken for none; its root would not be a number.
    let none = values(step(VarianceType::Learned, x.clone() * 0.0 - 1.0).unwrap());
    assert!(none.iter().all(|value| value.is_finite()));
    let mut plain = ddpm(DDPMConfig {
        variance_type: VarianceType::Learned,
        ..DDPMConfig::default()
    });
    let error = plain
        .step(other.clone(), 500.0, x.clone(), &mut StepOptions::default())
        .unwrap_err();
    assert!(
        error.to_string().contains("6 channels for a sample of 3"),
        "{error}"
    );
}

#[test]
fn thresholding_looks_at_each_picture() {
    let (x, other) = setting(&Device::default());
    let config = DDPMConfig {
        thresholding: true,
        dynamic_thresholding_ratio: 0.9,
        sample_max_value: 1.5,
        ..DDPMConfig::default()
    };
    let mut generator = Generator::new(1);
    let mut options = StepOptions {
        generator: Some(&mut generator),
        ..StepOptions::default()
    };
    let output = ddpm(config).step(other * 0.3, 500.0, x, &mut options).unwrap();
    same(output.predicted_clean, [-1.0, -1.0, -1.0, 1.0], None);
    same(
        output.previous,
        [-3.051_752_6, -2.160_470_5, -0.628_228_07, 3.388_117_3],
        Some(117.7287),
    );
}

#[test]
fn custom_timesteps_are_followed() {
    let (x, other) = setting(&Device::default());
    let mut scheduler = ddpm(DDPMConfig::default());
    scheduler.set_custom_timesteps(&[900, 500, 3]).unwrap();
    assert_eq!(scheduler.timesteps(), [900.0, 500.0, 3.0]);
    let mut generator = Generator::new(1);
    let mut options = StepOptions {
        generator: Some(&mut generator),
        ..StepOptions::default()
    };
    let output = scheduler.step(other * 0.3, 500.0, x, &mut options).unwrap();
    same(
        output.previous,
        [-1.034_935_8, -1.017_783_3, -1.002_301, 1.045_535_4],
        Some(96.0076),
    );

    let refused = |timesteps: &[usize]| {
        scheduler
            .clone()
            .set_custom_timesteps(timesteps)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&[5, 5]).contains("5 comes after 5"));
    assert!(refused(&[1000, 5]).contains("beyond the schedule's last, 999"));
    assert!(refused(&[]).contains("at least one"));
}

#[test]
fn noise_and_velocity_take_a_timestep_a_picture() {
    let (x, other) = setting(&Device::default());
    let scheduler = DDIMScheduler::new(DDIMConfig::default()).unwrap();
    let velocity = scheduler
        .get_velocity(x.clone(), other.clone(), &[3, 700])
        .unwrap();
    same(
        velocity,
        [0.099_941_51, 0.716_962_6, 2.568_025_8, -2.992_297],
        None,
    );
    let noisy = scheduler.add_noise(x, other, &[3, 700]).unwrap();
    same(
        noisy,
        [-2.998_501, -2.352_692_4, -0.415_266_2, 0.217_154_89],
        None,
    );
}

#[test]
fn ddim_takes_given_noise_and_the_clipped_direction() {
    let (x, other) = setting(&Device::default());
    let mut scheduler = DDIMScheduler::new(DDIMConfig::default()).unwrap();
    scheduler.set_timesteps(10).unwrap();
    let mut options = StepOptions {
        eta: Some(0.5),
        use_clipped_model_output: true,
        variance_noise: Some(x.clone().flip([1])),
        ..StepOptions::default()
    };
    let output = scheduler.step(other * 0.3, 500.0, x, &mut options).unwrap();
    same(
        output.previous,
        [-3.123_099_8, -2.354_113_3, -1.508_771_2, 3.123_099_8],
        Some(196.4918),
    );
}

#[test]
fn gradients_pass_through_a_thresholded_step() {
    let (x, other) = setting(&Device::default().autodiff());
    let x = x.require_grad();
    let config = DDIMConfig {
        thresholding: true,
        sample_max_value: 2.0,
        ..DDIMConfig::default()
    };
    let mut scheduler = DDIMScheduler::new(config).unwrap();
    scheduler.set_timesteps(10).unwrap();
    let prediction = x.clone() * 0.3 + other * 0.2;
    let output = scheduler
        .step(prediction, 100.0, x.clone(), &mut StepOptions::default())
        .unwrap();
    let gradients = output.previous.square().sum().backward();
    let gradient = x.grad(&gradients).unwrap();
    same(
        gradient,
        [-0.006_053_828, -0.006_034_877, -0.297_523, 0.006_053_828],
        Some(34.011_135),
    );
}

#[test]
fn configs_keep_what_they_do_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler_config.json");
    let written = json!({
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.0", "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": 200, "made_up": {"deep": [1, null]}, "trained_betas": null,
    });
    std::fs::write(&file, written.to_string()).unwrap();
    let scheduler = AnyScheduler::load(folder.path()).unwrap();
    assert_eq!(scheduler.num_train_timesteps(), 200);
    scheduler.save(folder.path()).unwrap();

    let text = std::fs::read_to_string(&file).unwrap();
    let map: ConfigMap = serde_json::from_str(&text).unwrap();
    let keys: Vec<_> = map.keys().cloned().collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert_eq!(map["_diffusers_version"], "0.42.1");
    assert_eq!(map["made_up"], written["made_up"]);
    assert_eq!(
        (&map["clip_sample"], &map["trained_betas"]),
        (&json!(true), &Value::Null)
    );
    assert!(!map.contains_key("_use_default_values"));
    assert!(
        text.starts_with("{\n  \"_class_name\": \"DDPMScheduler\",\n"),
        "{text}"
    );
    let again = AnyScheduler::load(&file).unwrap();
    assert_eq!(again.alphas_cumprod(), scheduler.alphas_cumprod());
}

#[test]
fn another_class_takes_what_it_shares_and_keeps_the_rest() {
    let map = |value: Value| value.as_object().unwrap().clone();
    let scheduler = AnyScheduler::from_json(map(json!({
        "_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
        "variance_type": "fixed_large",
    })))
    .unwrap();
    let ddim = scheduler.convert("ddim").unwrap();
    let written = ddim.to_json().unwrap();
    assert_eq!(written["_class_name"], "DDIMScheduler");
    assert_eq!(written["prediction_type"], "v_prediction");
    assert_eq!(written["variance_type"], "fixed_large");
    assert_eq!(ddim.alphas_cumprod(), scheduler.alphas_cumprod());
    // Keys that nobody set are not handed on, since another class may have other defaults.
    assert_eq!(
        ddim.config().unwrap()["_use_default_values"]
            .as_array()
            .unwrap()
            .len(),
        13
    );
    let back = ddim.convert("DDPMScheduler").unwrap();
    assert_eq!(back.to_json().unwrap()["variance_type"], "fixed_large");

    // A scheduler built from a struct counts the default's values as not set.
    let built = AnyScheduler::from(DDPMScheduler::new(DDPMConfig::default()).unwrap());
    assert!(
        !built
            .convert("ddim")
            .unwrap()
            .to_json()
            .unwrap()
            .contains_key("variance_type")
    );
}

#[test]
fn files_that_make_no_sense_are_refused_by_name() {
    let refused = |config: Value| {
        AnyScheduler::from_json(config.as_object().unwrap().clone())
            .map(|_| "built")
            .unwrap_err()
            .to_string()
    };
    let ddpm = |key: &str, value: Value| refused(json!({"_class_name": "DDPMScheduler", key: value}));
    for (key, value, says) in [
        (
            "beta_schedule",
            json!("exponential"),
            "beta_schedule is \"exponential\"",
        ),
        ("variance_type", json!("other"), "fixed_small"),
        ("prediction_type", json!(3), "prediction_type is 3"),
        ("timestep_spacing", json!("even"), "linspace"),
        ("num_train_timesteps", json!(-5), "num_train_timesteps is -5"),
        ("num_train_timesteps", json!(0), "num_train_timesteps is 0"),
        ("beta_start", json!(-0.1), "beta_start is -0.1"),
        ("beta_end", json!(2), "beta_end is 2"),
        ("clip_sample", json!("yes"), "clip_sample is \"yes\""),
        ("clip_sample_range", json!(0), "clip_sample_range is 0"),
        ("trained_betas", json!([0.1]), "trained_betas holds 1 values"),
    ] {
        let message = ddpm(key, value);
        assert!(message.contains(says), "{key}: {message}");
    }
    let ratio =
        json!({"_class_name": "DDIMScheduler", "thresholding": true, "dynamic_thresholding_ratio": 1.5});
    assert!(refused(ratio).contains("between 0 and 1"));
    assert!(refused(json!({"beta_start": 0.1})).contains("_class_name"));

    let unknown = AnyScheduler::from_json(json!({"_class_name": "KarrasVe"}).as_object().unwrap().clone());
    match unknown {
        Err(Error::Unsupported(message)) => {
            assert!(
                ["KarrasVe", "DDIMScheduler, ", "DDPMScheduler, "]
                    .iter()
                    .all(|word| message.contains(word)),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler_config.json");
    std::fs::write(&file, r#"{"_class_name": "DDPMScheduler", "beta_end": 2}"#).unwrap();
    let message = AnyScheduler::load(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("scheduler_config.json") && message.contains("beta_end"),
        "{message}"
    );
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let (x, other) = setting(&Device::default());
    let mut scheduler = ddpm(DDPMConfig::default());
    let step = |scheduler: &mut dyn Scheduler, prediction: &Tensor<4>, t: f64, eta: f64| {
        let mut options = StepOptions {
            eta: Some(eta),
            ..StepOptions::default()
        };
        scheduler
            .step(prediction.clone(), t, x.clone(), &mut options)
            .map(|_| "did it")
            .unwrap_err()
            .to_string()
    };
    assert!(step(&mut scheduler, &other, 500.0, 0.0).contains("no generator"));
    assert!(step(&mut scheduler, &other, 501.0, 0.0).contains("not one of this loop's 10"));
    assert!(step(&mut scheduler, &other, 0.5, 0.0).contains("timestep 0.5"));
    assert!(step(&mut scheduler, &other, f64::NAN, 0.0).contains("NaN"));
    let narrow = other.clone().narrow(1, 0, 1);
    assert!(step(&mut scheduler, &narrow, 500.0, 0.0).contains("[2, 1, 4, 4]"));
    assert!(scheduler.set_timesteps(0).is_err() && scheduler.set_timesteps(1001).is_err());

    let mut ddim = DDIMScheduler::new(DDIMConfig::default()).unwrap();
    ddim.set_timesteps(10).unwrap();
    assert!(step(&mut ddim, &other, 500.0, -1.0).contains("eta is -1"));
    assert!(step(&mut ddim, &other, 500.0, 0.5).contains("DDIMScheduler draws noise"));
    assert!(step(&mut ddim, &other, 1000.0, 0.0).contains("0 to 999"));
}

fn config() -> impl Strategy<Value = DDPMConfig> {
    let schedules = [
        BetaSchedule::Linear,
        BetaSchedule::ScaledLinear,
        BetaSchedule::SquaredcosCapV2,
        BetaSchedule::Sigmoid,
        BetaSchedule::Laplace,
    ];
    let spacings = [
        TimestepSpacing::Linspace,
        TimestepSpacing::Leading,
        TimestepSpacing::Trailing,
    ];
    let predictions = [
        PredictionType::Epsilon,
        PredictionType::Sample,
        PredictionType::VPrediction,
    ];
    let variances = [
        VarianceType::FixedSmall,
        VarianceType::FixedSmallLog,
        VarianceType::FixedLarge,
        VarianceType::FixedLargeLog,
    ];
    let choices = (
        proptest::sample::select(schedules.to_vec()),
        proptest::sample::select(spacings.to_vec()),
        proptest::sample::select(predictions.to_vec()),
        proptest::sample::select(variances.to_vec()),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (choices, flags, 2_usize..1000, 0.0..0.1, 0.11..0.99).prop_map(|(choices, flags, train, start, end)| {
        let (beta_schedule, timestep_spacing, prediction_type, variance_type) = choices;
        let (clip_sample, thresholding, rescale_betas_zero_snr) = flags;
        DDPMConfig {
            num_train_timesteps: train,
            beta_start: start,
            beta_end: end,
            beta_schedule,
            timestep_spacing,
            prediction_type,
            variance_type,
            clip_sample,
            thresholding,
            rescale_betas_zero_snr,
            ..DDPMConfig::default()
        }
    })
}

/// Runs a loop with a stand-in model, whose first value is always the sample's own.
fn is_finite_and_falls(mut scheduler: AnyScheduler, steps: usize, eta: f64) -> Result<(), TestCaseError> {
    scheduler.set_timesteps(steps).unwrap();
    let timesteps = scheduler.timesteps().to_vec();
    prop_assert_eq!(timesteps.len(), steps);
    prop_assert!(
        timesteps.windows(2).all(|pair| pair[1] < pair[0]),
        "{:?}",
        timesteps
    );
    let mut generator = Generator::new(steps as u64);
    let mut x = generator.randn_tensor([2, 1, 2, 2], &Device::default());
    for t in timesteps {
        let mut options = StepOptions {
            generator: Some(&mut generator),
            eta: Some(eta),
            ..StepOptions::default()
        };
        let output = scheduler
            .step(x.clone() * (t / (t + 1.0)), t, x, &mut options)
            .unwrap();
        for value in values(output.previous.clone())
            .into_iter()
            .chain(values(output.predicted_clean))
        {
            prop_assert!(value.is_finite(), "{} after timestep {}", value, t);
        }
        x = output.previous;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_loop_is_finite_and_falls(config in config(), share in 0.0..1.0, eta in 0.0..1.2) {
        let steps = 1 + (share * share * config.num_train_timesteps as f64) as usize;
        let ddpm = AnyScheduler::from(DDPMScheduler::new(config).unwrap());
        let ddim = ddpm.convert("ddim").unwrap();
        is_finite_and_falls(ddpm, steps, 0.0)?;
        is_finite_and_falls(ddim, steps, eta)?;
    }
}
