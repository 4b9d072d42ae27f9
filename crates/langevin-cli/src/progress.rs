//! Progress: a bar where somebody watches, a line now and then where the output goes to a file.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal;

/// How often a line is written where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of something that has a known number of steps.
pub(crate) struct Progress {
    shown: Shown,
    total: usize,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Progress {
    /// Progress over `total` steps, named by `what`, such as `training`.
    pub(crate) fn new(what: &str, total: usize) -> Self {
        let shown = if stderr().is_terminal() && !terminal::is_hushed() {
            let bar =
                ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr_with_hz(10));
            // The template is a constant; if it did not parse, the plain style would do.
            let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━━─"));
            bar.set_prefix(what.to_string());
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: None }
        };
        Self { shown, total }
    }

    /// Shows that `done` steps are done; `message` is asked for only when it will be seen.
    pub(crate) fn update(&mut self, done: usize, message: impl FnOnce() -> String) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(done as u64);
                bar.set_message(terminal::plain(&message()).into_owned());
            }
            Shown::Lines { last } => {
                let first = *last.get_or_insert_with(Instant::now);
                if done == self.total || first.elapsed() >= LINE_EVERY {
                    *last = Some(Instant::now());
                    terminal::say(&format!("{done}/{} {}", self.total, message()));
                }
            }
        }
    }

    /// Writes a line above the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| terminal::say(text)),
            Shown::Lines { .. } => terminal::say(text),
        }
    }

    /// Leaves the bar as it stands.
    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.abandon();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
