//! The row groups that are in memory.

use std::{collections::HashMap, sync::Arc};

use crate::data::order::WINDOW_BYTES;

/// What was read last, as much as takes the bytes of two windows of an [epoch's order](crate::data::epoch_order): the
/// one that batches are made from, and the next, which the first threads have begun with. One that could not be read is
/// held too, as its error, so that it is not tried again for each of its pictures.
pub(super) struct Held<T> {
    entries: HashMap<usize, Entry<T>>,
    bytes: u64,
    /// Counts what was asked for, to tell what was asked for last.
    clock: u64,
    limit: u64,
}

struct Entry<T> {
    value: Result<Arc<T>, String>,
    bytes: u64,
    asked: u64,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            bytes: 0,
            clock: 0,
            limit: 2 * WINDOW_BYTES,
        }
    }
}

impl<T> Held<T> {
    /// What has the number `key` and takes `bytes`, by `read` if it is not there.
    pub(super) fn get(
        &mut self,
        key: usize,
        bytes: u64,
        read: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        self.clock += 1;
        let clock = self.clock;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.asked = clock;
            return entry.value.clone();
        }
        // Room is made before, so that what goes is gone when the new one comes; the last one asked for stays.
        while self.entries.len() > 1 && self.bytes.saturating_add(bytes) > self.limit {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.asked);
            let Some((&oldest, _)) = oldest else { break };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
        let value = read().map(Arc::new);
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.insert(
            key,
            Entry {
                value: value.clone(),
                bytes,
                asked: clock,
            },
        );
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_last_stays_within_the_limit() {
        let mut held = Held {
            limit: 10,
            ..Held::default()
        };
        let mut reads = Vec::new();
        for key in [1, 2, 1, 3, 1, 2, 9, 9] {
            let bytes = if key == 9 { 100 } else { 4 };
            let value = held.get(key, bytes, || {
                reads.push(key);
                Ok(10 * key)
            });
            assert_eq!(*value.unwrap(), 10 * key);
        }
        // 3 drove 2 out, and 2 drove 3 out; what is too large on its own leaves one beside it.
        assert_eq!(reads, [1, 2, 3, 2, 9]);
        assert_eq!(held.entries.len(), 2);
    }

    #[test]
    fn a_failure_is_not_tried_again() {
        let mut held: Held<u8> = Held::default();
        assert_eq!(held.get(0, 1, || Err("broken".into())).unwrap_err(), "broken");
        assert_eq!(held.get(0, 1, || unreachable!()).unwrap_err(), "broken");
    }
}
