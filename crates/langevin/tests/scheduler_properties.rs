//! Every scheduler with any config: it is refused with a reason, or its loops of 1 to 1000 steps stay finite.

// Burn takes a slice as an array with a range for each dimension.
#![allow(clippy::single_range_in_vec_init)]

mod support;

use std::cell::Cell;

use burn::tensor::{Device, Tensor};
use langevin::{
    random::Generator,
    schedulers::{AnyScheduler, ConfigMap, Scheduler, StepOptions},
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{TestCaseResult, TestRunner},
};
use serde_json::{Value, json};
use support::values;

/// Configs tried of each class.
const CASES: u32 = 40;
/// Of these, at least so many have to be accepted, or the test would not say much.
const LEAST_ACCEPTED: usize = 3;
/// The least alpha-bar of a schedule with which a model that predicts noise of chance is tried, and the solver that adds noise.
const LEAST_SIGNAL_OF_NOISE: f32 = 1e-9;
const SHAPE: [usize; 4] = [2, 1, 2, 2];

#[test]
fn every_loop_that_is_accepted_is_finite() {
    for (name, class) in AnyScheduler::NAMES {
        let accepted = Cell::new(0);
        let mut runner = TestRunner::new(ProptestConfig {
            cases: CASES,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let cases = (
            config(class),
            0.0..1.0_f64,
            select(vec![Model::Gaussian, Model::Noise]),
        );
        let result = runner.run(&cases, |(config, share, model)| {
            check(name, config, share, model, &accepted)
        });
        if let Err(error) = result {
            panic!("{class}: {error}");
        }
        println!("{class}: {} loops", accepted.get());
        assert!(
            accepted.get() >= LEAST_ACCEPTED,
            "{class}: {} loops",
            accepted.get()
        );
    }
}

/// What stands in for a model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    /// The best guess for data from the standard normal distribution.
    Gaussian,
    /// Noise that has nothing to do with the sample.
    Noise,
}

fn check(name: &str, config: ConfigMap, share: f64, model: Model, accepted: &Cell<usize>) -> TestCaseResult {
    let explained = |error: langevin::Error| {
        let message = error.to_string();
        prop_assert!(message.len() > 20, "{message}");
        Ok(())
    };
    let kind = config["prediction_type"].as_str().unwrap_or_default().to_owned();
    let learned = matches!(
        config["variance_type"].as_str(),
        Some("learned" | "learned_range")
    );
    let mut scheduler = match AnyScheduler::from_json(config) {
        Ok(scheduler) => scheduler,
        Err(error) => return explained(error),
    };
    // Over so many orders of magnitude, solvers of higher orders may amplify what has nothing to do with the sample past float32.
    let least = scheduler
        .alphas_cumprod()
        .iter()
        .fold(1.0, |least, &alpha| f32::min(least, alpha));
    let amplifies = model == Model::Noise || name == "sa-solver";
    if amplifies && least < LEAST_SIGNAL_OF_NOISE {
        return Ok(());
    }
    // Few steps are tried more often than many; jumps back multiply those of RePaint.
    let most = if name == "repaint" { 60.0 } else { 1000.0 };
    let steps = 1 + (share * share * share * most) as usize;
    if let Err(error) = scheduler.set_timesteps(steps) {
        return explained(error);
    }
    let mut generator = Generator::new(steps as u64);
    let device = Device::default();
    let mut x = generator.randn_tensor(SHAPE, &device) * scheduler.init_noise_sigma();
    let mut last = f64::INFINITY;
    for t in scheduler.timesteps().to_vec() {
        if let Some(undone) = undone(&scheduler, &x, last, t, &mut generator) {
            (x, last) = (undone, t);
            continue;
        }
        last = t;
        let input = scheduler.scale_model_input(x.clone(), t).unwrap();
        let mut prediction = match model {
            Model::Gaussian => best_guess(&scheduler, &kind, input, t),
            Model::Noise => generator.randn_tensor(SHAPE, &device),
        };
        let doubles = matches!(
            scheduler.class_name(),
            "DDPMScheduler" | "UnCLIPScheduler" | "SASolverScheduler"
        ) || scheduler.class_name().starts_with("DPMSolver")
            && scheduler.class_name() != "DPMSolverSDEScheduler";
        if learned && doubles {
            prediction = Tensor::cat(vec![prediction.clone(), prediction.tanh()], 1);
        }
        let mut options = StepOptions {
            generator: Some(&mut generator),
            original_image: Some(Tensor::ones(SHAPE, &device)),
            mask: Some(Tensor::ones(SHAPE, &device).slice_fill([0..1], 0.0)),
            ..StepOptions::default()
        };
        let output = match scheduler.step(prediction, t, x, &mut options) {
            Ok(output) => output,
            Err(error) => {
                prop_assert!(false, "timestep {t} of {steps} steps: {error}");
                return Ok(());
            }
        };
        for (what, tensor) in [
            ("sample", &output.previous),
            ("clean sample", &output.predicted_clean),
        ] {
            for value in values(tensor.clone()) {
                prop_assert!(
                    value.is_finite(),
                    "the {what} is {value} after timestep {t} of {steps} steps"
                );
            }
        }
        x = output.previous;
    }
    accepted.set(accepted.get() + 1);
    Ok(())
}

/// Where RePaint's loop jumps back up, the sample with its last step undone.
fn undone(
    scheduler: &AnyScheduler,
    x: &Tensor<4>,
    last: f64,
    t: f64,
    generator: &mut Generator,
) -> Option<Tensor<4>> {
    match scheduler {
        AnyScheduler::RePaint(repaint) if t > last => {
            Some(repaint.undo_step(x.clone(), last, generator).unwrap())
        }
        _ => None,
    }
}

/// What the best model of standard normal data predicts: E[ε | x] = σ x and E[x_0 | x] = α x where α² + σ² = 1.
fn best_guess(scheduler: &AnyScheduler, kind: &str, input: Tensor<4>, t: f64) -> Tensor<4> {
    let train = scheduler.num_train_timesteps();
    if let AnyScheduler::ScoreSdeVe(scheduler) = scheduler {
        // The score of x_0 + σ ε with σ growing from the least to the most as t goes from 0 to 1.
        let (least, most) = (scheduler.config().sigma_min, scheduler.config().sigma_max);
        let sigma = least * (most / least).powf(t);
        return input * (-1.0 / (sigma * sigma + 1.0));
    }
    let table = scheduler.alphas_cumprod();
    if table.is_empty() || kind == "flow_prediction" {
        let sigma = (t / train as f64).clamp(0.0, 1.0);
        let alpha = 1.0 - sigma;
        return input * ((sigma - alpha) / (sigma * sigma + alpha * alpha));
    }
    let alpha_prod = f64::from(table[(t.max(0.0) as usize).min(train - 1)]);
    match kind {
        "sample" => input * alpha_prod.sqrt(),
        "v_prediction" => input * 0.0,
        _ => input * (1.0 - alpha_prod).sqrt(),
    }
}

/// Any config of a class, with values that it knows.
fn config(class: &str) -> impl Strategy<Value = ConfigMap> + use<> {
    let class = class.to_owned();
    let edm = class.starts_with("EDM");
    let flow = !matches!(
        class.as_str(),
        "DPMSolverMultistepScheduler"
            | "DPMSolverSinglestepScheduler"
            | "DEISMultistepScheduler"
            | "UniPCMultistepScheduler"
            | "SASolverScheduler"
    );
    let algorithms: &[&str] = match class.as_str() {
        "DEISMultistepScheduler" => &["deis", "dpmsolver++"],
        "SASolverScheduler" => &["data_prediction", "noise_prediction"],
        "DPMSolverMultistepInverseScheduler" => &["dpmsolver", "dpmsolver++"],
        _ if edm => &["dpmsolver++", "sde-dpmsolver++"],
        _ => &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"],
    };
    let variances: &[&str] = match class.as_str() {
        "UnCLIPScheduler" => &["fixed_small_log", "learned_range"],
        _ => &[
            "fixed_small",
            "fixed_small_log",
            "fixed_large",
            "fixed_large_log",
            "learned",
            "learned_range",
        ],
    };
    let schedules: &[&str] = match class.as_str() {
        "UnCLIPScheduler" => &["squaredcos_cap_v2"],
        _ => &[
            "linear",
            "scaled_linear",
            "squaredcos_cap_v2",
            "sigmoid",
            "laplace",
        ],
    };
    let words = |words: &[&str]| select(words.iter().map(|word| json!(word)).collect::<Vec<Value>>());
    let choices = (
        words(schedules),
        words(&["linspace", "leading", "trailing"]),
        words(&["epsilon", "epsilon", "sample", "v_prediction", "flow_prediction"]),
        words(algorithms),
        words(&["midpoint", "heun", "bh1", "bh2"]),
        words(variances),
        words(&["zero", "sigma_min"]),
    );
    let numbers = (
        prop_oneof![Just(1000_usize), 10_usize..1000],
        1e-5..0.01_f64,
        prop_oneof![0.011..0.05_f64, 0.011..0.6_f64],
        1_usize..4,
        0_usize..2,
        // None, or one of the ways to spread the noise levels.
        0_usize..6,
        -8.0..3.0_f64,
    );
    let flags = proptest::collection::vec(any::<bool>(), 12);
    (choices, numbers, flags).prop_map(move |(choices, numbers, flags)| {
        let (schedule, spacing, prediction, algorithm, solver, variance, last) = choices;
        let (train, beta_start, beta_end, order, offset, spread, lambda) = numbers;
        // A flow's prediction is one only with a flow's noise levels, and a few of these pairs are to be refused.
        let flows = prediction == "flow_prediction" && (flags[0] || flags[1]);
        let prediction = if flow && prediction == "flow_prediction" {
            json!("epsilon")
        } else {
            prediction
        };
        let solver = match class.as_str() {
            "UniPCMultistepScheduler" => solver,
            _ if solver == "bh1" || solver == "bh2" => json!("midpoint"),
            _ => solver,
        };
        let map = json!({
            "_class_name": class,
            "num_train_timesteps": train,
            "beta_start": beta_start,
            "beta_end": beta_end,
            "beta_schedule": schedule,
            "timestep_spacing": spacing,
            "steps_offset": offset,
            "prediction_type": prediction,
            "algorithm_type": algorithm,
            "solver_type": solver,
            "solver_order": order,
            "predictor_order": order,
            "corrector_order": 4 - order,
            "variance_type": variance,
            "final_sigmas_type": last,
            "use_karras_sigmas": spread == 1,
            "use_exponential_sigmas": spread == 2,
            "use_beta_sigmas": spread == 3,
            "use_lu_lambdas": spread == 4,
            "use_flow_sigmas": flows,
            "lambda_min_clipped": if flags[2] && flags[3] { json!(lambda) } else { json!("-Infinity") },
            "clip_sample": flags[4],
            "thresholding": flags[5] && flags[6],
            "set_alpha_to_one": flags[7],
            "rescale_betas_zero_snr": flags[8] && flags[9],
            "lower_order_final": flags[10],
            "euler_at_final": flags[11],
            "predict_x0": flags[1],
            "skip_prk_steps": flags[1],
            "original_inference_steps": (train / 2).max(1),
            "sigma_schedule": if flags[0] { "karras" } else { "exponential" },
            "interpolation_type": if flags[0] { "linear" } else { "log_linear" },
            "stochastic_sampling": flags[0],
            "shift": 0.5 + 4.0 * beta_end,
            "eta": beta_end,
        });
        let mut map = map.as_object().cloned().unwrap_or_default();
        if edm {
            map.insert("sigma_min".to_owned(), json!(0.002));
            map.insert("sigma_max".to_owned(), json!(80.0));
        }
        map
    })
}

/// A scheduler of a class with these settings.
fn built(class: &str, settings: Value) -> AnyScheduler {
    let mut config = settings.as_object().cloned().unwrap_or_default();
    config.insert("_class_name".to_owned(), class.into());
    AnyScheduler::from_json(config).unwrap()
}

/// Walks a whole loop with the stand-in model x · t / (t + 1); whether it ends with numbers.
fn ends_finite(mut scheduler: AnyScheduler, steps: usize) -> langevin::Result<bool> {
    scheduler.set_timesteps(steps)?;
    let device = Device::default();
    let mut generator = Generator::new(0);
    let mut x = generator.randn_tensor(SHAPE, &device) * scheduler.init_noise_sigma();
    let mut last = f64::INFINITY;
    for t in scheduler.timesteps().to_vec() {
        if let Some(undone) = undone(&scheduler, &x, last, t, &mut generator) {
            (x, last) = (undone, t);
            continue;
        }
        last = t;
        let prediction = scheduler.scale_model_input(x.clone(), t)? * (t / (t + 1.0));
        let mut options = StepOptions {
            generator: Some(&mut generator),
            original_image: Some(Tensor::ones(SHAPE, &device)),
            mask: Some(Tensor::ones(SHAPE, &device).slice_fill([0..1], 0.0)),
            ..StepOptions::default()
        };
        x = scheduler.step(prediction, t, x, &mut options)?.previous;
    }
    Ok(values(x).into_iter().all(f32::is_finite))
}

#[test]
fn every_class_takes_every_number_of_steps_or_says_why_not() {
    for (name, class) in AnyScheduler::NAMES {
        let mut scheduler = built(class, json!({}));
        for steps in 1..=1000 {
            match scheduler.set_timesteps(steps) {
                Ok(()) => assert!(!scheduler.timesteps().is_empty(), "{class} {steps}"),
                Err(error) => assert!(
                    error.to_string().contains(&steps.to_string()),
                    "{class} {steps}: {error}"
                ),
            }
        }
        assert!(scheduler.set_timesteps(0).is_err(), "{class}");
        // The stand-in is no model of these, whose loops grow without bound in diffusers too.
        if matches!(*name, "ipndm" | "edm-euler" | "edm-dpm++2m" | "sde-ve" | "cm") {
            continue;
        }
        for steps in [1, 2, 3, 5, 10, 50, 100, 999, 1000] {
            if *name == "repaint" && steps > 100 {
                continue;
            }
            if let Ok(finite) = ends_finite(built(class, json!({})), steps) {
                assert!(finite, "{class} {steps}");
            }
        }
    }
}

#[test]
fn dpm_solvers_stay_in_range_with_spread_levels_on_the_cosine_schedule() {
    // Levels far apart fall on few whole timesteps there, so that a loop's timesteps repeat; diffusers then begins at the second
    // and runs out of levels (its issues 10740, 12771 and 14213).
    for class in [
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "DEISMultistepScheduler",
        "UniPCMultistepScheduler",
        "SASolverScheduler",
    ] {
        for spread in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
        ] {
            for order in [1, 2, 3] {
                let settings = json!({
                    "beta_schedule": "squaredcos_cap_v2", spread: true, "solver_order": order, "predictor_order": order,
                });
                for steps in [1, 2, 3, 4, 7, 10, 15, 20, 25, 30, 50] {
                    let finite = ends_finite(built(class, settings.clone()), steps).unwrap();
                    assert!(finite, "{class} {spread} of order {order}, {steps} steps");
                }
            }
        }
    }
}

