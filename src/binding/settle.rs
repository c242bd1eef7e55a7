//! Promises that other threads settle, through one queue per environment.
//!
//! Node wakes the JavaScript thread through a threadsafe function, whose creation is the expensive part of an
//! asynchronous call. So each environment has one for all its promises: settling a promise pushes its result on a queue, the
//! first push wakes the thread, and the wake-up settles everything that is waiting. The function keeps the event loop alive
//! while a promise is pending, and only then.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{PromiseRaw, ToNapiValue};
use napi::{Env, JsValue, check_status, sys};

use super::environment::Environment;
use super::failure;
use crate::durable::pool;
use crate::error::{Code, HfError, Result};

/// Runs `job` on the thread pool and returns the promise of its result.
///
/// The promise rejects with a failure object if `job` fails or panics. `job` runs to its end even if the environment ends
/// first; its result is dropped on the pool thread then.
///
/// # Errors
/// Where Node cannot make a promise, because the environment is ending; `job` does not run then.
pub(super) fn run<'e, T: ToNapiValue + Send + 'static>(
    env: &'e Env,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> napi::Result<PromiseRaw<'e, T>> {
    let (promise, ticket) = promise(env)?;
    // If no thread can be started, the job is dropped with its ticket, which rejects the promise.
    let _ = catch_unwind(AssertUnwindSafe(|| pool::spawn(move || ticket.settle(failure::guard(job)))));
    Ok(promise)
}

/// As [`run`], on a pool of its own: for jobs that may wait long for something else than the disk.
///
/// # Errors
/// As [`run`].
pub(super) fn run_on<'e, T: ToNapiValue + Send + 'static>(
    pool: &'static pool::Pool,
    env: &'e Env,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> napi::Result<PromiseRaw<'e, T>> {
    let (promise, ticket) = promise(env)?;
    let _ = catch_unwind(AssertUnwindSafe(|| pool.spawn(move || ticket.settle(failure::guard(job)))));
    Ok(promise)
}

/// Makes a promise and the ticket that settles it.
///
/// # Errors
/// Where Node cannot make a promise, because the environment is ending.
pub(super) fn promise<'e, T: ToNapiValue + Send + 'static>(
    env: &'e Env,
) -> napi::Result<(PromiseRaw<'e, T>, Ticket<T>)> {
    let (promise, mut ticket) = background_promise(env)?;
    ticket.keeps_alive = true;
    ticket.queue.issued(env);
    Ok((promise, ticket))
}

/// As [`promise`], of something that may never come: it does not keep the event loop alive.
///
/// # Errors
/// As [`promise`].
pub(super) fn background_promise<'e, T: ToNapiValue + Send + 'static>(
    env: &'e Env,
) -> napi::Result<(PromiseRaw<'e, T>, Ticket<T>)> {
    let queue = Arc::clone(&Environment::of(env)?.queue);
    let (mut deferred, mut promise) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `env` is live and this is its thread, because the caller holds an `Env`; both results are live locals.
    check_status!(unsafe { sys::napi_create_promise(env.raw(), &mut deferred, &mut promise) })?;
    let ticket = Ticket { deferred: Some(Deferred(deferred)), keeps_alive: false, queue, result: PhantomData };
    Ok((PromiseRaw::new(env.raw(), promise), ticket))
}

/// The right to settle one promise, from any thread. A ticket that is dropped unsettled rejects its promise.
pub(super) struct Ticket<T> {
    deferred: Option<Deferred>,
    keeps_alive: bool,
    queue: Arc<SettleQueue>,
    result: PhantomData<fn(T)>,
}

impl<T: ToNapiValue + Send + 'static> Ticket<T> {
    /// Settles the promise. `T` is converted on the JavaScript thread; if the environment has ended it is dropped here.
    pub(super) fn settle(mut self, result: Result<T>) {
        if let Some(deferred) = self.deferred.take() {
            let finish = move |env: &Env| {
                // SAFETY: `drain` calls this on the thread of the live environment `env`.
                unsafe { T::to_napi_value(env.raw(), result?) }.map_err(|error| {
                    HfError::new(
                        Code::Panic,
                        format!("the result could not be handed to JavaScript: {error}; please report it"),
                    )
                })
            };
            self.queue.push(Waiting { deferred, keeps_alive: self.keeps_alive, finish: Box::new(finish) });
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        if let Some(deferred) = self.deferred.take() {
            let message = "a bug in holdfast: the call was dropped without an answer; please report it. \
                           Whether its work was done is unknown";
            let finish = move |_: &Env| Err(HfError::new(Code::Panic, message));
            self.queue.push(Waiting { deferred, keeps_alive: self.keeps_alive, finish: Box::new(finish) });
        }
    }
}

/// Converts a result on the JavaScript thread.
type Finish = Box<dyn FnOnce(&Env) -> Result<sys::napi_value> + Send>;

/// A result on its way to its promise.
struct Waiting {
    deferred: Deferred,
    /// Whether the promise was counted when it was issued.
    keeps_alive: bool,
    finish: Finish,
}

/// The settling end of a promise.
struct Deferred(sys::napi_deferred);

// SAFETY: other threads only carry the pointer; `drain` uses it on the thread that created it.
unsafe impl Send for Deferred {}

/// The threadsafe function that wakes the JavaScript thread.
#[derive(Clone, Copy)]
struct Wake(sys::napi_threadsafe_function);

// SAFETY: other threads only pass it to `napi_call_threadsafe_function`, which is made for that.
unsafe impl Send for Wake {}

/// The queue of one environment.
pub(super) struct SettleQueue {
    state: Mutex<State>,
    /// Promises that are not settled yet. Used on the JavaScript thread only, hence relaxed.
    pending: AtomicUsize,
}

struct State {
    /// `None` once the environment ends. Calls are made under the mutex, and so is the change to `None`, so no thread can
    /// be inside a call, or begin one, when Node frees the function.
    wake: Option<Wake>,
    /// A wake-up is on its way that will see everything pushed so far.
    woken: bool,
    waiting: Vec<Waiting>,
}

impl SettleQueue {
    /// Creates the queue of `env` with its threadsafe function, which does not keep the event loop alive yet.
    pub(super) fn open(env: &Env) -> napi::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            state: Mutex::new(State { wake: None, woken: false, waiting: Vec::new() }),
            pending: AtomicUsize::new(0),
        });
        let name = env.create_string("holdfast")?;
        let mut wake = ptr::null_mut();
        // One count of the queue belongs to the function; `finalize` returns it.
        let context = Arc::into_raw(Arc::clone(&queue)).cast_mut().cast::<c_void>();
        // SAFETY: `env` and `name` are live; `wake` is a live local; `context` stays valid until `finalize`, which Node
        // calls once, and after which `drain` does not read it.
        let status = unsafe {
            sys::napi_create_threadsafe_function(
                env.raw(),
                ptr::null_mut(),
                ptr::null_mut(),
                name.raw(),
                0,
                1,
                context,
                Some(finalize),
                context,
                Some(drain),
                &mut wake,
            )
        };
        if let Err(error) = check_status!(status) {
            // SAFETY: the count made above; a function that was not created is not finalized.
            drop(unsafe { Arc::from_raw(context.cast_const().cast::<Self>()) });
            return Err(error);
        }
        queue.lock().wake = Some(Wake(wake));
        // SAFETY: created above, on this thread.
        unsafe { sys::napi_unref_threadsafe_function(env.raw(), wake) };
        Ok(queue)
    }

    /// Ends the queue: from here on results are dropped where they are settled, and those that wait are dropped now.
    pub(super) fn close(&self) {
        let (wake, waiting) = {
            let mut state = self.lock();
            (state.wake.take(), std::mem::take(&mut state.waiting))
        };
        if let Some(Wake(wake)) = wake {
            // SAFETY: it was in `state`, so it is not released or finalized yet, and nobody can use it after the `take`.
            unsafe { sys::napi_release_threadsafe_function(wake, sys::ThreadsafeFunctionReleaseMode::abort) };
        }
        // Outside the lock, because a result may own something whose drop settles another promise.
        drop(waiting);
    }

    /// Counts a new promise; the first one keeps the event loop alive.
    fn issued(&self, env: &Env) {
        if self.pending.fetch_add(1, Ordering::Relaxed) == 0
            && let Some(Wake(wake)) = self.lock().wake
        {
            // SAFETY: `wake` is open, and this is the thread of its environment, because the caller holds an `Env`.
            unsafe { sys::napi_ref_threadsafe_function(env.raw(), wake) };
        }
    }

    /// Counts promises that were settled; after the last one the event loop may end.
    fn settled(&self, env: &Env, count: usize) {
        if count > 0
            && self.pending.fetch_sub(count, Ordering::Relaxed) == count
            && let Some(Wake(wake)) = self.lock().wake
        {
            // SAFETY: as in `issued`.
            unsafe { sys::napi_unref_threadsafe_function(env.raw(), wake) };
        }
    }

    fn push(&self, waiting: Waiting) {
        let mut state = self.lock();
        let Some(Wake(wake)) = state.wake else {
            drop(state);
            // The environment has ended, and with it the promise. Its deferred leaks (some 25 bytes), because Node frees
            // one only when it settles, which is impossible by now.
            drop(waiting);
            return;
        };
        state.waiting.push(waiting);
        if !state.woken {
            state.woken = true;
            // SAFETY: `wake` is open, and `close` and `finalize` cannot change that while this holds the mutex. Where
            // Node answers that it is closing, `close` is about to run and drops what waits.
            unsafe {
                sys::napi_call_threadsafe_function(wake, ptr::null_mut(), sys::ThreadsafeFunctionCallMode::nonblocking)
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settles everything that waits. Node calls it on the JavaScript thread, or with a null `env` while it empties the
/// threadsafe function of an ended environment.
unsafe extern "C" fn drain(env: sys::napi_env, _function: sys::napi_value, context: *mut c_void, _data: *mut c_void) {
    if env.is_null() {
        return;
    }
    // SAFETY: with a live `env` the function is not finalized, so its count keeps the queue alive, and `finalize`
    // cannot run before this returns, because it runs on the same thread.
    let queue = unsafe { &*context.cast_const().cast::<SettleQueue>() };
    let env = Env::from_raw(env);
    let waiting = {
        let mut state = queue.lock();
        // Before the results are settled: what comes later wakes the thread again.
        state.woken = false;
        std::mem::take(&mut state.waiting)
    };
    let count = waiting.iter().filter(|one| one.keeps_alive).count();
    for one in waiting {
        if !can_run_js(&env) {
            // A worker that is being terminated: its promises stay as they are. To touch them could swallow the termination.
            continue;
        }
        conclude(&env, one);
    }
    queue.settled(&env, count);
}

/// Tells whether JavaScript may still run in `env`: not in a worker that is being terminated.
fn can_run_js(env: &Env) -> bool {
    let (mut undefined, mut converted) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `env` is live and this is its thread; both results are live locals. Of all that asks Node first whether
    // JavaScript may run, this conversion does the least.
    unsafe {
        sys::napi_get_undefined(env.raw(), &mut undefined) == sys::Status::napi_ok
            && sys::napi_coerce_to_bool(env.raw(), undefined, &mut converted) == sys::Status::napi_ok
    }
}

/// Resolves or rejects one promise. Does not unwind.
fn conclude(env: &Env, Waiting { deferred: Deferred(deferred), finish, .. }: Waiting) {
    let mut scope = ptr::null_mut();
    // SAFETY: `env` is live and this is its thread; `scope` is a live local, closed below on the only way out.
    let opened = unsafe { sys::napi_open_handle_scope(env.raw(), &mut scope) } == sys::Status::napi_ok;
    match failure::guard(|| finish(env)) {
        Ok(value) => {
            // SAFETY: `deferred` comes from this environment and is used once, here or below; `value` is of this scope.
            unsafe { sys::napi_resolve_deferred(env.raw(), deferred, value) };
        }
        Err(failure) => {
            let mut ignored = ptr::null_mut();
            // A conversion that failed may have left an exception, with which no object could be made.
            // SAFETY: as above; the result is a live local.
            unsafe { sys::napi_get_and_clear_last_exception(env.raw(), &mut ignored) };
            // No object can be made when the worker is being terminated; then nobody is left to be told.
            if let Ok(object) = failure::to_object(env, &failure) {
                // SAFETY: as above.
                unsafe { sys::napi_reject_deferred(env.raw(), deferred, object.raw()) };
            }
        }
    }
    if opened {
        // SAFETY: opened above; no handle of it is used any more.
        unsafe { sys::napi_close_handle_scope(env.raw(), scope) };
    }
}

/// Returns the count of the queue that belongs to the threadsafe function. Node calls it once, at the end of the function.
unsafe extern "C" fn finalize(_env: sys::napi_env, context: *mut c_void, _hint: *mut c_void) {
    // SAFETY: `context` is the pointer of `Arc::into_raw` in `open`, and this is its one conversion back.
    let queue = unsafe { Arc::from_raw(context.cast_const().cast::<SettleQueue>()) };
    // `close` came first where hooks run in Node's order; elsewhere nobody may use the function from here on.
    let waiting = {
        let mut state = queue.lock();
        state.wake = None;
        std::mem::take(&mut state.waiting)
    };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(waiting)));
}
