//! The line that starts processes, in the words of the MPI that is there.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread::available_parallelism,
};

use anyhow::{Context, Result};

/// An mpirun.
pub(super) struct Mpirun {
    program: OsString,
    is_open_mpi: bool,
}

impl Mpirun {
    /// The program of this name, if there is one.
    pub(super) fn find(program: &OsStr) -> Option<Self> {
        let output = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let words = ["Open MPI", "OpenRTE", "PRRTE"];
        Some(Self {
            program: program.into(),
            is_open_mpi: words.iter().any(|word| said.contains(word)),
        })
    }

    /// What starts this program so many times with these words. It is a process group of its own, so that a Ctrl-C at the terminal is not its.
    ///
    /// # Errors
    /// If the program's own path is not known.
    pub(super) fn line(
        &self,
        count: usize,
        hostfile: Option<&Path>,
        hosts: Option<&str>,
        words: &[OsString],
    ) -> Result<Command> {
        let own = std::env::current_exe().context("the program's own path")?;
        let mut command = Command::new(&self.program);
        command
            .process_group(0)
            .stdin(Stdio::null())
            .args(["-n", &count.to_string()]);
        if let Some(file) = hostfile {
            command
                .arg(if self.is_open_mpi { "--hostfile" } else { "-f" })
                .arg(file);
        }
        if let Some(hosts) = hosts {
            command
                .arg(if self.is_open_mpi { "--host" } else { "-hosts" })
                .arg(hosts);
        }
        if self.is_open_mpi {
            // Each process takes its part of the cores itself.
            command.args(["--bind-to", "none"]);
            let is_here = hostfile.is_none() && hosts.is_none();
            if is_here && count > available_parallelism().map_or(1, usize::from) {
                command.arg("--oversubscribe");
            }
            if is_root() {
                command.arg("--allow-run-as-root");
            }
        } else {
            command.args(["-bind-to", "none"]);
        }
        command.arg(own).args(words);
        Ok(command)
    }
}

/// Whether the user is root, whom Open MPI refuses where nobody says otherwise.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Sends a signal to an mpirun.
pub(super) fn signal(child: &Child, name: &str) {
    // Where it cannot be sent, the process is gone.
    let _ = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
}
