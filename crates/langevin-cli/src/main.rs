//! The `langevin` command: train diffusion models and draw pictures from them.

// Documentation comments are the help texts here, and brackets in them hold defaults.
#![allow(rustdoc::broken_intra_doc_links)]

mod cli;
mod commands;
mod dashboard;
mod flags;
mod hub;
mod launch;
mod loading;
mod processes;
mod progress;
mod stop;
mod terminal;
mod threads;
#[cfg(test)]
mod told;
mod transfer;

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use clap::Parser;

use self::processes::Processes;

fn main() -> ExitCode {
    terminal::show_warnings();
    terminal::keep_contained_panics_quiet();
    let mut processes = Processes::alone();
    // A panic must not wait for others, who wait for this process.
    let Ok(ended) = panic::catch_unwind(AssertUnwindSafe(|| run(&mut processes))) else {
        std::process::exit(101)
    };
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        // `langevin info … | head` has read enough.
        Err(error) if terminal::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if !processes.leaves_unsaid(&error) {
                terminal::report(&processes.named(error));
            }
            ExitCode::FAILURE
        }
    };
    processes.leave(code != ExitCode::SUCCESS);
    code
}

fn run(processes: &mut Processes) -> anyhow::Result<()> {
    let launched = launch::unwrap(std::env::args_os().collect())?;
    for note in &launched.notes {
        terminal::note(note);
    }
    commands::run(
        cli::Cli::parse_from(flags::to_kebab_case(launched.args)),
        processes,
    )
}