#[test]
fn unipc_is_finite_where_no_noise_is_left() {
    for solver in ["bh1", "bh2"] {
        for (predict_x0, lower_order_final) in [(true, true), (true, false), (false, true), (false, false)] {
            for order in 1..=9 {
                let settings = json!({
                    "solver_type": solver, "predict_x0": predict_x0, "lower_order_final": lower_order_final,
                    "solver_order": order, "final_sigmas_type": "zero",
                });
                for steps in [1, 2, 10, 20] {
                    let finite =
                        ends_finite(built("UniPCMultistepScheduler", settings.clone()), steps).unwrap();
                    assert!(finite, "{settings} {steps}");
                }
            }
        }
    }
}

#[test]
fn unipc_can_predict_with_another_scheduler() {
    // Diffusers' solver_p: with DPM-Solver++ as the predictor and no corrections it is DPM-Solver++.
    let dpm = json!({ "_class_name": "DPMSolverMultistepScheduler", "solver_order": 2 });
    let all: Vec<usize> = (0..10).collect();
    let mut unipc = built(
        "UniPCMultistepScheduler",
        json!({ "solver_p": dpm, "disable_corrector": all }),
    );
    let mut alone = built("DPMSolverMultistepScheduler", json!({ "solver_order": 2 }));
    let device = Device::default();
    let mut x = Generator::new(0).randn_tensor(SHAPE, &device);
    let mut y = x.clone();
    unipc.set_timesteps(10).unwrap();
    alone.set_timesteps(10).unwrap();
    for t in unipc.timesteps().to_vec() {
        let mut options = StepOptions::default();
        x = unipc.step(x.clone() * 0.5, t, x, &mut options).unwrap().previous;
        y = alone.step(y.clone() * 0.5, t, y, &mut options).unwrap().previous;
    }
    assert_eq!(values(x), values(y));
}

