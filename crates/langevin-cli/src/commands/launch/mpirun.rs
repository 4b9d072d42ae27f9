//! The line that starts processes, in the words of the MPI that is there.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, available_parallelism},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::LaunchArgs;
use crate::terminal;

/// The command in processes of an mpirun, again where they fail, as often as it is allowed; `false` where there is no mpirun.
///
/// # Errors
/// If they cannot be started, or fail.
pub(super) fn start(args: &LaunchArgs) -> Result<bool> {
    let Some(mpirun) = Mpirun::find(&args.mpirun) else {
        return Ok(false);
    };
    let mut command = args.command.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be caught")?;
    let mut left = args.max_restarts;
    loop {
        let mut child = mpirun
            .line(args, &command)?
            .spawn()
            .with_context(|| format!("{} cannot be started", args.mpirun.display()))?;
        let (status, stopped) = wait(&mut child, &mut signals)?;
        if status.success() {
            return Ok(true);
        }
        if stopped || left == 0 {
            bail!(
                "the processes ended with {status}; what was learned up to the last checkpoint is kept, and --resume-from-checkpoint latest \
                 goes on from it"
            );
        }
        left -= 1;
        terminal::note(&format!(
            "the processes ended with {status}: starting again from the latest checkpoint, {left} more times if need be"
        ));
        // Of a flag that is given twice, the last holds.
        command.extend(["--resume-from-checkpoint", "latest"].map(OsString::from));
    }
}

/// Waits for them. The first Ctrl-C is passed on as the signal that asks them to write a checkpoint and end, which an mpirun passes on as well
/// and does not take for its own end; a second one ends them.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<(ExitStatus, bool)> {
    let mut asked = 0;
    loop {
        if let Some(status) = child.try_wait().context("the processes cannot be waited for")? {
            return Ok((status, asked > 0));
        }
        for _ in signals.pending() {
            asked += 1;
            signal(child, if asked == 1 { "USR1" } else { "TERM" });
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Variables that change what processes do.
const PASSED_ON: [&str; 5] = [
    "RAYON_NUM_THREADS",
    "LANGEVIN_ISA",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
];

/// An mpirun.
struct Mpirun {
    program: OsString,
    is_open_mpi: bool,
}

impl Mpirun {
    /// The program of this name, if there is one.
    fn find(program: &OsStr) -> Option<Self> {
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
    fn line(&self, args: &LaunchArgs, words: &[OsString]) -> Result<Command> {
        let count = args.num_processes as usize;
        let own = std::env::current_exe().context("the program's own path")?;
        let mut command = Command::new(&self.program);
        command
            .process_group(0)
            .stdin(Stdio::null())
            .args(["-n", &count.to_string()]);
        if let Some(file) = &args.hostfile {
            command
                .arg(if self.is_open_mpi { "--hostfile" } else { "-f" })
                .arg(file);
        }
        if let Some(hosts) = &args.host {
            command
                .arg(if self.is_open_mpi { "--host" } else { "-hosts" })
                .arg(hosts);
        }
        if self.is_open_mpi {
            // Each process takes its part of the cores itself.
            command.args(["--bind-to", "none"]);
            let is_here = args.hostfile.is_none() && args.host.is_none();
            if is_here && count > available_parallelism().map_or(1, usize::from) {
                command.arg("--oversubscribe");
            }
            if !is_here {
                // Other machines have an environment of their own.
                let set = PASSED_ON
                    .into_iter()
                    .filter(|name| std::env::var_os(name).is_some());
                command.args(set.flat_map(|name| ["-x", name]));
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
fn signal(child: &Child, name: &str) {
    // Where it cannot be sent, the process is gone.
    let _ = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
}
