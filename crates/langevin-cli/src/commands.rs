//! One module a command: what its user typed, what that means, and the library call that does it.

pub mod convert;
pub mod evaluate;
pub mod info;
pub mod plot_schedule;
pub mod plot_weighting;
pub mod sample;
pub mod schedulers;
pub mod train;

use langevin::{data::Picture, grid};

use crate::cli::{Cli, Command};

/// Runs the command.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Train(args) => train::run(*args),
        Command::Sample(args) => sample::run(args),
        Command::Info(args) => info::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Schedulers => schedulers::run(),
        Command::PlotSchedule(args) => plot_schedule::run(args),
        Command::PlotWeighting(args) => plot_weighting::run(args),
    }
}

/// Pictures as one, large enough to be seen.
fn side_by_side(pictures: &[Picture], columns: usize) -> langevin::Result<Picture> {
    // As far apart as torchvision's `make_grid` sets them.
    let padding = 2;
    grid::grid(
        pictures,
        columns,
        padding,
        pictures.first().map_or(1, grid::visible_scale),
    )
}
