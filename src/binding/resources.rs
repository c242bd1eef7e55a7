//! Values that JavaScript refers to by number and that must not outlive their environment: guards of file locks.
//!
//! A value is dropped when it is taken and dropped, or when its environment ends, whichever is first
//! (`environment.rs` has the order). A value that is still on its way (the worker ended while the lock was being
//! acquired) is dropped by the settle queue. So a guard that releases on drop is released in every case in which code of
//! the process still runs.
//!
//! Work that relies on a guard must own it: [`take`] it, move it into the job, and drop it there or hand it back as
//! [`Kept`]. A guard that stays here while the job writes would be released under the job when the worker is terminated.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use napi::bindgen_prelude::ToNapiValue;
use napi::{Env, sys};

use super::environment::Environment;

/// The kept values of one environment, by number.
#[derive(Default)]
pub(super) struct Shelf(RefCell<Slots>);

#[derive(Default)]
struct Slots {
    values: BTreeMap<u32, Box<dyn Any + Send>>,
    last: u32,
}

impl Shelf {
    /// Drops everything, newest first. One value whose drop panics does not keep the others.
    pub(super) fn clear(&self) {
        loop {
            // The borrow ends before the drop, which may come back here.
            let newest = self.0.borrow_mut().values.pop_last();
            let Some((_, value)) = newest else { return };
            let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Keeps `value` for `env` and returns its number, which [`take`] accepts once, in the same environment.
///
/// # Errors
/// Where the environment is ending; `value` is dropped then.
pub(super) fn keep<T: Send + 'static>(env: &Env, value: T) -> napi::Result<u32> {
    let environment = Environment::of(env)?;
    let mut slots = environment.shelf.0.borrow_mut();
    // Numbers come back after four billion; one that is in use is skipped.
    let mut number = slots.last.wrapping_add(1);
    while slots.values.contains_key(&number) {
        number = number.wrapping_add(1);
    }
    slots.last = number;
    slots.values.insert(number, Box::new(value));
    Ok(number)
}

/// Takes the value with `number` out of the care of `env`. `None` if it was taken before, or is not a `T`.
pub(super) fn take<T: 'static>(env: &Env, number: u32) -> Option<T> {
    let environment = Environment::of(env).ok()?;
    let mut slots = environment.shelf.0.borrow_mut();
    let value = slots.values.remove(&number)?;
    match value.downcast::<T>() {
        Ok(value) => Some(*value),
        Err(other) => {
            slots.values.insert(number, other);
            None
        }
    }
}

/// A result of [`settle::run`](super::settle::run) that stays on the Rust side: JavaScript gets its number.
///
/// Generated types cannot know that, so the export says `ts_return_type = "Promise<number>"`.
pub(super) struct Kept<T>(pub(super) T);

impl<T: Send + 'static> ToNapiValue for Kept<T> {
    // SAFETY: the contract is the trait's: `env` is a live environment on its own thread.
    unsafe fn to_napi_value(env: sys::napi_env, kept: Self) -> napi::Result<sys::napi_value> {
        let number = keep(&Env::from_raw(env), kept.0)?;
        // SAFETY: `env` is passed on unchanged.
        unsafe { u32::to_napi_value(env, number) }
    }
}
