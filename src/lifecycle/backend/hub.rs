//! Who is told that the change log may have grown.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What is called with every hint.
pub(super) type On = Arc<dyn Fn() + Send + Sync>;

/// The listening to what other processes commit. Dropping it ends it soon; [`end`](Self::end) waits for that.
pub(super) trait Foreign: Send {
    /// Begins to end the listening, without waiting.
    fn leave(&mut self);

    /// Ends the listening, and waits until nothing of it is left.
    fn end(self: Box<Self>);
}

/// Begins to listen to what other processes commit, and tells the hub.
pub(super) type Begin = Box<dyn Fn(Weak<Hub>) -> Option<Box<dyn Foreign>> + Send + Sync>;

/// Tells everybody who watches; listens to other processes only while somebody does.
pub(super) struct Hub {
    state: Mutex<State>,
    begin: Begin,
    /// Whether somebody watches, for those who only want to know that.
    watched: AtomicBool,
    ids: AtomicU64,
}

#[derive(Default)]
struct State {
    listeners: Vec<(u64, On)>,
    foreign: Option<Box<dyn Foreign>>,
    /// The last one that was told to end: who closes the store waits for it.
    leaving: Option<Box<dyn Foreign>>,
    ended: bool,
}

/// Ends the hints when it is dropped; a call may then still be running, no other follows.
#[must_use = "dropping it ends the hints"]
pub struct Watch {
    hub: Weak<Hub>,
    id: u64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Hub {
    pub(super) fn new(begin: Begin) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), begin, watched: AtomicBool::new(false), ids: AtomicU64::new(0) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who watches.
    pub(super) fn tell(&self) {
        if !self.watched.load(Ordering::Acquire) {
            return;
        }
        // Called without the lock: whoever is told may end his watch.
        let listeners: Vec<On> = self.state().listeners.iter().map(|(_, on)| Arc::clone(on)).collect();
        for on in listeners {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on()));
        }
    }

    pub(super) fn listen(self: &Arc<Self>, on: On) -> Watch {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if !state.ended {
            state.listeners.push((id, on));
            self.watched.store(true, Ordering::Release);
            if state.foreign.is_none() {
                state.foreign = (self.begin)(Arc::downgrade(self));
            }
        }
        Watch { hub: Arc::downgrade(self), id }
    }

    /// Ends all watches, and waits until nothing listens to other processes any more.
    pub(super) fn end(&self) {
        let all = {
            let mut state = self.state();
            state.ended = true;
            state.listeners.clear();
            self.watched.store(false, Ordering::Release);
            [state.foreign.take(), state.leaving.take()]
        };
        all.into_iter().flatten().for_each(|foreign| foreign.end());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut state = hub.state();
        state.listeners.retain(|(id, _)| *id != self.id);
        if state.listeners.is_empty() {
            hub.watched.store(false, Ordering::Release);
            let mut foreign = state.foreign.take();
            if let Some(foreign) = &mut foreign {
                foreign.leave();
            }
            let before = if foreign.is_some() { std::mem::replace(&mut state.leaving, foreign) } else { None };
            drop(state);
            drop(before);
        }
    }
}
