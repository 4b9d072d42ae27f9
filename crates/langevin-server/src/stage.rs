//! The stages that a request goes through before it waits for the thread that draws. Each takes so many at once and lets so many wait, and
//! of neither may one caller have all: what takes long for one does not hold up another.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// How much of the time that a place is held for is known by the last ones who held one.
const NEWS: f64 = 0.2;
/// The longest time after which somebody is asked to come again.
const LONGEST_WAIT: f64 = 120.0;

/// How many may be at a stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Those of all callers that are worked on at once.
    pub(crate) at_once: usize,
    /// Those of one caller.
    pub(crate) at_once_of_one: usize,
    /// Those of all callers that are worked on or wait.
    pub(crate) there: usize,
}

/// A stage.
#[derive(Debug)]
pub(crate) struct Stage {
    /// What goes on there, for messages: `reading requests`.
    name: &'static str,
    room: Room,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    there: usize,
    callers: HashMap<IpAddr, Caller>,
    /// How long a place is held for of late, in seconds.
    pace: f64,
}

#[derive(Debug)]
struct Caller {
    there: usize,
    places: Arc<Semaphore>,
}

/// A place at a stage, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    since: Option<Instant>,
    places: [Option<OwnedSemaphorePermit>; 2],
    stage: Arc<Stage>,
    caller: IpAddr,
}

impl Stage {
    pub(crate) fn new(name: &'static str, room: Room) -> Arc<Self> {
        Arc::new(Self {
            name,
            room,
            places: Arc::new(Semaphore::new(room.at_once)),
            state: Mutex::default(),
        })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// 429, if as many wait as may, or half as many of this caller.
    pub(crate) async fn enter(self: &Arc<Self>, caller: IpAddr) -> Result<Pass, Refusal> {
        // From here on it is counted, and no longer once it is dropped, also in the middle of waiting.
        let (mut pass, own) = self.arrive(caller)?;
        // Neither semaphore is ever closed. One's own comes first, so that whoever waits for it keeps no place from others.
        pass.places[0] = own.acquire_owned().await.ok();
        pass.places[1] = self.places.clone().acquire_owned().await.ok();
        pass.since = Some(Instant::now());
        Ok(pass)
    }

    fn arrive(self: &Arc<Self>, caller: IpAddr) -> Result<(Pass, Arc<Semaphore>), Refusal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let own = state.callers.get(&caller).map_or(0, |caller| caller.there);
        if state.there >= self.room.there || own >= self.room.there.div_ceil(2) {
            let whose = if state.there >= self.room.there {
                ""
            } else {
                " of this address"
            };
            let waiting = if whose.is_empty() { state.there } else { own };
            let rounds = (waiting as f64 / self.room.at_once as f64).ceil();
            let seconds = (state.pace * rounds).ceil().clamp(1.0, LONGEST_WAIT);
            let message = format!(
                "{waiting} requests{whose} are at {}, as many as this server lets in: try again in {seconds} seconds",
                self.name
            );
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(seconds as u64));
        }
        state.there += 1;
        let one = state.callers.entry(caller).or_insert_with(|| Caller {
            there: 0,
            places: Arc::new(Semaphore::new(self.room.at_once_of_one)),
        });
        one.there += 1;
        let pass = Pass {
            since: None,
            places: [None, None],
            stage: self.clone(),
            caller,
        };
        Ok((pass, one.places.clone()))
    }

    fn leave(&self, caller: IpAddr, held: Option<Duration>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.there -= 1;
        if let Some(one) = state.callers.get_mut(&caller) {
            one.there -= 1;
            if one.there == 0 {
                state.callers.remove(&caller);
            }
        }
        if let Some(held) = held {
            let old = if state.pace == 0.0 {
                held.as_secs_f64()
            } else {
                state.pace
            };
            state.pace = (1.0 - NEWS) * old + NEWS * held.as_secs_f64();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.places = [None, None];
        self.stage
            .leave(self.caller, self.since.map(|since| since.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        at_once: 2,
        at_once_of_one: 1,
        there: 4,
    };

    #[tokio::test]
    async fn one_caller_has_neither_all_places_nor_all_room_to_wait() {
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let stage = Stage::new("testing", ROOM);
        let first = stage.enter(a).await.unwrap();
        // Its second waits for its first, and a third is sent away.
        let second = tokio::spawn({
            let stage = stage.clone();
            async move { stage.enter(a).await }
        });
        while stage.state.lock().unwrap().there < 2 {
            tokio::task::yield_now().await;
        }
        let refused = stage.enter(a).await.unwrap_err();
        assert!(
            format!("{refused:?}").contains("2 requests of this address are at testing"),
            "{refused:?}"
        );
        // Another caller has a place at once.
        let other = stage.enter(b).await.unwrap();
        assert!(!second.is_finished());
        let third = tokio::spawn({
            let stage = stage.clone();
            async move { stage.enter(c).await }
        });
        while stage.state.lock().unwrap().there < 4 {
            tokio::task::yield_now().await;
        }
        let refused = stage.enter(b).await.unwrap_err();
        assert!(
            format!("{refused:?}").contains("4 requests are at testing"),
            "{refused:?}"
        );
        drop((first, other));
        drop((second.await.unwrap().unwrap(), third.await.unwrap().unwrap()));
        let state = stage.state.lock().unwrap();
        assert_eq!((state.there, state.callers.len()), (0, 0));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_is_not_counted() {
        let caller = IpAddr::from([10, 0, 0, 1]);
        let stage = Stage::new("testing", ROOM);
        let first = stage.enter(caller).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(5), stage.enter(caller)).await;
        assert!(waiting.is_err());
        assert_eq!(stage.state.lock().unwrap().there, 1);
        drop(first);
        drop(stage.enter(caller).await.unwrap());
    }
}
