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

struct Waiting {
    job: Box<dyn WriteJob>,
    /// Somebody waits for it.
    urgent: bool,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Waiting>,
    /// How many of `jobs` somebody waits for.
    urgent: usize,
    /// When the first job that nobody waits for stops looking for company.
    due: Option<Instant>,
    /// The writer sleeps until it is woken, however long that takes.
    asleep: bool,
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
        state.jobs.push_back(Waiting { job, urgent: waited_for });
        let wake = if waited_for {
            state.urgent += 1;
            // Of further ones the writer hears when it comes.
            state.urgent == 1
        } else {
            state.due.get_or_insert_with(|| Instant::now() + LATER);
            // A writer that has just worked looks again by itself: waking it would cost more than the job.
            std::mem::take(&mut state.asleep)
        };
        drop(state);
        if wake {
            self.wake.notify_one();
        }
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

    /// Tells whether somebody waits for a job.
    pub(super) fn is_pressed(&self) -> bool {
        self.lock().urgent > 0
    }

    /// Waits for work. A job that somebody waits for never waits for company; one that nobody waits for goes with the next
    /// that takes others along, or alone after [`LATER`].
    pub(super) fn next(&self, max_batch: usize) -> Next {
        let mut state = self.lock();
        // Long enough to see by itself, in time, what is handed in for later.
        let mut look_again = Some(Instant::now() + LATER);
        loop {
            let now = Instant::now();
            let due = state.due.is_some_and(|due| due <= now);
            if !state.jobs.is_empty() && (state.urgent > 0 || due || state.ending || state.jobs.len() >= max_batch) {
                return Next::Batch(take(&mut state, max_batch, due));
            }
            if state.ending {
                return Next::End(std::mem::take(&mut state.closing));
            }
            look_again = look_again.filter(|time| *time > now);
            state = match state.due.or(look_again) {
                Some(time) => {
                    self.wake.wait_timeout(state, time - now).map_or_else(|e| e.into_inner().0, |woken| woken.0)
                }
                None => {
                    state.asleep = true;
                    let mut state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.asleep = false;
                    state
                }
            };
        }
    }
}

/// Takes the next batch out, in order; jobs that nobody waits for stay behind where nothing takes them along.
fn take(state: &mut State, max_batch: usize, due: bool) -> Vec<Box<dyn WriteJob>> {
    let max_batch = max_batch.max(1);
    let all = due
        || state.ending
        || state.jobs.len() >= max_batch
        || state.jobs.iter().any(|waiting| waiting.urgent && waiting.job.takes_along());
    let mut batch = Vec::with_capacity(state.jobs.len().min(max_batch));
    if all {
        let count = state.jobs.len().min(max_batch);
        for waiting in state.jobs.drain(..count) {
            state.urgent -= usize::from(waiting.urgent);
            batch.push(waiting.job);
        }
    } else {
        // Fewer than a batch, so all of them.
        for waiting in std::mem::take(&mut state.jobs) {
            if waiting.urgent {
                batch.push(waiting.job);
            } else {
                state.jobs.push_back(waiting);
            }
        }
        state.urgent = 0;
    }
    if state.jobs.len() == state.urgent {
        state.due = None;
    }
    batch
}
