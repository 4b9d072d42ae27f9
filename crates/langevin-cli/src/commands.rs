//! One module a command: what its user typed, what that means, and the library call that does it.

pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod edit;
pub(crate) mod evaluate;
pub(crate) mod info;
pub(crate) mod interpolate;
pub(crate) mod invert;
pub(crate) mod launch;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod plot;
pub(crate) mod plot_schedule;
pub(crate) mod plot_weighting;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod remove;
pub(crate) mod runs;
pub(crate) mod sample;
pub(crate) mod schedulers;
pub(crate) mod serve;
pub(crate) mod space;
pub(crate) mod train;
pub(crate) mod walk;

use std::path::Path;

use anyhow::bail;

use crate::{
    cli::{Cli, Command},
    processes::{Processes, refuse_several},
    threads,
};

/// Runs the command.
pub(crate) fn run(cli: Cli, processes: &mut Processes) -> anyhow::Result<()> {
    match cli.command {
        Command::Train(args) => {
            processes.join(true)?;
            train::run(*args, processes)
        }
        Command::Sample(args) => {
            processes.join(false)?;
            sample::run(*args, processes)
        }
        Command::Evaluate(args) => {
            processes.join(false)?;
            evaluate::run(args, processes)
        }
        Command::Launch(args) => launch::run(args, processes),
        other => {
            refuse_several(&std::env::args().nth(1).unwrap_or_default())?;
            threads::bound(1)?;
            alone(other)
        }
    }
}

/// A command that is one process.
fn alone(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Info(args) => info::run(args),
        Command::Invert(args) => invert::run(args),
        Command::Edit(args) => edit::run(args),
        Command::Interpolate(args) => interpolate::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Schedulers(args) => schedulers::run(args),
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
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        // Several processes share them.
        Command::Train(_) | Command::Sample(_) | Command::Evaluate(_) | Command::Launch(_) => Ok(()),
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
