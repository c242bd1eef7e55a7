//! What every blob store does at its end: what was accepted is finished, what comes later is refused.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{BlobStore, Done, closed};
use crate::durable::pool;

/// How long a `close` waits for what is running before it lets the store cut it off.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store that counts its calls. `close` waits until those that came before have ended, at most five seconds; a store whose
/// calls can hang (a network) cuts them off then, with [`Code::Closed`](crate::error::Code::Closed).
pub struct Gate<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    state: Mutex<State>,
    /// Told when the last call has ended.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    closed: bool,
}

impl<S: BlobStore + 'static> Gate<S> {
    /// Puts a gate before `store`.
    pub fn new(store: S) -> Self {
        Self(Arc::new(Inner { store, state: Mutex::default(), idle: Condvar::new() }))
    }

    fn run<T: Send + 'static>(&self, done: Done<T>, call: impl FnOnce(&S, Done<T>)) {
        let mut state = self.0.state();
        if state.closed {
            drop(state);
            let error = closed(&self.0.store.place());
            pool::spawn(move || done(Err(error)));
            return;
        }
        state.running += 1;
        drop(state);
        let running = Running(Arc::clone(&self.0));
        let counted = move |outcome| {
            let _running = running;
            done(outcome);
        };
        call(&self.0.store, Box::new(counted));
    }
}

impl<S> Inner<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that has not ended. Also one whose `done` was dropped ends.
struct Running<S>(Arc<Inner<S>>);

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        if state.running == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl<S: BlobStore + 'static> BlobStore for Gate<S> {
    fn put(&self, integrity: String, bytes: Vec<u8>, done: Done<()>) {
        self.run(done, |store, done| store.put(integrity, bytes, done));
    }

    fn get(&self, integrity: String, done: Done<Option<Vec<u8>>>) {
        self.run(done, |store, done| store.get(integrity, done));
    }

    fn has(&self, integrity: String, done: Done<bool>) {
        self.run(done, |store, done| store.has(integrity, done));
    }

    fn delete(&self, integrity: String, done: Done<()>) {
        self.run(done, |store, done| store.delete(integrity, done));
    }

    fn list(&self, done: Done<Vec<String>>) {
        self.run(done, |store, done| store.list(done));
    }

    fn place(&self) -> String {
        self.0.store.place()
    }

    fn close(&self, done: Done<()>) {
        let inner = Arc::clone(&self.0);
        let running = {
            let mut state = inner.state();
            state.closed = true;
            state.running > 0
        };
        if !running {
            return inner.store.close(done);
        }
        // A thread of its own: those of the pool are what the calls wait for.
        let waiter = Arc::clone(&inner);
        let wait = move || {
            let state = waiter.state();
            let _ = waiter.idle.wait_timeout_while(state, PATIENCE, |state| state.running > 0);
            waiter.store.close(done);
        };
        // Without a thread nobody can wait; the calls go on all the same, and `done` is dropped, which its maker hears.
        let _ = thread::Builder::new().name("holdfast-close".into()).spawn(wait);
    }
}
