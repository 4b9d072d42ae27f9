//! `langevin man`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};

use crate::{cli::Cli, terminal};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Write the manual pages, one for the program and one for each command.

`langevin man ~/.local/share/man/man1` puts them where `man langevin` and `man langevin-sample` look.";

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder to write them into
    pub folder: PathBuf,
}

/// Writes the pages.
pub(crate) fn run(args: ManArgs) -> Result<()> {
    let folder = &args.folder;
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("{}: the pages cannot be written", folder.display()))?;
    terminal::say(&format!("wrote the pages into {}", folder.display()));
    Ok(())
}
