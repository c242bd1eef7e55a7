//! One-shot timers on the monotonic clock, for lock heartbeats, retries and deadlines.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::pool;

/// Names a scheduled timer.
pub type Key = (Instant, u64);
type Job = Box<dyn FnOnce() + Send>;

struct State {
    jobs: BTreeMap<Key, Job>,
    next_id: u64,
    running: bool,
    /// When the thread will wake by itself; `None` while it waits without a limit.
    wakes_at: Option<Instant>,
}

static STATE: Mutex<State> = Mutex::new(State { jobs: BTreeMap::new(), next_id: 0, running: false, wakes_at: None });
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `job` on the pool at `at`, or soon after.
pub fn schedule(at: Instant, job: impl FnOnce() + Send + 'static) -> Key {
    let mut state = lock();
    let key = (at, state.next_id);
    state.next_id += 1;
    state.jobs.insert(key, Box::new(job));
    if !state.running {
        state.running = thread::Builder::new().name("holdfast-timer".into()).spawn(run).is_ok();
    } else if state.wakes_at.is_none_or(|wakes| at < wakes) {
        CHANGED.notify_one();
    }
    key
}

/// Removes a timer that has not run. Returns whether it was still there.
pub fn cancel(key: Key) -> bool {
    lock().jobs.remove(&key).is_some()
}

fn run() {
    let mut state = lock();
    loop {
        let now = Instant::now();
        let due = state.jobs.first_key_value().map(|(key, _)| key.0);
        match due {
            Some(at) if at <= now => {
                if let Some((_, job)) = state.jobs.pop_first() {
                    // Not under the mutex: where no thread can be started, the job runs right here.
                    drop(state);
                    pool::spawn(job);
                    state = lock();
                }
            }
            Some(at) => {
                state.wakes_at = Some(at);
                state = CHANGED.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0;
            }
            None => {
                state.wakes_at = None;
                state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
