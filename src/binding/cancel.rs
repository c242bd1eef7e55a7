//! Cancellation: JavaScript sets it, running work sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi_derive::napi;

/// A request to stop, shared by the JavaScript thread and the work.
#[derive(Default)]
pub(super) struct Cancel(AtomicBool);

impl Cancel {
    /// Tells whether the work should stop at its next safe point.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
        self.shared.0.store(true, Ordering::Release);
    }
}

impl CancelToken {
    /// Returns the shared state, for the work: the token itself belongs to JavaScript and may be collected.
    pub(super) fn shared(&self) -> Arc<Cancel> {
        Arc::clone(&self.shared)
    }
}
