//! `langevin schedulers`.

use anyhow::Result;
use clap::Args;
use langevin::schedulers::SamplerName;
use serde_json::{Value, json};

use crate::terminal;

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct SchedulersArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Prints the samplers as a table.
pub(crate) fn run(args: SchedulersArgs) -> Result<()> {
    if args.json {
        let samplers: Vec<Value> = SamplerName::ALL.iter().map(as_json).collect();
        return Ok(terminal::print_json(&samplers.into())?);
    }
    let width =
        |of: fn(&SamplerName) -> &str| SamplerName::ALL.iter().map(|s| of(s).len()).max().unwrap_or(0);
    let (names, classes) = (width(|s| s.name), width(|s| s.class_name));
    terminal::print_line(&format!(
        "{:names$}  {:classes$}  order  noise  what it is",
        "name", "class"
    ))?;
    for sampler in SamplerName::ALL {
        let noise = if sampler.is_stochastic { "yes" } else { "no" };
        let order = if sampler.order == "noise" {
            "-"
        } else {
            sampler.order
        };
        terminal::print_line(&format!(
            "{:names$}  {:classes$}  {order:5}  {noise:5}  {}",
            sampler.name, sampler.class_name, sampler.about
        ))?;
    }
    Ok(())
}

fn as_json(sampler: &SamplerName) -> Value {
    json!({
        "name": sampler.name,
        "class": sampler.class_name,
        "order": (sampler.order != "noise").then_some(sampler.order),
        "draws_noise": sampler.is_stochastic,
        "about": sampler.about,
    })
}
