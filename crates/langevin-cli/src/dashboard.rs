//! A training run on the whole terminal: the curve of its loss, its pace, its last samples.

mod draw;
mod pictures;
mod screen;

use std::{
    io::{IsTerminal, stderr, stdout},
    time::{Duration, Instant},
};

use langevin::training::{Drawn, Progress, RunInfo};
use ratatui::crossterm::terminal;

use self::{draw::View, pictures::Colours, screen::Screen};
use crate::stop::Stop;

/// The smallest terminal that it is worth taking.
const SMALLEST: (u16, u16) = (60, 18);
/// The shortest time between two pictures of the state.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// The dashboard while a run goes on. Dropped, it gives the terminal back.
pub(crate) struct Dashboard {
    screen: Screen,
    view: View,
    drawn: Option<Instant>,
}

impl Dashboard {
    /// Whether somebody watches a terminal that is large enough.
    pub(crate) fn fits() -> bool {
        let large = || terminal::size().is_ok_and(|(w, h)| w >= SMALLEST.0 && h >= SMALLEST.1);
        let clever = std::env::var("TERM").is_ok_and(|term| term != "dumb") || cfg!(windows);
        stdout().is_terminal() && stderr().is_terminal() && clever && large()
    }

    /// Takes the terminal until the run ends, or its end is asked for: by `stop`, by Ctrl-C or by `q`.
    ///
    /// # Errors
    /// If the terminal does not do as it is told.
    pub(crate) fn open(info: &RunInfo, stop: Stop) -> std::io::Result<Self> {
        let mut dashboard = Self {
            screen: Screen::open(stop)?,
            view: View::new(info, Colours::of_terminal()),
            drawn: None,
        };
        dashboard.redraw();
        Ok(dashboard)
    }

    /// Shows a step, unless another was shown a moment ago.
    pub(crate) fn step(&mut self, progress: &Progress) {
        self.view.step(progress);
        if self.drawn.is_none_or(|last| last.elapsed() >= REDRAW_EVERY) || progress.step == progress.steps {
            self.redraw();
        }
    }

    /// Shows samples.
    pub(crate) fn samples(&mut self, step: usize, drawn: &Drawn) {
        self.view.samples(step, drawn.pictures.clone());
        self.redraw();
    }

    /// Shows what was said since.
    pub(crate) fn redraw(&mut self) {
        self.drawn = Some(Instant::now());
        self.screen.draw(|frame| self.view.draw(frame));
    }
}
