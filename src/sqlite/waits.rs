//! How long transactions waited for the write lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each counts waits of up to twice as long as the one before: up to 1 µs, 2 µs, 4 µs … about 34 s.
const BUCKETS: usize = 26;

/// Counts as they come in.
#[derive(Debug, Default)]
pub(super) struct Waiting([AtomicU64; BUCKETS]);

impl Waiting {
    /// Counts one.
    pub(super) fn add(&self, waited: Duration) {
        let micros = waited.as_micros().max(1);
        let bucket = micros.next_power_of_two().trailing_zeros() as usize;
        if let Some(count) = self.0.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> Waits {
        let mut waits = Waits::default();
        for (to, from) in waits.0.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Relaxed);
        }
        waits
    }
}

/// Waits for the write lock since the database was opened, one per transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits([u64; BUCKETS]);

impl Waits {
    /// What so many percent of the transactions waited at most, up to a factor of two; nothing before the first.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        let wanted = (all * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_micros(1 << bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_up_to_a_factor_of_two() {
        let waiting = Waiting::default();
        assert_eq!(waiting.get().percentile(50), None);
        for _ in 0..98 {
            waiting.add(Duration::from_nanos(300));
        }
        waiting.add(Duration::from_millis(3));
        waiting.add(Duration::from_secs(3_600));
        let waits = waiting.get();
        assert_eq!(waits.percentile(50), Some(Duration::from_micros(1)));
        assert_eq!(waits.percentile(99), Some(Duration::from_micros(4_096)));
        assert_eq!(waits.percentile(100), Some(Duration::from_micros(1 << (BUCKETS - 1))));
    }
}
