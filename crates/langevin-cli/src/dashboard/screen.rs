//! The terminal while the dashboard has it: taken, drawn on, and given back whatever happens.

use std::{
    io::{self, Stdout, stdout},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use crate::{stop::Stop, terminal};

/// How often the keys and the request to stop are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Held = Arc<Mutex<Option<Terminal<CrosstermBackend<Stdout>>>>>;

/// The terminal's second screen, in raw mode. Dropped, it is given back.
pub(super) struct Screen(Held);

impl Screen {
    /// Takes the terminal. What the program says from here on is held back until it is given back.
    ///
    /// Once the end of the run is asked for, the terminal is given back at once, from a thread of its own: a second
    /// Ctrl-C is then the terminal's own signal again, and ends the program however busy it is.
    pub(super) fn open(stop: Stop) -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        enable_raw_mode()?;
        let screen = Self(Arc::new(Mutex::new(Some(terminal))));
        execute!(stdout(), EnterAlternateScreen)?;
        terminal::hold();
        if let Some(terminal) = lock(&screen.0).as_mut() {
            terminal.clear()?;
        }
        let held = screen.0.clone();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !langevin::data::panics_are_contained() {
                give_back(&held);
            }
            usual(info);
        }));
        let held = screen.0.clone();
        thread::spawn(move || watch_keys(&held, &stop));
        Ok(screen)
    }

    /// Draws, if the terminal was not given back yet. One that does not do as it is told is given back.
    pub(super) fn draw(&self, draw: impl FnOnce(&mut Frame)) {
        let failed = lock(&self.0)
            .as_mut()
            .is_some_and(|terminal| terminal.draw(draw).is_err());
        if failed {
            give_back(&self.0);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&self.0);
    }
}

/// Until the terminal is given back, which it is when the run is to end.
fn watch_keys(held: &Held, stop: &Stop) {
    while lock(held).is_some() {
        if event::poll(LOOK_EVERY).unwrap_or(false)
            && let Ok(Event::Key(key)) = event::read()
            && asks_to_stop(key)
        {
            stop.request();
        }
        if stop.requested() {
            give_back(held);
            terminal::say("writing a checkpoint and ending the run; Ctrl-C again ends it at once");
        }
    }
}

fn asks_to_stop(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (control_c || key.code == KeyCode::Char('q'))
}

/// Leaves the terminal as it was found, once, and then says what was held back. There is nobody to tell of a failure.
fn give_back(held: &Held) {
    if lock(held).take().is_some() {
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        terminal::release();
    }
}

/// A thread that panicked while it drew left nothing half done that would matter here.
fn lock(held: &Held) -> MutexGuard<'_, Option<Terminal<CrosstermBackend<Stdout>>>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
