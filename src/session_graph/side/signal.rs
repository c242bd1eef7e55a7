//! Waiting until somebody has written: any handle of this process, or another process.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::durable::{pool, timer};
use crate::sqlite::Watch;

/// How long until it is tried again to look at a file that cannot be looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// One per file: handles of one process tell each other through it.
static SIGNALS: LazyLock<Mutex<HashMap<PathBuf, Weak<Signal>>>> = LazyLock::new(Mutex::default);

/// Called once: `true` when somebody has written, `false` when the listening ended.
pub(in crate::session_graph) type Woken = Box<dyn FnOnce(bool) + Send>;

/// Tells that a file was written.
#[derive(Debug)]
pub(in crate::session_graph) struct Signal {
    /// `None` in memory, where nobody else writes.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Grows with every write.
    written: u64,
    ids: u64,
    waiting: Vec<Waiting>,
    /// Watchers that have waited and have not ended: while there are some, other processes are listened to.
    listeners: usize,
    foreign: Option<Watch>,
    /// A thread of the pool is about to begin it.
    begins: bool,
}

/// A watcher that waits.
struct Waiting {
    id: u64,
    /// Its count of the writes that it has heard of.
    seen: Arc<AtomicU64>,
    woken: Woken,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Signal {
    /// The signal of a file; a new one for a database in memory.
    pub(in crate::session_graph) fn of(path: Option<&Path>) -> Arc<Self> {
        let make = || Arc::new(Self { path: path.map(Path::to_owned), state: Mutex::default() });
        let Some(path) = path else { return make() };
        let mut signals = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = signals.get(path).and_then(Weak::upgrade) {
            return signal;
        }
        signals.retain(|_, signal| signal.strong_count() > 0);
        let signal = make();
        signals.insert(path.to_owned(), Arc::downgrade(&signal));
        signal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something was written.
    pub(in crate::session_graph) fn tell(&self) {
        let waiting = {
            let mut state = self.state();
            state.written += 1;
            for waiting in &state.waiting {
                waiting.seen.store(state.written, Ordering::Relaxed);
            }
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            (waiting.woken)(true);
        }
    }

    /// Begins to listen to other processes, on the pool: it opens a connection.
    fn listen(self: &Arc<Self>) {
        let Some(path) = self.path.clone() else { return };
        {
            let mut state = self.state();
            if state.listeners == 0 || state.begins || state.foreign.is_some() {
                return;
            }
            state.begins = true;
        }
        let signal = Arc::clone(self);
        pool::spawn(move || {
            let weak = Arc::downgrade(&signal);
            // It calls once at the beginning: what was written before it looked is seen by those who wait.
            let begun = Watch::begin(&path, move |_| {
                let Some(signal) = weak.upgrade() else { return ControlFlow::Break(()) };
                signal.tell();
                ControlFlow::Continue(true)
            });
            let mut state = signal.state();
            let over = state.listeners == 0;
            let missing = begun.is_none();
            state.begins = false;
            state.foreign = begun.filter(|_| !over);
            drop(state);
            if missing && !over {
                // Who waits looks by itself meanwhile.
                signal.tell();
                let signal = Arc::clone(&signal);
                timer::schedule(Instant::now() + PATIENCE, move || signal.listen());
            }
        });
    }
}

/// Somebody who waits for writes. Ends when it is dropped.
#[derive(Debug)]
pub struct Watcher {
    signal: Arc<Signal>,
    /// How many writes it has heard of. Changes under the lock of the signal only.
    seen: Arc<AtomicU64>,
    state: Mutex<Watching>,
}

#[derive(Debug)]
struct Watching {
    id: Option<u64>,
    listens: bool,
    ended: bool,
}

impl Watcher {
    pub(in crate::session_graph) fn new(signal: &Arc<Signal>) -> Self {
        let seen = signal.state().written;
        Self {
            signal: Arc::clone(signal),
            seen: Arc::new(AtomicU64::new(seen)),
            state: Mutex::new(Watching { id: None, listens: false, ended: false }),
        }
    }

    fn state(&self) -> MutexGuard<'_, Watching> {
        // As of the signal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `woken` with `true` once somebody has written since the last call of this, or since the watcher was made: perhaps at
    /// once, perhaps in vain. With `false` when the watcher ends. One call at a time.
    pub fn next(&self, woken: Box<dyn FnOnce(bool) + Send>) {
        let mut own = self.state();
        if own.ended {
            drop(own);
            return woken(false);
        }
        let mut state = self.signal.state();
        if self.seen.swap(state.written, Ordering::Relaxed) != state.written {
            drop(state);
            drop(own);
            return woken(true);
        }
        state.ids += 1;
        let id = state.ids;
        own.id = Some(id);
        let begins = !std::mem::replace(&mut own.listens, true);
        state.listeners += usize::from(begins);
        state.waiting.push(Waiting { id, seen: Arc::clone(&self.seen), woken });
        drop(state);
        drop(own);
        if begins {
            self.signal.listen();
        }
    }

    /// Ends it. Again is harmless.
    pub fn end(&self) {
        let mut own = self.state();
        if std::mem::replace(&mut own.ended, true) {
            return;
        }
        let mut state = self.signal.state();
        let place = state.waiting.iter().position(|waiting| Some(waiting.id) == own.id);
        let woken = place.map(|place| state.waiting.swap_remove(place));
        let mut foreign = None;
        if own.listens {
            state.listeners -= 1;
            if state.listeners == 0 {
                foreign = state.foreign.take();
            }
        }
        drop(state);
        drop(own);
        drop(foreign);
        if let Some(waiting) = woken {
            (waiting.woken)(false);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use rusqlite::Connection;

    use super::*;

    fn wait(watcher: &Watcher) -> Receiver<bool> {
        let (tell, told) = channel();
        watcher.next(Box::new(move |again| {
            let _ = tell.send(again);
        }));
        told
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn each_watcher_hears_of_each_write_once() {
        let signal = Signal::of(None);
        let (a, b) = (Watcher::new(&signal), Watcher::new(&signal));
        let first = wait(&a);
        assert!(first.try_recv().is_err());
        signal.tell();
        assert_eq!(first.recv(), Ok(true));
        // What was written before it waited is news, too, but only once.
        assert_eq!(wait(&b).try_recv(), Ok(true));
        let second = wait(&b);
        assert!(second.try_recv().is_err());
        signal.tell();
        assert_eq!(second.recv(), Ok(true));
        assert_eq!(wait(&a).try_recv(), Ok(true));
        let last = wait(&a);
        a.end();
        assert_eq!(last.recv(), Ok(false));
        assert_eq!(wait(&a).try_recv(), Ok(false));
        let dropped = wait(&b);
        drop(b);
        assert_eq!(dropped.recv(), Ok(false));
        assert_eq!(signal.state().waiting.len(), 0);
    }

    #[test]
    fn others_are_listened_to_only_while_somebody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (x)").unwrap();
        let signal = Signal::of(Some(&path));
        assert!(Arc::ptr_eq(&signal, &Signal::of(Some(&path))));
        for round in 0..3 {
            let watcher = Watcher::new(&signal);
            assert!(signal.state().foreign.is_none(), "round {round}");
            let mut told = wait(&watcher);
            // The listening tells once when it begins.
            assert_eq!(told.recv_timeout(SOON), Ok(true));
            while signal.state().begins {
                std::thread::yield_now();
            }
            assert!(signal.state().foreign.is_some());
            while let Ok(true) = told.try_recv().or_else(|_| {
                told = wait(&watcher);
                told.try_recv()
            }) {}
            // This connection knows nothing of signals: it stands for another process.
            db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
            assert_eq!(told.recv_timeout(SOON), Ok(true));
        }
        assert_eq!(signal.state().listeners, 0);
        drop(signal);
        let (other, end) = (folder.path().join("other.db"), Instant::now() + SOON);
        // The threads that told of the last write may have it for a moment still.
        while Instant::now() < end {
            drop(Signal::of(Some(&other)));
            if !SIGNALS.lock().unwrap().contains_key(&path) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("signals that nobody has are forgotten");
    }
}
