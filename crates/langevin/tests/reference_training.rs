//! Twelve steps of training against the trace that PyTorch and diffusers leave of the same ones: every run found under `training`, which is
//! one folder with a `trace.json`, or holds several.

mod support;

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Int, Tensor, TensorData};
use langevin::{
    models::{Conditioning, Model, UNet2DModel, weights},
    named::Named,
    objectives::{DdpmObjective, PredictionType, Weighting},
    schedulers::{BetaSchedule, DDPMConfig, DDPMScheduler},
    training::{
        LrSchedulerType,
        ema::EmaSchedule,
        learner::Learner,
        lr_schedule::{LrSchedule, LrScheduleOptions},
        optimizer::AdamWConfig,
        step::{self, Batch, Draw},
    },
};
use serde_json::Value;
use support::{Outcome, Report, folders, read_json, read_tensors, reference, relative_difference, within};

const TOLERANCE: f64 = 1e-3;

/// Compares weights with those of a checkpoint, each tensor relative to its largest value.
fn same_weights(what: &str, model: &UNet2DModel, folder: &Path) -> Result<(), String> {
    let expected = read_tensors(folder.join(weights::FILE_NAME));
    let found = weights::named_tensors(model);
    if found.len() != expected.len() {
        return Err(format!(
            "{what}: {} tensors where {} were expected",
            found.len(),
            expected.len()
        ));
    }
    for tensor in found {
        let expected = expected
            .get(&tensor.name)
            .ok_or_else(|| format!("{what}: no {}", tensor.name))?;
        let difference = relative_difference(&tensor.values, &expected.f32());
        within(&format!("{what}: {}", tensor.name), difference, TOLERANCE)?;
    }
    Ok(())
}

fn close(what: &str, step: usize, found: f64, expected: &Value) -> Result<(), String> {
    let expected = expected[step]
        .as_f64()
        .ok_or_else(|| format!("the trace has no {what} of step {step}"))?;
    let difference = (found - expected).abs() / expected.abs().max(1e-9);
    within(
        &format!("{what} of step {step}"),
        if found == expected { 0.0 } else { difference },
        TOLERANCE,
    )
}

fn check(folder: &Path) -> Result<Outcome, String> {
    let trace = read_json(folder.join("trace.json"));
    let device = Device::flex();
    let model = UNet2DModel::load(folder.join("init"), &device).map_err(|e| e.to_string())?;
    let steps = read_tensors(folder.join("batches.safetensors"));
    let number = |section: &str, key: &str| trace[section][key].as_f64().unwrap();

    let optimizer = AdamWConfig {
        beta1: trace["optimizer"]["betas"][0].as_f64().unwrap(),
        beta2: trace["optimizer"]["betas"][1].as_f64().unwrap(),
        eps: number("optimizer", "eps"),
        weight_decay: number("optimizer", "weight_decay"),
    };
    let learning_rate = number("optimizer", "lr");
    let options = LrScheduleOptions {
        num_warmup_steps: number("lr_scheduler", "warmup") as usize,
        num_training_steps: number("lr_scheduler", "steps") as usize,
        num_cycles: None,
        power: 1.0,
        step_rules: None,
        gamma: 0.9,
        steps_per_epoch: 1,
        learning_rate,
    };
    let kind = LrSchedulerType::from_name(trace["lr_scheduler"]["name"].as_str().unwrap());
    let schedule = kind
        .and_then(|kind| LrSchedule::new(kind, &options))
        .map_err(|e| e.to_string())?;
    let ema = EmaSchedule {
        max_decay: number("ema", "max_decay"),
        inv_gamma: number("ema", "inv_gamma"),
        power: number("ema", "power"),
        use_ema_warmup: true,
        ..EmaSchedule::default()
    };
    let max_grad_norm = trace["clip_grad_norm"].as_f64().unwrap();
    let beta_schedule = BetaSchedule::from_name(trace["noise_schedule"].as_str().unwrap());
    let prediction = trace
        .get("prediction_type")
        .and_then(Value::as_str)
        .unwrap_or("epsilon");
    let prediction_type = PredictionType::from_name(prediction).map_err(|e| e.to_string())?;
    let config = DDPMConfig {
        beta_schedule: beta_schedule.map_err(|e| e.to_string())?,
        prediction_type,
        ..DDPMConfig::default()
    };
    let scheduler = DDPMScheduler::new(config).map_err(|e| e.to_string())?;
    let objective =
        DdpmObjective::new(&scheduler, prediction_type, Weighting::default()).map_err(|e| e.to_string())?;

    let mut learner = Learner::new(
        model,
        optimizer,
        learning_rate,
        schedule,
        max_grad_norm,
        Some(ema),
    );
    let count = trace["losses"].as_array().unwrap().len();
    for i in 0..count {
        let (batch, draw) = read_step(&steps, i, &device);
        let lesson =
            step::gradients(learner.model(), &objective, &batch, &draw).map_err(|e| e.to_string())?;
        let update;
        (learner, update) = learner.update(lesson.gradients);
        close("loss", i, lesson.loss, &trace["losses"])?;
        close("learning rate", i, update.learning_rate, &trace["lrs"])?;
        close("gradient norm", i, update.grad_norm, &trace["grad_norms"])?;
        close(
            "EMA decay",
            i,
            update.ema_decay.unwrap_or(f64::NAN),
            &trace["ema_decays"],
        )?;
    }
    same_weights("final", learner.model(), &folder.join("final"))?;
    same_weights("final_ema", &learner.best(), &folder.join("final_ema"))?;
    Ok(Outcome::Ran)
}

/// The pictures, noise, timesteps and labels of a step.
fn read_step(steps: &BTreeMap<String, support::Stored>, i: usize, device: &Device) -> (Batch, Draw) {
    let part = |name: &str| steps.get(&format!("{i:02}.{name}"));
    let all = |name: &str| part(name).unwrap_or_else(|| panic!("step {i} has no {name}"));
    let clean = all("images").tensor::<4>(device);
    let classes = part("labels").map(|labels| {
        let labels: Vec<i64> = labels.f32().into_iter().map(|label| label as i64).collect();
        let n = labels.len();
        Tensor::<1, Int>::from_data(TensorData::new(labels, [n]), device)
    });
    let draw = Draw {
        noise: all("noise").tensor::<4>(device).into(),
        times: all("timesteps").f32().into_iter().map(f64::from).collect(),
    };
    (
        Batch::new(
            clean,
            Conditioning {
                classes,
                ..Conditioning::default()
            },
        ),
        draw,
    )
}

#[test]
fn every_trace_is_reproduced() {
    let root = reference().join("training");
    let runs = if root.join("trace.json").exists() {
        vec![root]
    } else {
        folders(root)
    };
    let mut report = Report::new();
    for run in runs {
        report.case(&run.display().to_string(), check(&run));
    }
    report.finish();
}
