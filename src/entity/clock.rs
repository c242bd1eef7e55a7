//! Times of rows: the caller's clock, made strictly increasing per entity.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// So many entities are remembered; beyond that, only what the log itself says counts.
const REMEMBERED: usize = 10_000;

/// Hands out times. Writers may share it: no two write one entity at a time.
#[derive(Debug, Default)]
pub struct Clock {
    latest: Mutex<HashMap<(String, String), i64>>,
}

impl Clock {
    /// Returns the time of a change of an entity in microseconds since the epoch: `now`, or the least time after its last
    /// change, of which the log knows `newest`.
    pub fn next(&self, kind: &str, entity_id: &str, now: i64, newest: Option<i64>) -> i64 {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= REMEMBERED {
            latest.clear();
        }
        let slot = latest.entry((kind.to_owned(), entity_id.to_owned())).or_insert(i64::MIN);
        let floor = newest.unwrap_or(i64::MIN).max(*slot);
        *slot = now.max(floor.saturating_add(1));
        *slot
    }
}

/// Milliseconds to microseconds, within what both sides can hold.
#[must_use]
pub fn micros(ms: f64) -> i64 {
    // `as` saturates, and maps NaN to 0.
    (ms * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_an_entity_increase_even_when_the_clock_goes_back() {
        let clock = Clock::default();
        assert_eq!(clock.next("k", "a", 1_000_000, None), 1_000_000);
        assert_eq!(clock.next("k", "a", 1_000_000, None), 1_000_001);
        assert_eq!(clock.next("k", "a", 10_000, None), 1_000_002);
        assert_eq!(clock.next("k", "b", 10_000, None), 10_000);
        assert_eq!(clock.next("k", "b", 10_000, Some(20_000)), 20_001);
    }
}
