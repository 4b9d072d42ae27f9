//! Signal-to-noise ratios and the weights that follow from them against diffusers' `compute_snr` and its min-SNR loss: every
//! timestep in `snr.json`, on the default DDPM schedule.

mod support;

use langevin::{
    objectives::{DdpmObjective, LossWeighting, PredictionType, Weighting},
    schedulers::{DDPMConfig, DDPMScheduler},
};
use support::{Outcome, Report, read_json, reference, within};

/// Relative. PyTorch takes square roots in float32 and squares them again.
const TOLERANCE: f64 = 1e-5;

#[test]
fn every_timestep_has_the_same_weights() {
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap();
    let objective = |prediction, rule, gamma| {
        DdpmObjective::new(&scheduler, prediction, Weighting { rule, gamma }).unwrap()
    };
    let gamma = Some(5.0);
    let min_snr = LossWeighting::MinSnr;
    let plain = objective(PredictionType::Sample, LossWeighting::Snr, None);
    let epsilon = objective(PredictionType::Epsilon, min_snr, gamma);
    let velocity = objective(PredictionType::VPrediction, min_snr, gamma);

    let values = read_json(reference().join("snr.json"));
    let column = |name: &str| {
        values[name]
            .as_array()
            .unwrap_or_else(|| panic!("no {name}"))
            .clone()
    };
    let timesteps = column("timesteps");
    let mut report = Report::new();
    for (name, objective) in [
        ("snr", &plain),
        ("min_snr_gamma5_epsilon", &epsilon),
        ("min_snr_gamma5_v", &velocity),
    ] {
        for (t, expected) in timesteps.iter().zip(column(name)) {
            let t = t.as_u64().unwrap() as usize;
            let expected = expected.as_f64().unwrap();
            let found = objective.weight(t).unwrap().unwrap();
            let difference = (found - expected).abs() / expected;
            let outcome = within(
                &format!("{found} where {expected} was expected"),
                difference,
                TOLERANCE,
            );
            report.case(&format!("{name} at {t}"), outcome.map(|()| Outcome::Ran));
        }
    }
    report.finish();
}
