//! Cancellation: JavaScript sets it, running work sees it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi_derive::napi;

/// A request to stop, shared by the JavaScript thread and the work.
#[derive(Default)]
pub(super) struct Cancel {
    cancelled: AtomicBool,
    wakers: Mutex<Vec<(u64, Waker)>>,
    next: AtomicU64,
}

type Waker = Box<dyn FnOnce() + Send>;

impl Cancel {
    /// Tells whether the work should stop at its next safe point.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Calls `waker` once when the work is cancelled, on the thread that cancels, or right here if it is already.
    /// The waker is forgotten when the returned guard is dropped, so that a long-lived token does not collect them.
    pub(super) fn on_cancel(self: &Arc<Self>, waker: impl FnOnce() + Send + 'static) -> Registration {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut wakers = self.lock();
        // Under the lock, which `cancel` takes after setting the flag: either this sees the flag or `cancel` the waker.
        if self.is_cancelled() {
            drop(wakers);
            waker();
        } else {
            wakers.push((number, Box::new(waker)));
        }
        Registration { cancel: Arc::clone(self), number }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *self.lock());
        for (_, waker) in wakers {
            // One waker's bug must not keep the others asleep, nor reach JavaScript's abort handler.
            let _ = catch_unwind(AssertUnwindSafe(waker));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a waker registered.
pub(super) struct Registration {
    cancel: Arc<Cancel>,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut wakers = self.cancel.lock();
        let found = wakers.iter().position(|(number, _)| *number == self.number);
        let waker = found.map(|index| wakers.swap_remove(index));
        drop(wakers);
        // Outside the lock: what the waker owns may use the token when it goes.
        drop(waker);
    }
}

/// What the facade hands to a native call that can be cancelled; `withSignal` in `src-js/signal.ts` connects it to the
/// caller's `AbortSignal`.
#[napi]
#[derive(Default)]
pub struct CancelToken {
    shared: Arc<Cancel>,
}

#[napi]
impl CancelToken {
    /// Makes a token that is not cancelled.
    #[napi(constructor)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop. Work that is past its last safe point finishes. Again is harmless.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.shared.cancel();
    }
}

impl CancelToken {
    /// Returns the shared state, for the work: the token itself belongs to JavaScript and may be collected.
    pub(super) fn shared(&self) -> Arc<Cancel> {
        Arc::clone(&self.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn wakers_run_once_also_when_registered_late_and_not_after_their_guard() {
        let cancel = Arc::new(Cancel::default());
        let calls = Arc::new(AtomicUsize::new(0));
        let count = |calls: &Arc<AtomicUsize>| {
            let calls = Arc::clone(calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        drop(cancel.on_cancel(count(&calls)));
        let early = cancel.on_cancel(count(&calls));
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        cancel.cancel();
        assert!(cancel.is_cancelled());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let late = cancel.on_cancel(count(&calls));
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        drop((early, late));
    }
}
