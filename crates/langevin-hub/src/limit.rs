//! How fast the Hub may be asked: where it says "too many requests", all threads leave it alone for as long as it wants.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ureq::http::HeaderMap;

use crate::{Progress, headers::text};

/// The longest that the Hub is waited for: its windows are five minutes long.
pub(crate) const LONGEST: Duration = Duration::from_secs(330);
/// How long a sleep is before it looks whether to go on sleeping.
const NAP: Duration = Duration::from_millis(100);

/// Until when the Hub wants to be left alone.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    until: Mutex<Option<Instant>>,
}

impl Limit {
    /// Notes that the Hub wants to be left alone for so long; of several threads that are told so at once, one tells its user.
    pub(crate) fn note(&self, wait: Duration, progress: &dyn Progress) {
        let now = Instant::now();
        // A little more than it wants: its seconds are whole ones.
        let then = now + wait + NAP;
        let mut until = self.lock();
        if until.is_none_or(|until| until <= now) {
            progress.note(&format!(
                "the Hub asks for fewer requests: going on in {} s",
                wait.as_secs().max(1)
            ));
        }
        *until = Some(until.map_or(then, |until| until.max(then)));
    }

    /// Waits until the Hub may be asked again, or `stop` says so.
    pub(crate) fn wait(&self, stop: &dyn Fn() -> bool) {
        loop {
            let until = *self.lock();
            let left = until.map_or(Duration::ZERO, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || stop() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// A time is as good as before where a thread panicked.
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps for so long, or until `stop` says so.
pub(crate) fn sleep(time: Duration, stop: &dyn Fn() -> bool) {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stop() {
            return;
        }
        std::thread::sleep(left.min(NAP));
    }
}

/// How long an answer asks to wait: by `RateLimit: "api";r=0;t=55`, or by `Retry-After: 55`.
pub(crate) fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse().ok().map(Duration::from_secs);
    let limit = text(headers, "ratelimit").and_then(|limit| {
        let mut parts = limit.split([';', ',']);
        parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            (name.trim() == "t").then(|| seconds(value)).flatten()
        })
    });
    limit.or_else(|| text(headers, "retry-after").and_then(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_is_in_either_header() {
        let wait = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            asked_to_wait(&map).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&[("ratelimit", "\"api\";r=0;t=55")]), Some(55));
        assert_eq!(wait(&[("ratelimit", "\"api\"; r = 0; t = 7")]), Some(7));
        assert_eq!(wait(&[("retry-after", "12")]), Some(12));
        assert_eq!(
            wait(&[("ratelimit", "\"api\";r=0"), ("retry-after", "3")]),
            Some(3)
        );
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), None);
        assert_eq!(wait(&[]), None);
    }
}
