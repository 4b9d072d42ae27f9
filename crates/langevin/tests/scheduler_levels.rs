//! What a scheduler says of a step without taking it: the noise level, and the clean sample that a prediction implies. Both are held
//! to what its other methods come to, bit for bit, at every call of the model of loops of every class.

use burn::tensor::{Device, Tensor};
use langevin::{
    random::Generator,
    schedulers::{AnyScheduler, CloneScheduler, ConfigMap, Scheduler, StepOptions},
};
use serde_json::{Value, json};

const SHAPE: [usize; 4] = [2, 3, 4, 4];
const STEPS: usize = 7;

fn bits(x: &Tensor<4>) -> Vec<u32> {
    let values = x.clone().into_data().try_into_vec::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Settings that change what a prediction means or where the model is asked; a class leaves aside what it does not know, and what it
/// refuses is no case.
fn settings() -> Vec<Value> {
    vec![
        json!({}),
        json!({"prediction_type": "v_prediction"}),
        json!({"prediction_type": "sample"}),
        json!({"use_karras_sigmas": true}),
        json!({"clip_sample": true, "clip_sample_range": 0.5, "clip_denoised": false}),
        json!({"thresholding": true, "sample_max_value": 2.0}),
        json!({"use_flow_sigmas": true, "prediction_type": "flow_prediction", "flow_shift": 3.0}),
        json!({"algorithm_type": "sde-dpmsolver++"}),
        json!({"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "predict_x0": false}),
        json!({"algorithm_type": "noise_prediction"}),
        json!({"invert_sigmas": true}),
        json!({"skip_prk_steps": true}),
        json!({"rescale_betas_zero_snr": true, "prediction_type": "v_prediction"}),
        json!({"set_alpha_to_one": false, "steps_offset": 1, "timestep_spacing": "leading"}),
        json!({"solver_p": {"_class_name": "DPMSolverMultistepScheduler"}}),
    ]
}

fn built(class: &str, settings: &Value) -> langevin::Result<AnyScheduler> {
    let mut config: ConfigMap = settings.as_object().unwrap().clone();
    config.insert("_class_name".to_owned(), class.into());
    let mut scheduler = AnyScheduler::from_json(config)?;
    scheduler.set_timesteps(STEPS)?;
    Ok(scheduler)
}

fn level_as_mixed(scheduler: &AnyScheduler, t: f64) -> langevin::Result<[u32; 2]> {
    let number = |value: f32| Tensor::<4>::full([1, 1, 1, 1], value, &Device::default());
    let mixed = |x0, noise| scheduler.add_noise_at(number(x0), number(noise), t);
    Ok([bits(&mixed(1.0, 0.0)?)[0], bits(&mixed(0.0, 1.0)?)[0]])
}

/// Walks a loop and compares; gives the number of calls.
fn compare(name: &str, mut scheduler: AnyScheduler) -> usize {
    let mut generator = Generator::new(3);
    let device = Device::default();
    let mut x = generator.randn_tensor(SHAPE, &device) * scheduler.init_noise_sigma();
    let picture = generator.randn_tensor(SHAPE, &device);
    let mask = picture.ones_like().slice_fill([0..2, 0..3, 0..4, 0..2], 0.0);
    let (mut last, mut calls) = (f64::INFINITY, 0);
    for t in scheduler.timesteps().to_vec() {
        if let AnyScheduler::RePaint(repaint) = &scheduler
            && t > last
        {
            x = repaint.undo_step(x, last, &mut generator).unwrap();
            last = t;
            continue;
        }
        last = t;
        let level = scheduler
            .level(t)
            .map(|level| [level.signal, level.noise].map(f32::to_bits));
        assert_eq!(
            level.unwrap(),
            level_as_mixed(&scheduler, t).unwrap(),
            "{name}: the level at {t}"
        );

        let input = scheduler.scale_model_input(x.clone(), t).unwrap();
        let prediction = input.clone() * 0.7 + input.sin() * 0.2;
        let clean = scheduler.predicted_clean(&prediction, t, &x);
        let mut of_copy = generator.clone();
        let step = |mut scheduler: Box<dyn Scheduler>, generator: &mut Generator| {
            let mut options = StepOptions {
                generator: Some(generator),
                original_image: Some(picture.clone()),
                mask: Some(mask.clone()),
                ..StepOptions::default()
            };
            scheduler.step(prediction.clone(), t, x.clone(), &mut options)
        };
        let expected = step(scheduler.boxed_clone(), &mut of_copy)
            .unwrap()
            .predicted_clean;
        assert_eq!(
            bits(&clean.unwrap()),
            bits(&expected),
            "{name}: the clean sample at {t}"
        );
        calls += 1;

        let mut options = StepOptions {
            generator: Some(&mut generator),
            original_image: Some(picture.clone()),
            mask: Some(mask.clone()),
            ..StepOptions::default()
        };
        x = scheduler.step(prediction, t, x, &mut options).unwrap().previous;
    }
    calls
}

#[test]
fn a_level_and_a_clean_sample_are_those_of_the_step() {
    for (name, class) in AnyScheduler::NAMES {
        let mut calls = 0;
        for settings in settings() {
            if let Ok(scheduler) = built(class, &settings) {
                calls += compare(&format!("{name} with {settings}"), scheduler);
            }
        }
        assert!(calls >= STEPS, "{name} had {calls} calls");
    }
}

#[test]
fn a_clean_sample_of_another_shape_is_refused() {
    for (name, class) in AnyScheduler::NAMES {
        let scheduler = built(class, &json!({})).unwrap();
        let x = Tensor::<4>::zeros(SHAPE, &Device::default());
        let other = Tensor::<4>::zeros([2, 3, 4, 5], &Device::default());
        let t = scheduler.timesteps()[0];
        let refused = scheduler.predicted_clean(&other, t, &x).unwrap_err().to_string();
        assert!(refused.contains("shape"), "{name}: {refused}");
    }
}
