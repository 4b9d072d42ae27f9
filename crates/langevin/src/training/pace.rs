//! How fast a run goes.

use std::{collections::VecDeque, time::Instant};

/// How many steps the pace is measured over.
const WINDOW: usize = 20;

/// The pace of the last steps.
#[derive(Debug)]
pub(super) struct Pace {
    /// When each of the last steps ended, and how many pictures were done then.
    marks: VecDeque<(Instant, usize)>,
    pictures: usize,
}

impl Pace {
    /// Starts the clock.
    pub(super) fn start() -> Self {
        Self {
            marks: VecDeque::from([(Instant::now(), 0)]),
            pictures: 0,
        }
    }

    /// A step of so many pictures has ended. Returns pictures and steps a second.
    pub(super) fn step(&mut self, pictures: usize) -> (f64, f64) {
        self.pictures += pictures;
        self.marks.push_back((Instant::now(), self.pictures));
        if self.marks.len() > WINDOW + 1 {
            self.marks.pop_front();
        }
        let ((first, before), (last, after)) = (self.marks[0], self.marks[self.marks.len() - 1]);
        let seconds = (last - first).as_secs_f64().max(1e-9);
        (
            (after - before) as f64 / seconds,
            (self.marks.len() - 1) as f64 / seconds,
        )
    }

    /// Leaves out what happened since the last step: samples were drawn, files written.
    pub(super) fn pause(&mut self) {
        self.marks = VecDeque::from([(Instant::now(), self.pictures)]);
    }
}
