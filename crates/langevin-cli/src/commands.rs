//! One module a command: what its user typed, what that means, and the library call that does it.

pub mod convert;
pub mod edit;
pub mod evaluate;
pub mod info;
pub mod interpolate;
pub mod invert;
pub mod list;
pub mod plot;
pub mod plot_schedule;
pub mod plot_weighting;
pub mod pull;
pub mod push;
pub mod remove;
pub mod runs;
pub mod sample;
pub mod schedulers;
pub mod serve;
pub mod space;
pub mod train;
pub mod walk;

use std::path::Path;

use anyhow::bail;

use crate::cli::{Cli, Command};

/// Runs the command.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Train(args) => train::run(*args),
        Command::Sample(args) => sample::run(*args),
        Command::Info(args) => info::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Invert(args) => invert::run(args),
        Command::Edit(args) => edit::run(args),
        Command::Interpolate(args) => interpolate::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Schedulers => schedulers::run(),
        Command::Serve(args) => serve::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Push(args) => push::run(args),
        Command::List(args) => list::run(args),
        Command::Remove(args) => remove::run(args),
        Command::Space(args) => space::run(args),
        Command::Plot(args) => plot::run(args),
        Command::PlotSchedule(args) => plot_schedule::run(args),
        Command::PlotWeighting(args) => plot_weighting::run(args),
    }
}

/// Refuses a file that a flag names and that is not called a PNG.
fn check_png(flag: &str, output: &Path) -> anyhow::Result<()> {
    let is_png = |extension: &std::ffi::OsStr| extension.eq_ignore_ascii_case("png");
    if !output.extension().is_some_and(is_png) {
        bail!("{flag} {}: the name must end in .png", output.display());
    }
    Ok(())
}
