//! `langevin schedulers`.

use anyhow::Result;
use langevin::schedulers::SamplerName;

use crate::terminal;

/// Prints the samplers as a table.
pub(crate) fn run() -> Result<()> {
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
