//! `langevin completions`.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Print what makes a shell complete the words of a command.

bash:        langevin completions bash > ~/.local/share/bash-completion/completions/langevin
zsh:         langevin completions zsh > a file named _langevin in a folder of $fpath
fish:        langevin completions fish > ~/.config/fish/completions/langevin.fish
PowerShell:  langevin completions powershell >> $PROFILE";

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Prints the shell's file.
pub(crate) fn run(args: CompletionsArgs) -> Result<()> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "langevin", &mut bytes);
    // The file is the program's own: its tabs are meant.
    Ok(io::stdout().write_all(&bytes)?)
}
