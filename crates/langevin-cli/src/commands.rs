//! One module a command: what its user typed, what that means, and the library call that does it.

pub mod evaluate;
pub mod info;
pub mod sample;
pub mod train;

use crate::cli::{Cli, Command};

/// Runs the command.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Train(args) => train::run(*args),
        Command::Sample(args) => sample::run(args),
        Command::Info(args) => info::run(args),
        Command::Evaluate(args) => evaluate::run(args),
    }
}
