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
mod progress;
mod stop;
mod terminal;
mod threads;
#[cfg(test)]
mod told;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    terminal::show_warnings();
    terminal::keep_contained_panics_quiet();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // `langevin info … | head` has read enough.
        Err(error) if terminal::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let launched = launch::unwrap(std::env::args_os().collect())?;
    for note in &launched.notes {
        terminal::note(note);
    }
    threads::bound()?;
    commands::run(cli::Cli::parse_from(flags::to_kebab_case(launched.args)))
}
