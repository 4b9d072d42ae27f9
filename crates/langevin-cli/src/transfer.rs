//! Files that come from the Hub or go there: a bar where somebody watches, a line now and then where nobody does.

use std::{
    io::{IsTerminal, stderr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal;

/// How often a line is written where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of a transfer.
pub(crate) struct Transfer {
    verb: &'static str,
    running: Mutex<Option<Running>>,
}

struct Running {
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    last_line: Instant,
}

impl Transfer {
    /// Files that come.
    pub(crate) fn pulling() -> Self {
        Self {
            verb: "pulling",
            running: Mutex::default(),
        }
    }

    /// Files that go.
    pub(crate) fn pushing() -> Self {
        Self {
            verb: "pushing",
            running: Mutex::default(),
        }
    }

    /// A panic in one thread leaves numbers that are as good as before.
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl langevin_hub::Progress for Transfer {
    fn begin(&self, what: &str, files: usize, bytes: u64) {
        let files = match files {
            1 => "1 file".to_string(),
            count => format!("{count} files"),
        };
        terminal::say(&format!(
            "{} {files} of {what}, {}",
            self.verb,
            terminal::bytes(bytes)
        ));
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
            // The template is a constant; if it did not parse, the plain style would do.
            let style = ProgressStyle::with_template(
                "{prefix} {bar:24} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━━─"));
            bar.set_prefix(self.verb);
            bar
        });
        *self.lock() = Some(Running {
            bar,
            done: 0,
            total: bytes,
            last_line: Instant::now(),
        });
    }

    fn advance(&self, bytes: u64) {
        let mut running = self.lock();
        let Some(running) = running.as_mut() else { return };
        running.done += bytes;
        match &running.bar {
            Some(bar) => bar.set_position(running.done),
            None if running.last_line.elapsed() >= LINE_EVERY => {
                running.last_line = Instant::now();
                let [done, total] = [running.done, running.total].map(terminal::bytes);
                terminal::say(&format!("{} {done} of {total}", self.verb));
            }
            None => {}
        }
    }

    fn back(&self, bytes: u64) {
        if let Some(running) = self.lock().as_mut() {
            running.done = running.done.saturating_sub(bytes);
            if let Some(bar) = &running.bar {
                bar.set_position(running.done);
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = self.lock().take().and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        match self.lock().as_ref().and_then(|running| running.bar.as_ref()) {
            Some(bar) => bar.suspend(|| terminal::note(text)),
            None => terminal::note(text),
        }
    }
}
