//! Where orders wait for the thread that draws.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::sync::mpsc;

use crate::{
    events::Event,
    metrics::{Metrics, QueueStatus, add},
    order::Order,
    refusal::Refusal,
};

/// The longest time after which somebody is asked to come again.
const LONGEST_WAIT: f64 = 120.0;

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
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Orders and pictures that are being drawn.
    running: [usize; 2],
    /// Seconds from one order's end to the next one's, of late.
    pace: f64,
    /// When an order ended last.
    ended: Option<Instant>,
    /// When the order that is nearest to its end will be there, as far as is known.
    next_end: Option<Instant>,
    closing: bool,
}

impl State {
    /// How long it will be until the first of those that wait has its turn: until the next order ends, and as long as one takes where
    /// nobody can say when that is.
    fn seconds_until_room(&self) -> f64 {
        let left = self
            .next_end
            .map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(self.pace, |left| left.as_secs_f64())
    }
}

impl Queue {
    /// A queue in which `limit` orders can wait; those that are given up are counted in `metrics`.
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            limit,
            metrics,
        }
    }

    /// Whether an order would be taken now.
    ///
    /// # Errors
    /// If the queue is full, or the server is about to end.
    pub(crate) fn has_room(&self) -> Result<(), Refusal> {
        self.room_in(&mut self.lock())
    }

    fn room_in(&self, state: &mut State) -> Result<(), Refusal> {
        if state.closing {
            let message = "the server is about to end and takes no more requests";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(10));
        }
        self.forget_the_gone(state);
        let waiting = state.waiting.len();
        if waiting < self.limit {
            return Ok(());
        }
        let seconds = state.seconds_until_room().ceil().clamp(1.0, LONGEST_WAIT);
        let message = format!(
            "{waiting} requests are waiting, as many as this server lets wait: try again in {seconds} seconds"
        );
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(seconds as u64))
    }

    /// Puts an order at the end, and says how many are before it.
    ///
    /// # Errors
    /// If the queue is full, or the server is about to end.
    pub(crate) fn submit(&self, job: Job) -> Result<usize, Refusal> {
        let mut state = self.lock();
        self.room_in(&mut state)?;
        let before = state.waiting.len() + state.running[0];
        state.waiting.push_back(job);
        self.changed.notify_all();
        Ok(before)
    }

    /// The next order that somebody still waits for, if there is one.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        self.forget_the_gone(&mut state);
        state.waiting.pop_front()
    }

    /// Waits until there is an order; `false` once there will be no more.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            self.forget_the_gone(&mut state);
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
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Says how many orders and pictures are being drawn, and in how many seconds the first of them will be, where that is known.
    pub(crate) fn set_running(&self, orders: usize, pictures: usize, seconds_left: Option<f64>) {
        let mut state = self.lock();
        state.running = [orders, pictures];
        let left = seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        state.next_end = left.and_then(|left| Instant::now().checked_add(left));
    }

    /// Says that an order is drawn, which was begun so long ago.
    pub(crate) fn set_drawn(&self, began: Instant) {
        let mut state = self.lock();
        // Several are drawn at once: what counts is how often one ends.
        let since = state.ended.map_or(began, |ended| ended.max(began));
        let seconds = since.elapsed().as_secs_f64();
        let old = if state.ended.is_none() {
            seconds
        } else {
            state.pace
        };
        state.pace = 0.8 * old + 0.2 * seconds;
        state.ended = Some(Instant::now());
    }

    pub(crate) fn status(&self) -> QueueStatus {
        let mut state = self.lock();
        self.forget_the_gone(&mut state);
        QueueStatus {
            waiting: state.waiting.len(),
            limit: self.limit,
            running: state.running[0],
            running_pictures: state.running[1],
            draining: state.closing,
        }
    }

    /// Gives up the places of those who no longer wait.
    fn forget_the_gone(&self, state: &mut State) {
        let before = state.waiting.len();
        state.waiting.retain(|job| !job.events.is_closed());
        add(&self.metrics.cancelled, before - state.waiting.len());
    }

    /// A panic while the lock was held left nothing half done: every change is one assignment or one push.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_sent_away_hears_when_the_next_order_ends() {
        let mut state = State::default();
        assert_eq!(state.seconds_until_room(), 0.0);
        let now = Instant::now();
        state.next_end = now.checked_add(Duration::from_secs(40));
        assert!((39.0..=40.0).contains(&state.seconds_until_room()));
        // It should have ended by now.
        state.next_end = Some(now);
        assert_eq!(state.seconds_until_room(), 0.0);
    }

    #[test]
    fn the_pace_is_that_of_ends_and_not_of_orders() {
        let queue = Queue::new(1, Arc::default());
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        // Ten that were drawn together for ten seconds make room ten times.
        for _ in 0..10 {
            queue.set_drawn(long_ago);
        }
        let pace = queue.lock().pace;
        assert!(pace > 0.5 && pace < 2.0, "{pace}");
    }
}
