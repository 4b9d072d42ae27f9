//! The table of `docs/schedulers.md`: how far each sampler ends from the data, by the number of steps.
//!
//! The test makes the table and compares it with the one in the file. `LANGEVIN_WRITE_DOCS=1` writes it there.

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/sampled.rs"]
mod sampled;
mod support;

use std::{env, fs, path::Path};

use langevin::schedulers::{AnyScheduler, SamplerName, Scheduler};
use oracle::{Data, Level, ranks, root_mean_square};
use sampled::Sampled;
use serde_json::json;
use support::values;

const BEGIN: &str = "<!-- made by crates/langevin/tests/scheduler_table.rs -->";
const END: &str = "<!-- end -->";
const STEPS: [usize; 4] = [5, 10, 20, 50];
/// How many values are sampled, as a square.
const SIDE: usize = 64;

/// Samplers that do not go from noise to data without being told of a picture.
const NO_SAMPLERS: [&str; 3] = ["repaint", "ddim-inverse", "dpm++2m-inverse"];

/// The samplers of the table.
fn samplers() -> impl Iterator<Item = &'static SamplerName> {
    SamplerName::ALL
        .iter()
        .filter(|sampler| !NO_SAMPLERS.contains(&sampler.name))
}

/// The sampler for a model that belongs to its class: one of DDPM's schedule, steps spread from its noisy end, where the class
/// samples such models, or else one of the class's own defaults. Nothing is clipped, as the data are not pictures.
fn scheduler(sampler: &SamplerName) -> AnyScheduler {
    let settings = json!({ "clip_sample": false, "clip_denoised": false, "timestep_spacing": "trailing" });
    let model = sampled::scheduler("ddpm", &settings);
    model
        .for_model(sampler.name)
        .unwrap_or_else(|_| sampled::scheduler(sampler.class_name, &settings))
}

/// How far the distribution of the samples is from the data's: the root of the mean of the squared differences between
/// values of the same rank, which is their 2-Wasserstein distance.
fn distance(sampler: &SamplerName, steps: usize) -> f64 {
    let data = Data::mixture();
    let mut sampled = Sampled::new(scheduler(sampler), steps, &data);
    let samples = if sampler.is_stochastic {
        sampled.draw([1, 1, SIDE, SIDE])
    } else {
        let start = sampled.beginning(&ranks(SIDE));
        let calls = sampled.calls();
        sampled.run(start, calls)
    };
    let mut samples = values(samples);
    samples.sort_by(f32::total_cmp);
    let n = samples.len() as f64;
    let exact = |i: usize| data.quantile((i as f64 + 0.5) / n, Level::CLEAN);
    root_mean_square(
        samples
            .into_iter()
            .enumerate()
            .map(|(i, x)| f64::from(x) - exact(i)),
    )
}

fn table() -> String {
    let mut table = String::from("| name | order | calls a step | ");
    table.extend(STEPS.map(|steps| format!("{steps} | ")));
    table.push_str("what it is |\n| --- | --- | --- | ");
    table.extend(STEPS.map(|_| "--- | "));
    table.push_str("--- |\n");
    for sampler in samplers() {
        let calls = Sampled::new(scheduler(sampler), 20, &Data::mixture()).calls();
        let calls = if calls > 35 { 2 } else { 1 };
        table.push_str(&format!("| `{}` | {} | {calls} | ", sampler.name, sampler.order));
        let most = scheduler(sampler).num_train_timesteps();
        table.extend(STEPS.map(|steps| match steps <= most {
            true => format!("{:.3} | ", distance(sampler, steps)),
            false => "- | ".to_owned(),
        }));
        table.push_str(&format!("{} |\n", sampler.about));
    }
    table
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schedulers.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let table = table();
    if env::var_os("LANGEVIN_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}\n{table}{END}{after}")).unwrap();
        return;
    }
    let cells =
        |table: &str| -> Vec<String> { table.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let (made, written) = (cells(&table), cells(written.trim()));
    assert_eq!(made.len(), written.len(), "the table is:\n{table}");
    for (made, written) in made.iter().zip(&written) {
        let same = match (made.parse::<f64>(), written.parse::<f64>()) {
            // Another machine may round otherwise.
            (Ok(made), Ok(written)) => (made - written).abs() <= 0.002 + 0.02 * written.abs(),
            _ => made == written,
        };
        assert!(same, "{written} is {made} now; the table is:\n{table}");
    }
}
