//! The line in front of the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Closed, WriteJob};

/// How long a job that nobody waits for looks for company.
pub(super) const LATER: Duration = Duration::from_millis(20);

/// What the writer does next.
pub(super) enum Next {
    /// Run these, in this order, in one transaction.
    Batch(Vec<Box<dyn WriteJob>>),
    /// Nothing is left and nothing will come: close, then tell these.
    End(Vec<Closed>),
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn WriteJob>>,
    /// How many of `jobs` somebody waits for.
    urgent: usize,
    /// The same as `jobs`, in the same order: is this one waited for?
    waited: VecDeque<bool>,
    /// When the first job that nobody waits for stops looking for company.
    due: Option<Instant>,
    /// No more jobs are taken in.
    ending: bool,
    /// Who wants to hear of the end.
    closing: Vec<Closed>,
    /// The writer is gone.
    ended: bool,
}

/// Jobs in order of arrival, and the writer asleep in front of them. A mutex and a condition variable rather than a channel:
/// the writer takes many at once and some can wait.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in, or hands it back when the database is closing.
    pub(super) fn push(&self, job: Box<dyn WriteJob>, waited_for: bool) -> Result<(), Box<dyn WriteJob>> {
        let mut state = self.lock();
        if state.ending {
            return Err(job);
        }
        state.jobs.push_back(job);
        state.waited.push_back(waited_for);
        if waited_for {
            state.urgent += 1;
            if state.urgent > 1 {
                // The writer was woken by the first and has not come yet.
                return Ok(());
            }
        } else if state.due.is_none() {
            state.due = Some(Instant::now() + LATER);
        } else {
            return Ok(());
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Stops the intake. What is queued is still run; then `done` is called, now if that was long ago.
    pub(super) fn end(&self, done: Option<Closed>) {
        let mut state = self.lock();
        state.ending = true;
        if state.ended {
            drop(state);
            if let Some(done) = done {
                super::guarded(|| done(Ok(())));
            }
            return;
        }
        state.closing.extend(done);
        drop(state);
        self.wake.notify_one();
    }

    /// Marks the writer as gone and returns those who came to close in the meantime.
    pub(super) fn ended(&self) -> Vec<Closed> {
        let mut state = self.lock();
        state.ending = true;
        state.ended = true;
        std::mem::take(&mut state.closing)
    }

    /// Tells whether calls still make sense.
    pub(super) fn is_open(&self) -> bool {
        !self.lock().ending
    }

    /// Returns how many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Waits for work. A job that somebody waits for never waits for company; one that nobody waits for goes with the next,
    /// or alone after [`LATER`].
    pub(super) fn next(&self, max_batch: usize) -> Next {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = state.due.is_some_and(|due| due <= now);
            if !state.jobs.is_empty() && (state.urgent > 0 || due || state.ending || state.jobs.len() >= max_batch) {
                return Next::Batch(take(&mut state, max_batch));
            }
            if state.ending {
                return Next::End(std::mem::take(&mut state.closing));
            }
            state = match state.due {
                Some(due) => {
                    self.wake.wait_timeout(state, due - now).map_or_else(|e| e.into_inner().0, |woken| woken.0)
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

fn take(state: &mut State, max_batch: usize) -> Vec<Box<dyn WriteJob>> {
    let count = state.jobs.len().min(max_batch.max(1));
    let jobs = state.jobs.drain(..count).collect();
    state.urgent -= state.waited.drain(..count).filter(|waited| *waited).count();
    if state.waited.len() == state.urgent {
        state.due = None;
    }
    jobs
}