#[test]
fn configs_that_contradict_themselves_are_refused() {
    for (class, settings, says) in [
        (
            "DPMSolverMultistepScheduler",
            json!({ "prediction_type": "flow_prediction" }),
            "needs use_flow_sigmas",
        ),
        (
            "DPMSolverMultistepScheduler",
            json!({ "algorithm_type": "dpmsolver" }),
            "it needs sigma_min",
        ),
        (
            "DPMSolverMultistepScheduler",
            json!({ "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3 }),
            "has 1 to 2 for sde-dpmsolver",
        ),
        (
            "DPMSolverMultistepScheduler",
            json!({ "use_flow_sigmas": true, "use_karras_sigmas": true }),
            "one of them must be false",
        ),
        (
            "DPMSolverMultistepScheduler",
            json!({ "use_beta_sigmas": true, "use_karras_sigmas": true }),
            "only one of",
        ),
        (
            "DPMSolverMultistepScheduler",
            json!({ "lambda_min_clipped": 100 }),
            "above λ at every timestep",
        ),
        (
            "DPMSolverMultistepScheduler",
            json!({ "solver_order": 4 }),
            "has 1 to 3",
        ),
        (
            "DPMSolverMultistepInverseScheduler",
            json!({ "algorithm_type": "sde-dpmsolver++" }),
            "none to add",
        ),
        (
            "DPMSolverMultistepInverseScheduler",
            json!({ "use_flow_sigmas": true }),
            "does not invert flows",
        ),
        (
            "DPMSolverSinglestepScheduler",
            json!({ "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min" }),
            "has dpmsolver, dpmsolver++ and sde-dpmsolver++",
        ),
        (
            "DEISMultistepScheduler",
            json!({ "algorithm_type": "sde-dpmsolver++" }),
            "algorithm_type is",
        ),
        (
            "DEISMultistepScheduler",
            json!({ "solver_order": 0 }),
            "has 1 to 3",
        ),
        (
            "UniPCMultistepScheduler",
            json!({ "shift_terminal": 0.1 }),
            "needs use_flow_sigmas",
        ),
        (
            "UniPCMultistepScheduler",
            json!({ "sigma_min": 3, "sigma_max": 2 }),
            "must be below it",
        ),
        (
            "UniPCMultistepScheduler",
            json!({ "solver_p": { "_class_name": "None" } }),
            "None is not supported",
        ),
        ("SASolverScheduler", json!({ "corrector_order": 5 }), "has 1 to 4"),
        (
            "EDMDPMSolverMultistepScheduler",
            json!({ "prediction_type": "sample" }),
            "epsilon and v_prediction",
        ),
        (
            "EDMDPMSolverMultistepScheduler",
            json!({ "sigma_min": 90 }),
            "sigma_min < sigma_max",
        ),
        (
            "DDIMInverseScheduler",
            json!({ "timestep_spacing": "linspace" }),
            "leading and trailing",
        ),
        (
            "UnCLIPScheduler",
            json!({ "prediction_type": "v_prediction" }),
            "epsilon and sample",
        ),
        (
            "LCMScheduler",
            json!({ "original_inference_steps": 1001 }),
            "1 to 1000 timesteps to distil on",
        ),
        ("RePaintScheduler", json!({ "eta": -1 }), "0 or more"),
    ] {
        let mut config = settings.as_object().cloned().unwrap();
        config.insert("_class_name".to_owned(), class.into());
        let message = AnyScheduler::from_json(config)
            .map(|_| "built")
            .unwrap_err()
            .to_string();
        assert!(message.contains(says), "{class} {settings}: {message}");
    }
}
