//! The line that starts processes, in the words of the MPI that is there.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, available_parallelism},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

use super::LaunchArgs;
use crate::{stop::is_ignored, terminal};

/// The command in processes of an mpirun, again where they fail, as often as it is allowed; `false` where there is no mpirun.
///
/// # Errors
/// If they cannot be started, or fail.
pub(super) fn start(args: &LaunchArgs) -> Result<bool> {
    let Some(mpirun) = Mpirun::find(&args.mpirun) else {
        return Ok(false);
    };
    let mut command = args.command.clone();
    let trains = command[0] == "train";
    let mut caught = vec![SIGINT, SIGTERM, SIGUSR1];
    // As `nohup` has it, the terminal's loss may be no reason to end.
    if is_ignored(SIGHUP) == Some(false) {
        caught.push(SIGHUP);
    }
    let mut signals = Signals::new(caught).context("signals cannot be caught")?;
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
            let kept = match trains {
                true => {
                    "; what was learned up to the last checkpoint is kept, and --resume-from-checkpoint latest goes on from it"
                }
                false => "",
            };
            bail!("the processes ended with {status}{kept}");
        }
        left -= 1;
        let from = if trains { " from the latest checkpoint" } else { "" };
        terminal::note(&format!(
            "the processes ended with {status}: starting again{from}, {left} more times if need be"
        ));
        if trains {
            // Of a flag that is given twice, the last holds.
            command.extend(["--resume-from-checkpoint", "latest"].map(OsString::from));
        }
    }
}

/// Waits for them. The first Ctrl-C, or what else asks for an end, is passed on as the signal that asks them to write a checkpoint and end, which an
/// mpirun passes on as well and does not take for its own end; a second one ends them. SIGUSR1 is that signal, however often it comes: Slurm may
/// send it to a script and to all that the script started.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<(ExitStatus, bool)> {
    let mut asked = 0;
    loop {
        if let Some(status) = child.try_wait().context("the processes cannot be waited for")? {
            return Ok((status, asked > 0));
        }
        for sent in signals.pending() {
            let again = asked > 0 && sent != SIGUSR1;
            asked += 1;
            signal(child, if again { "TERM" } else { "USR1" });
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

/// Variables that name Open MPI a file of machines, as Kubernetes' MPI operator sets them.
const HOSTFILES: [&str; 2] = ["OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile"];

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

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
        match &args.hostfile {
            Some(file) if self.is_open_mpi => _ = command.arg("--hostfile").arg(file),
            Some(file) => _ = command.arg("-hosts").arg(hosts(file)?),
            None => {}
        }
        if let Some(hosts) = &args.host {
            command
                .arg(if self.is_open_mpi { "--host" } else { "-hosts" })
                .arg(hosts);
        }
        if self.is_open_mpi {
            // Each process takes its part of the cores itself.
            command.args(["--bind-to", "none"]);
            let is_here =
                args.hostfile.is_none() && args.host.is_none() && !HOSTFILES.iter().any(|name| is_set(name));
            if is_here && count > available_parallelism().map_or(1, usize::from) {
                command.arg("--oversubscribe");
            }
            if !is_here {
                // Other machines have an environment of their own.
                let set = PASSED_ON.into_iter().filter(|name| is_set(name));
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

/// The machines of a file of lines `NAME slots=N`, or `NAME:N`, as MPICH's launcher takes them.
///
/// # Errors
/// If it cannot be read, or names none.
fn hosts(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("--hostfile {}", file.display()))?;
    let host = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?.to_string();
        let slots = words.find_map(|word| word.strip_prefix("slots="));
        Some(slots.map_or_else(|| name.clone(), |slots| format!("{name}:{slots}")))
    };
    let hosts: Vec<String> = text.lines().filter_map(host).collect();
    if hosts.is_empty() {
        bail!("--hostfile {}: names no machine", file.display());
    }
    Ok(hosts.join(","))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_as_each_launcher_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        fs::write(&file, "# ours\nnode1 slots=2\n\nnode2:4\n node3 # slots=9\n").unwrap();
        assert_eq!(hosts(&file).unwrap(), "node1:2,node2:4,node3");
        fs::write(&file, "# none\n").unwrap();
        assert!(hosts(&file).unwrap_err().to_string().contains("no machine"));
    }
}
