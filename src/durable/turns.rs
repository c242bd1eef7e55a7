//! So many at the same time, and no more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::pool;

type Job = Box<dyn FnOnce() + Send>;

/// Lets only so many jobs run at the same time; the others wait in line.
pub struct Turns {
    max: usize,
    state: Mutex<(usize, VecDeque<Job>)>,
}

impl Turns {
    /// Lets `max` run at the same time, at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), state: Mutex::default() }
    }

    /// Runs `job` on a thread of the pool, at once or when it is its turn.
    pub fn run(self: &Arc<Self>, job: Job) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 >= self.max {
                state.1.push_back(job);
                return;
            }
            state.0 += 1;
        }
        let turns = Arc::clone(self);
        pool::spawn(move || turns.work(job));
    }

    fn work(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            next = state.1.pop_front();
            if next.is_none() {
                state.0 -= 1;
            }
        }
    }
}
