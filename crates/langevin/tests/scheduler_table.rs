//! The table of `docs/schedulers.md`: how far each sampler ends from the data, by the number of steps.
//!
//! The test makes the table and compares it with the one in the file. `LANGEVIN_WRITE_DOCS=1` writes it there.

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/sampled.rs"]
mod sampled;
mod support;

use std::{env, fs, path::Path};

use langevin::schedulers::AnyScheduler;
use oracle::{Data, Level, ranks, root_mean_square};
use sampled::Sampled;
use serde_json::{Value, json};
use support::values;

const BEGIN: &str = "<!-- made by crates/langevin/tests/scheduler_table.rs -->";
const END: &str = "<!-- end -->";
const STEPS: [usize; 4] = [5, 10, 20, 50];
/// How many values are sampled, as a square.
const SIDE: usize = 64;

/// Samplers that do not go from noise to data.
const NOT_SAMPLERS: [&str; 0] = [];

/// One sampler: its short name, what its config has besides the defaults, its order, and what it is for.
struct Row {
    name: &'static str,
    config: Value,
    order: &'static str,
    advice: &'static str,
}

fn rows() -> Vec<Row> {
    let row = |name, config, order, advice| Row {
        name,
        config,
        order,
        advice,
    };
    let free = json!({ "clip_sample": false, "timestep_spacing": "trailing" });
    let trailing = json!({ "timestep_spacing": "trailing" });
    vec![
        row(
            "ddpm",
            free.clone(),
            "noise",
            "the training objective's own sampler, with hundreds of steps",
        ),
        row(
            "ddim",
            free,
            "1",
            "a deterministic baseline; editing and inversion",
        ),
        row(
            "pndm",
            json!({ "timestep_spacing": "trailing", "skip_prk_steps": true }),
            "2",
            "old Stable Diffusion configs",
        ),
        row(
            "lms",
            trailing.clone(),
            "up to 4",
            "smooth models at 20 steps and more",
        ),
        row(
            "euler",
            trailing.clone(),
            "1",
            "a deterministic baseline in σ; churn",
        ),
        row("euler-a", trailing.clone(), "noise", "variety at 20 to 50 steps"),
        row(
            "heun",
            trailing.clone(),
            "2",
            "exactness, where two calls a step are affordable",
        ),
        row("dpm2", trailing.clone(), "2", "as heun"),
        row(
            "dpm2-a",
            trailing.clone(),
            "noise",
            "as euler-a, with two calls a step",
        ),
        row("dpm-sde", trailing, "noise", "one noise for any number of steps"),
        row(
            "ipndm",
            json!({}),
            "up to 4",
            "models of a continuous time, as Dance Diffusion",
        ),
        row("edm-euler", json!({}), "1", "EDM models"),
        row(
            "flow-euler",
            json!({}),
            "1",
            "flow-matching models, as Stable Diffusion 3 and Flux",
        ),
        row("flow-heun", json!({}), "2", "the same, with two calls a step"),
        row(
            "cm",
            json!({ "clip_denoised": false }),
            "noise",
            "consistency models, in 1 to 4 steps",
        ),
        row(
            "sde-ve",
            json!({}),
            "noise",
            "score models, with a thousand steps",
        ),
    ]
}

/// How far the distribution of the samples is from the data's: the root of the mean of the squared differences between
/// values of the same rank, which is their 2-Wasserstein distance.
fn distance(row: &Row, steps: usize) -> f64 {
    let data = Data::mixture();
    let mut sampled = Sampled::new(row.name, &row.config, steps, &data);
    let samples = if row.order == "noise" {
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
    let mut table = String::from("| name | class | order | calls a step | ");
    table.extend(STEPS.map(|steps| format!("{steps} | ")));
    table.push_str("for |\n| --- | --- | --- | --- | ");
    table.extend(STEPS.map(|_| "--- | "));
    table.push_str("--- |\n");
    for row in rows() {
        let class = AnyScheduler::NAMES
            .iter()
            .find(|(name, _)| *name == row.name)
            .unwrap()
            .1;
        let calls = Sampled::new(row.name, &row.config, 20, &Data::mixture()).calls();
        let calls = if calls > 30 { 2 } else { 1 };
        let class = class.trim_end_matches("Scheduler");
        table.push_str(&format!(
            "| `{}` | {class} | {} | {calls} | ",
            row.name, row.order
        ));
        table.extend(STEPS.map(|steps| format!("{:.3} | ", distance(&row, steps))));
        table.push_str(&format!("{} |\n", row.advice));
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

#[test]
fn every_sampler_has_a_row() {
    let rows = rows();
    let missing: Vec<_> = AnyScheduler::NAMES
        .iter()
        .filter(|(name, _)| !NOT_SAMPLERS.contains(name) && !rows.iter().any(|row| row.name == *name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
