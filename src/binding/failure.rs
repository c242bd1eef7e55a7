//! Failures on their way to JavaScript: plain objects `{ class, code, hfCode, message, fields }`.
//!
//! The facade rethrows them as the public class from its own frame (`call` and `callSync` in `src-js/native.ts`), so
//! that the stack shows the caller. An error object made here would have a stack of one line.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use napi::bindgen_prelude::{Array, Null, Object};
use napi::{Env, JsValue, Status, Unknown};
use serde_json::Value;

use crate::error::{Code, HfError, Result};

/// Runs `job`; a panic becomes a failure with [`Code::Panic`].
pub(super) fn guard<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panicking job leaves half done is its own affair: engines poison what they cannot vouch for.
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| Err(panicked(payload.as_ref())))
}

/// Runs the body of a synchronous export: a failure or a panic is thrown as a failure object.
///
/// # Errors
/// After a failure: the returned error only tells napi that an exception is pending.
pub(super) fn sync<T>(env: &Env, job: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    guard(job).map_err(|failure| throw(env, &failure))
}

/// Makes the failure object.
///
/// # Errors
/// Where Node cannot make objects any more, because the environment is ending.
pub(super) fn to_object<'e>(env: &'e Env, failure: &HfError) -> napi::Result<Object<'e>> {
    let mut object = Object::new(env)?;
    let code = failure.code().as_str();
    object.set("class", failure.class().as_str())?;
    object.set("code", failure.node_code().unwrap_or(code))?;
    object.set("hfCode", code)?;
    object.set("message", failure.message())?;
    let mut fields = Object::new(env)?;
    for (name, value) in failure.fields() {
        fields.set(name, to_value(env, value)?)?;
    }
    object.set("fields", fields)?;
    Ok(object)
}

/// Throws the failure object and returns the error that makes napi leave it pending.
fn throw(env: &Env, failure: &HfError) -> napi::Error {
    match to_object(env, failure).and_then(|object| env.throw(object)) {
        Ok(()) => napi::Error::new(Status::PendingException, failure.message()),
        Err(ending) => ending,
    }
}

/// Converts a field. Fields are the engine's own, small and shallow, so the recursion is bounded.
fn to_value<'e>(env: &'e Env, value: &Value) -> napi::Result<Unknown<'e>> {
    use napi::bindgen_prelude::ToNapiValue;
    match value {
        Value::Null => Null.into_unknown(env),
        Value::Bool(flag) => flag.into_unknown(env),
        // Every integer that a field holds (sizes, pids, counts) fits a double.
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN).into_unknown(env),
        Value::String(text) => text.as_str().into_unknown(env),
        Value::Array(items) => {
            let mut array: Array = env.create_array(0)?;
            for item in items {
                array.insert(to_value(env, item)?)?;
            }
            Ok(array.to_unknown())
        }
        Value::Object(members) => {
            let mut object = Object::new(env)?;
            for (name, member) in members {
                object.set(name, to_value(env, member)?)?;
            }
            Ok(object.to_unknown())
        }
    }
}

fn panicked(payload: &(dyn Any + Send)) -> HfError {
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    HfError::new(
        Code::Panic,
        format!(
            "a bug in holdfast ended this call: {what}; please report it with this message and the line that starts with \
             \"thread\" on stderr. Reopen what the call used before you use it again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure_that_keeps_its_message() {
        for job in [|| -> Result<()> { panic!("plain") }, || -> Result<()> { panic!("pl{}", "ain") }] {
            let failure = guard(job).unwrap_err();
            assert_eq!(failure.code(), Code::Panic);
            assert!(failure.message().contains(": plain; "), "{failure}");
        }
        let failure = guard(|| -> Result<()> { std::panic::panic_any(7) }).unwrap_err();
        assert!(failure.message().contains("no message"));
    }

    #[test]
    fn results_and_failures_pass_unchanged() {
        assert_eq!(guard(|| Ok(1)).unwrap(), 1);
        let failure = guard(|| -> Result<()> { Err(HfError::new(Code::Busy, "in use")) }).unwrap_err();
        assert_eq!((failure.code(), failure.message()), (Code::Busy, "in use"));
    }
}
