//! Where orders wait for the thread that draws.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{events::Event, order::Order, refusal::Refusal};

/// An order with whoever waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub order: Order,
    /// Whether frames are kept for an animation.
    pub animated: bool,
    /// Where its news goes. Closed once whoever asked has gone away.
    pub events: mpsc::Sender<Event>,
    pub since: Instant,
}

/// Orders that wait, first come, first drawn.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Orders and pictures that are being drawn.
    running: [usize; 2],
    /// How long an order takes of late, in seconds.
    pace: f64,
    closing: bool,
}

/// What `GET /api/queue` says.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct QueueStatus {
    pub waiting: usize,
    pub limit: usize,
    pub running: usize,
    pub running_pictures: usize,
    pub draining: bool,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            limit,
        }
    }

    /// Puts an order at the end, and says how many are before it.
    ///
    /// # Errors
    /// If the queue is full, or the server is about to end.
    pub fn submit(&self, job: Job) -> Result<usize, Refusal> {
        let mut state = self.lock();
        if state.closing {
            let message = "the server is about to end and takes no more requests";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(10));
        }
        state.forget_the_gone();
        let waiting = state.waiting.len();
        if waiting >= self.limit {
            let seconds = (state.pace * waiting as f64).ceil().clamp(1.0, 120.0);
            let message = format!(
                "{waiting} requests are waiting, as many as this server lets wait: try again in {seconds} seconds"
            );
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(seconds as u64));
        }
        let before = waiting + state.running[0];
        state.waiting.push_back(job);
        self.changed.notify_all();
        Ok(before)
    }

    /// The next order that somebody still waits for, if there is one.
    pub fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.forget_the_gone();
        state.waiting.pop_front()
    }

    /// Waits until there is an order; `false` once there will be no more.
    pub fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            state.forget_the_gone();
            if !state.waiting.is_empty() {
                return true;
            }
            if state.closing {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more orders; those that wait are still drawn.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Says how many orders and pictures are being drawn.
    pub fn set_running(&self, orders: usize, pictures: usize) {
        self.lock().running = [orders, pictures];
    }

    /// Says that an order was drawn in so many seconds.
    pub fn set_pace(&self, seconds: f64) {
        let mut state = self.lock();
        let old = if state.pace == 0.0 { seconds } else { state.pace };
        state.pace = 0.8 * old + 0.2 * seconds;
    }

    pub fn status(&self) -> QueueStatus {
        let mut state = self.lock();
        state.forget_the_gone();
        QueueStatus {
            waiting: state.waiting.len(),
            limit: self.limit,
            running: state.running[0],
            running_pictures: state.running[1],
            draining: state.closing,
        }
    }

    /// A panic while the lock was held left nothing half done: every change is one assignment or one push.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives up the places of those who no longer wait.
    fn forget_the_gone(&mut self) {
        self.waiting.retain(|job| !job.events.is_closed());
    }
}
