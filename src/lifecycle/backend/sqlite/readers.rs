//! Reading at the same time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::durable::pool;

type Reading = Box<dyn FnOnce() + Send>;

/// Lets only so many read at the same time; the others wait in line.
pub(super) struct Readers {
    max: usize,
    state: Mutex<(usize, VecDeque<Reading>)>,
}

impl Readers {
    /// Lets `max` read at the same time, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), state: Mutex::default() }
    }

    /// Runs `reading` on a thread of the pool, at once or when it is its turn.
    pub(super) fn run(self: &Arc<Self>, reading: Reading) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 >= self.max {
                state.1.push_back(reading);
                return;
            }
            state.0 += 1;
        }
        let readers = Arc::clone(self);
        pool::spawn(move || readers.work(reading));
    }

    fn work(&self, first: Reading) {
        let mut next = Some(first);
        while let Some(reading) = next {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(reading));
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            next = state.1.pop_front();
            if next.is_none() {
                state.0 -= 1;
            }
        }
    }
}
