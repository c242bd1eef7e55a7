//! A small pool for work that may block: file operations, hashing.
//!
//! Threads are started on demand, at most [`THREADS_MAX`], and end after ten idle seconds. They never keep the process
//! alive. Jobs must not wait for other jobs, except through [`parallel`], whose caller works itself. Jobs that wait for other
//! processes, or for each other's turns, get a [`Pool`] of their own: here they would hold up everybody.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Upper bound of threads: enough for the syncs of one batch over the ten usual stores to run side by side.
pub const THREADS_MAX: usize = 16;
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// Threads of their own for one kind of jobs, at most [`THREADS_MAX`]. What waits here holds up nobody else.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    wake: Condvar,
}

static SHARED: Pool = Pool::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a job is caught before any guard is held, so a poisoned mutex still holds sound data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `job` on a thread of the pool.
pub fn spawn(job: impl FnOnce() + Send + 'static) {
    SHARED.spawn(job);
}

/// Closes `files` soon, on another thread. Where the last name of a file is gone already, closing it is what frees the inode,
/// and that costs as much as a sync on some file systems: nobody has to wait for it.
pub fn close_later(files: Vec<std::fs::File>) {
    if !files.is_empty() {
        spawn(move || drop(files));
    }
}

/// Short jobs that must run one after the other, in the order in which they were handed in.
struct Intake {
    jobs: VecDeque<Job>,
    running: bool,
}

static INTAKE: Mutex<Intake> = Mutex::new(Intake { jobs: VecDeque::new(), running: false });

thread_local! {
    static IN_INTAKE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `job` on the pool after all that were handed in before it: this is how callers of one thread keep their order of
/// arrival. The job must be short; what takes longer it passes to [`off_intake`].
pub fn spawn_in_order(job: impl FnOnce() + Send + 'static) {
    let mut intake = lock(&INTAKE);
    intake.jobs.push_back(Box::new(job));
    if !intake.running {
        intake.running = true;
        drop(intake);
        spawn(take_in);
    }
}

fn take_in() {
    IN_INTAKE.set(true);
    loop {
        let mut intake = lock(&INTAKE);
        let Some(job) = intake.jobs.pop_front() else {
            intake.running = false;
            break;
        };
        drop(intake);
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
    IN_INTAKE.set(false);
}

/// Runs `job` here, or, on the thread that takes jobs in, on another one.
pub fn off_intake(job: impl FnOnce() + Send + 'static) {
    if IN_INTAKE.get() { spawn(job) } else { job() }
}

impl Pool {
    /// Makes a pool, for a `static`; no thread is started yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 }), wake: Condvar::new() }
    }

    /// Runs `job` on a thread of the pool.
    pub fn spawn(&'static self, job: impl FnOnce() + Send + 'static) {
        self.push(Box::new(job), false);
    }

    fn push(&'static self, job: Job, urgent: bool) {
        let mut state = lock(&self.state);
        if urgent {
            state.jobs.push_front(job);
        } else {
            state.jobs.push_back(job);
        }
        if state.idle >= state.jobs.len() {
            drop(state);
            self.wake.notify_one();
        } else if state.threads < THREADS_MAX {
            state.threads += 1;
            drop(state);
            let started = thread::Builder::new().name("holdfast".into()).spawn(|| self.work());
            if started.is_err() {
                let mut state = lock(&self.state);
                state.threads -= 1;
                if state.threads == 0 {
                    // Not one thread to be had: the caller does the work, because a promise waits for it.
                    while let Some(job) = state.jobs.pop_front() {
                        drop(state);
                        let _ = catch_unwind(AssertUnwindSafe(job));
                        state = lock(&self.state);
                    }
                }
            }
        }
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job settles its own promise; a panic that escapes it ends neither the thread nor the process.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = lock(&self.state);
                continue;
            }
            state.idle += 1;
            let (guard, timeout) = self.wake.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} job(s), {} thread(s)", self.jobs.len(), self.threads)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

/// A job with a result.
pub type Task<T> = Box<dyn FnOnce() -> T + Send>;

struct Shared<T> {
    waiting: Mutex<Vec<Option<Task<T>>>>,
    results: Mutex<(Vec<Option<T>>, usize)>,
    done: Condvar,
}

impl<T> Shared<T> {
    /// Takes one job that nobody has begun and runs it. Returns false when none is left.
    fn step(&self) -> bool {
        let next = {
            let mut waiting = lock(&self.waiting);
            waiting.iter_mut().enumerate().rev().find_map(|(i, slot)| slot.take().map(|job| (i, job)))
        };
        let Some((index, job)) = next else { return false };
        let value = catch_unwind(AssertUnwindSafe(job)).ok();
        let mut results = lock(&self.results);
        if let Some(slot) = results.0.get_mut(index) {
            *slot = value;
        }
        results.1 += 1;
        self.done.notify_all();
        true
    }
}

/// Runs all `jobs`, at most `width` at once, and returns their results in order. The calling thread works along, so it
/// ends even when the pool is full. A job that panicked gives `None`.
pub fn parallel<T: Send + 'static>(width: usize, mut jobs: Vec<Task<T>>) -> Vec<Option<T>> {
    let count = jobs.len();
    if count <= 1 {
        return jobs.pop().map(|job| catch_unwind(AssertUnwindSafe(job)).ok()).into_iter().collect();
    }
    let shared = Arc::new(Shared {
        waiting: Mutex::new(jobs.into_iter().map(Some).collect()),
        results: Mutex::new(((0..count).map(|_| None).collect(), 0)),
        done: Condvar::new(),
    });
    for _ in 1..width.min(count) {
        let shared = Arc::clone(&shared);
        SHARED.push(Box::new(move || while shared.step() {}), true);
    }
    while shared.step() {}
    let mut results = lock(&shared.results);
    while results.1 < count {
        results = shared.done.wait(results).unwrap_or_else(PoisonError::into_inner);
    }
    std::mem::take(&mut results.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_keeps_the_order_and_survives_a_panic() {
        let jobs: Vec<Box<dyn FnOnce() -> usize + Send>> = (0..40usize)
            .map(|i| {
                Box::new(move || if i == 7 { panic!("seven") } else { i * 2 }) as Box<dyn FnOnce() -> usize + Send>
            })
            .collect();
        let results = parallel(8, jobs);
        for (i, result) in results.iter().enumerate() {
            assert_eq!(*result, (i != 7).then_some(i * 2));
        }
    }

    #[test]
    fn nested_parallel_ends_although_the_pool_is_full() {
        let jobs: Vec<Box<dyn FnOnce() -> usize + Send>> = (0..64usize)
            .map(|i| {
                Box::new(move || {
                    let inner: Vec<Box<dyn FnOnce() -> usize + Send>> =
                        (0..8usize).map(|k| Box::new(move || k + i) as Box<dyn FnOnce() -> usize + Send>).collect();
                    parallel(8, inner).into_iter().flatten().sum()
                }) as Box<dyn FnOnce() -> usize + Send>
            })
            .collect();
        assert_eq!(parallel(64, jobs).into_iter().flatten().sum::<usize>(), (0..64).map(|i| 28 + 8 * i).sum::<usize>());
    }
}
