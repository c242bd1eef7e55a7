//! The line in front of the writer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Closed, WriteJob};

/// How long a job that nobody waits for looks for company.
pub(super) const LATER: Duration = Duration::from_millis(20);

/// How long the writer looks for the next job before it goes to sleep.
const LOOK_OUT: Duration = Duration::from_micros(200);
/// How long nobody comes until the writer takes it that it has time for something else.
const QUIET: Duration = Duration::from_millis(5);
/// After so many misses in a row it no longer does,
const MISSES_MAX: u32 = 8;
/// but for one time in so many.
const TRY_AGAIN: u32 = 16;

static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
/// Writers of this process that are not asleep.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// One of [`AWAKE`].
#[derive(Debug)]
pub(super) struct Awake(());

impl Awake {
    pub(super) fn new() -> Self {
        AWAKE.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the writer does next.
pub(super) enum Next {
    /// Run these, in this order, in one transaction.
    Batch(Vec<Box<dyn WriteJob>>),
    /// Nobody came for a moment, and perhaps nobody will for long.
    Quiet,
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
    /// The writer waits to be woken, or for a time.
    waiting: bool,
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
    /// A job came in that somebody waits for; what a writer that looks without sleeping looks at.
    called: AtomicBool,
    /// How often in a row nobody came while the writer looked out.
    misses: AtomicU32,
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
            self.called.store(true, Ordering::Release);
            // Of further ones the writer hears when it comes; one that has not gone to sleep yet looks by itself.
            state.urgent == 1 && state.waiting
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

    /// Looks for work for a moment without going to sleep: putting the writer to sleep and waking it costs a caller that comes back at
    /// once more than the work itself. Where callers do not come back that soon it is given up, and tried again now and then.
    fn look_out(&self) {
        // It needs a core that nobody else needs: beside the caller's on a single one, or beside other writers at work, it would only
        // keep them from coming.
        let crowded = || AWAKE.load(Ordering::Relaxed) >= *CORES;
        if crowded() {
            return;
        }
        let misses = self.misses.load(Ordering::Relaxed);
        if misses >= MISSES_MAX && !misses.is_multiple_of(TRY_AGAIN) {
            self.misses.store(misses.wrapping_add(1).max(MISSES_MAX), Ordering::Relaxed);
            return;
        }
        let end = Instant::now() + LOOK_OUT;
        while Instant::now() < end {
            if self.called.load(Ordering::Acquire) {
                self.misses.store(0, Ordering::Relaxed);
                return;
            }
            if crowded() {
                return;
            }
            std::hint::spin_loop();
        }
        self.misses.store(misses.wrapping_add(1).max(1), Ordering::Relaxed);
    }

    /// Waits for work. A job that somebody waits for never waits for company; one that nobody waits for goes with the next
    /// that takes others along, or alone after [`LATER`]. `has_chores`: says so when it is [`Next::Quiet`].
    pub(super) fn next(&self, max_batch: usize, has_chores: bool) -> Next {
        let mut awake = Some(Awake::new());
        self.look_out();
        let mut state = self.lock();
        let quiet = has_chores.then(|| Instant::now() + QUIET);
        // Long enough to see by itself, in time, what is handed in for later.
        let mut look_again = Some(Instant::now() + LATER);
        loop {
            let now = Instant::now();
            let due = state.due.is_some_and(|due| due <= now);
            if !state.jobs.is_empty() && (state.urgent > 0 || due || state.ending || state.jobs.len() >= max_batch) {
                let batch = take(&mut state, max_batch, due);
                // From here on only who comes later counts, and who stayed behind.
                self.called.store(state.urgent > 0, Ordering::Relaxed);
                return Next::Batch(batch);
            }
            if state.ending {
                return Next::End(std::mem::take(&mut state.closing));
            }
            if quiet.is_some_and(|quiet| quiet <= now) {
                return Next::Quiet;
            }
            look_again = look_again.filter(|time| *time > now);
            state.waiting = true;
            drop(awake.take());
            state = match [state.due.or(look_again), quiet].into_iter().flatten().min() {
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
            state.waiting = false;
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
