//! Waiting until somebody has written: any handle of this process, or another process.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
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
    waiting: Vec<(u64, Woken)>,
    /// Watchers that have waited and have not ended: while there are some, other processes are listened to.
    listeners: usize,
    foreign: Option<Watch>,
    /// A thread of the pool is about to begin it.
    begins: bool,
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
            std::mem::take(&mut state.waiting)
        };
        for (_, woken) in waiting {
            woken(true);
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
    state: Mutex<Watching>,
}

#[derive(Debug)]
struct Watching {
    /// How many writes were there when it looked last.
    seen: u64,
    id: Option<u64>,
    listens: bool,
    ended: bool,
}

impl Watcher {
    pub(in crate::session_graph) fn new(signal: &Arc<Signal>) -> Self {
        let seen = signal.state().written;
        Self {
            signal: Arc::clone(signal),
            state: Mutex::new(Watching { seen, id: None, listens: false, ended: false }),
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
        if state.written != own.seen {
            own.seen = state.written;
            drop(state);
            drop(own);
            return woken(true);
        }
        state.ids += 1;
        let id = state.ids;
        own.id = Some(id);
        let begins = !std::mem::replace(&mut own.listens, true);
        state.listeners += usize::from(begins);
        state.waiting.push((id, woken));
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
        let place = state.waiting.iter().position(|(id, _)| Some(*id) == own.id);
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
        if let Some((_, woken)) = woken {
            woken(false);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}
