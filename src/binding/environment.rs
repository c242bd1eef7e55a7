//! What belongs to one JavaScript environment (main thread, worker, Electron renderer) and ends with it.
//!
//! # Order at the end of an environment
//! Node runs clean-up hooks last registered first. Ours is registered after the threadsafe function of the settle queue
//! exists, so it runs before Node closes that function:
//! 1. The queue closes. From here on a settled [`Ticket`](super::settle::Ticket) drops its result on the thread that
//!    produced it; results that were waiting are dropped here. A lock guard in a result is released by that drop.
//! 2. The kept resources are dropped, newest first.
//! 3. Node closes the threadsafe function and finalizes it, which frees the queue when the last ticket is gone.
//!
//! The hook runs when a worker ends (also by `terminate()` or its own `process.exit()`) and when the main thread ends by
//! itself or by an uncaught error. `process.exit()` on the main thread skips it; the C library then destroys the thread's
//! storage on Linux, which drops the kept resources too, but nobody promises that. A signal skips everything. Files that
//! mark locks then stay until the staleness rules of the lock protocol remove them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use napi::Env;

use super::resources::Shelf;
use super::settle::SettleQueue;

thread_local! {
    /// The environments of this thread, by the address of their `napi_env`. A thread can have several: a vm context
    /// that loads the addon again gets an environment of its own.
    static ENVIRONMENTS: RefCell<HashMap<usize, Rc<Environment>>> = RefCell::default();
}

/// The state of one environment. Used on its JavaScript thread only.
pub(super) struct Environment {
    /// Settles the promises of the environment.
    pub(super) queue: Arc<SettleQueue>,
    /// Resources that end with the environment.
    pub(super) shelf: Shelf,
}

impl Environment {
    /// Returns the state of `env`, which the first call creates.
    ///
    /// # Errors
    /// Where Node refuses, because the environment is ending.
    pub(super) fn of(env: &Env) -> napi::Result<Rc<Self>> {
        let key = env.raw() as usize;
        if let Some(found) = ENVIRONMENTS.with_borrow(|all| all.get(&key).cloned()) {
            return Ok(found);
        }
        // Nothing is borrowed while Node runs: it may collect garbage and call back.
        let queue = SettleQueue::open(env)?;
        if let Err(error) = env.add_env_cleanup_hook(key, end) {
            queue.close();
            return Err(error);
        }
        let created = Rc::new(Self { queue, shelf: Shelf::default() });
        ENVIRONMENTS.with_borrow_mut(|all| all.insert(key, Rc::clone(&created)));
        Ok(created)
    }
}

/// The clean-up hook. Must not unwind, because C++ calls it.
fn end(key: usize) {
    // The thread's own storage may be gone already; then there is nothing left to end.
    let Ok(Some(ending)) = ENVIRONMENTS.try_with(|all| all.borrow_mut().remove(&key)) else {
        return;
    };
    for step in [|it: &Environment| it.queue.close(), |it: &Environment| it.shelf.clear()] {
        // The panic was printed by the panic hook, and nobody is left who could be told.
        let _ = catch_unwind(AssertUnwindSafe(|| step(&ending)));
    }
}
