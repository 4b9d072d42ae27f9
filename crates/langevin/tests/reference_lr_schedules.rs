//! Learning-rate schedules against diffusers' `get_scheduler`: every one in `lr_schedules.json`.

mod support;

use langevin::{
    named::Named,
    training::{
        LrSchedulerType,
        lr_schedule::{LrSchedule, LrScheduleOptions},
    },
};
use support::{Outcome, Report, read_json, reference, within};

/// The learning rate that the reference was made with.
const LEARNING_RATE: f64 = 2e-4;

#[test]
fn every_schedule_has_the_same_rates() {
    let mut report = Report::new();
    for (name, case) in read_json(reference().join("lr_schedules.json"))
        .as_object()
        .unwrap()
    {
        let args = &case["args"];
        let number = |key: &str| args.get(key).and_then(serde_json::Value::as_f64);
        let options = LrScheduleOptions {
            num_warmup_steps: number("num_warmup_steps").unwrap_or(0.0) as usize,
            num_training_steps: number("num_training_steps").unwrap_or(0.0) as usize,
            num_cycles: number("num_cycles"),
            power: number("power").unwrap_or(1.0),
            step_rules: args
                .get("step_rules")
                .and_then(|rules| rules.as_str())
                .map(String::from),
            gamma: 0.9,
            steps_per_epoch: 1,
            learning_rate: LEARNING_RATE,
        };
        let outcome = LrSchedulerType::from_name(name)
            .and_then(|kind| LrSchedule::new(kind, &options))
            .map_err(|e| e.to_string())
            .and_then(|schedule| {
                for (step, expected) in case["lr"].as_array().unwrap().iter().enumerate() {
                    let difference =
                        (LEARNING_RATE * schedule.factor(step) - expected.as_f64().unwrap()).abs();
                    within(&format!("step {step}"), difference / LEARNING_RATE, 1e-9)?;
                }
                Ok(Outcome::Ran)
            });
        report.case(name, outcome);
    }
    report.finish();
}
