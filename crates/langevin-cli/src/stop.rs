//! Ctrl-C: once to end cleanly, twice to end at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Whether the user asked the program to end.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on, the first Ctrl-C, termination signal or loss of the terminal is a request that [`Stop::requested`] answers; a second
    /// one ends the program at once. Where the terminal's loss is ignored, as `nohup` has it, it stays so.
    ///
    /// # Errors
    /// If the system does not let signals be caught.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut signals = vec![(SIGINT, 130), (SIGTERM, 143)];
        #[cfg(unix)]
        if is_ignored(SIGHUP) == Some(false) {
            signals.push((SIGHUP, 129));
        }
        for (signal, exit_code) in signals {
            // In this order: the shutdown looks at the flag before this signal raises it.
            flag::register_conditional_shutdown(signal, exit_code, stop.clone())?;
            flag::register(signal, stop.clone())?;
        }
        Ok(Self(stop))
    }

    /// From now on SIGUSR1 is such a request too: it is what launchers pass on, and what Slurm sends some time before a job's end where it is
    /// asked to.
    ///
    /// # Errors
    /// If the system does not let it be caught.
    #[cfg(unix)]
    pub(crate) fn on_user_signal(&self) -> io::Result<()> {
        flag::register(SIGUSR1, self.0.clone()).map(|_| ())
    }

    /// Asks for the end, as a first Ctrl-C does.
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to end.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether this process was started with a signal ignored; `None` where the system does not say, as only Linux does without `unsafe`
/// code: there a signal is left as it is.
#[cfg(unix)]
pub(crate) fn is_ignored(signal: i32) -> Option<bool> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}
