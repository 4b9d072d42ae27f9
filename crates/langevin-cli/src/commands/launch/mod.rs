//! `langevin launch`: starts a command as several processes, by mpirun.

#[cfg(unix)]
mod mpirun;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use anyhow::{Result, bail};
use clap::{Args, Parser};

#[cfg(unix)]
use self::mpirun::start;
use crate::{
    cli::Cli,
    commands, flags,
    processes::{Processes, launcher},
    terminal,
};

pub(crate) const LONG_ABOUT: &str = "\
Start a command as several processes.

`langevin launch --num-processes 4 train …` starts mpirun with four processes, which share every step of the run: the same bytes as in one, in less \
time. `sample` and `evaluate` share what is drawn so. Machines are named by --hostfile. Where langevin was built without MPI, or there is no mpirun, one process computes it all. \
docs/scale.md says what is needed, and what stands in a script for Slurm.";

/// The commands that several processes share.
const SHARED: [&str; 3] = ["train", "sample", "evaluate"];

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct LaunchArgs {
    /// How many processes, over all machines
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    num_processes: u32,
    /// The machines, a line `NAME slots=N` for each
    #[arg(long, value_name = "FILE", visible_alias = "mpirun-hostfile")]
    hostfile: Option<PathBuf>,
    /// The machines, as NAME:N with commas between them
    #[arg(long, value_name = "NAMES", conflicts_with = "hostfile")]
    host: Option<String>,
    /// Start again, from the latest checkpoint where there is one, so many times, where a process fails
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_restarts: u32,
    /// The program that starts them
    #[arg(long, value_name = "PROGRAM", default_value = "mpirun")]
    mpirun: OsString,
    /// The command with its flags: train, sample or evaluate
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

/// Starts them, and waits for them.
pub(crate) fn run(args: LaunchArgs, processes: &mut Processes) -> Result<()> {
    if !SHARED.iter().any(|shared| args.command[0] == *shared) {
        bail!(
            "train, sample and evaluate are what several processes share; `{}` is one process",
            args.command[0].display()
        );
    }
    let trains = args.command[0] == "train";
    if launcher::started().is_some() {
        // By mpirun already, as Accelerate's lines for processors are.
        return inside(args.command, processes);
    }
    let count = args.num_processes as usize;
    if trains && args.max_restarts > 0 && !has_flag(&args.command, "--output-dir") {
        bail!("--max-restarts needs the run's folder to find its latest checkpoint in: add --output-dir");
    }
    let why = if !cfg!(feature = "mpi") {
        "this langevin was built without MPI (`--features mpi`)".to_string()
    } else if start(&args)? {
        return Ok(());
    } else {
        format!("there is no {}", args.mpirun.display())
    };
    if args.hostfile.is_some() || args.host.is_some() {
        bail!("other machines cannot be reached: {why}");
    }
    terminal::note(&match trains {
        true => format!("{why}, so one process computes all {count} slots of a step: the same bytes, slower"),
        false => format!("{why}, so one process draws all of it: the same pictures, slower"),
    });
    processes.set_slots(count);
    inside(args.command, processes)
}

/// Starts nothing: no mpirun is known here.
#[cfg(not(unix))]
fn start(_: &LaunchArgs) -> Result<bool> {
    Ok(false)
}

/// The command in this process.
fn inside(command: Vec<OsString>, processes: &mut Processes) -> Result<()> {
    let line = std::iter::once("langevin".into()).chain(command).collect();
    commands::run(Cli::parse_from(flags::to_kebab_case(line)), processes)
}

/// Whether a flag is among words, with or without its value, in either spelling.
fn has_flag(words: &[OsString], name: &str) -> bool {
    words.iter().filter_map(|word| OsStr::to_str(word)).any(|word| {
        word.split('=')
            .next()
            .is_some_and(|given| given.replace('_', "-") == name)
    })
}
