//! The Node-API binding: converts arguments, starts the work, hands back the outcome. Nothing below this folder knows
//! Node.
//!
//! The rules that keep it safe:
//! - No `async fn`, and above all none with `&self`: a worker that ends with such a call in flight frees the object
//!   under the running future. An export is a plain `fn` that clones what the work needs and calls [`settle::run`].
//! - Every body runs inside [`settle::run`] or [`failure::sync`], which turn failures and panics into failure objects.
//! - What must not outlive its environment (lock guards) is kept by [`resources`].
#![expect(
    unsafe_code,
    reason = "Node-API is a C interface, and the #[napi] macros expand to unsafe code; what is hand-written is in settle.rs, and trait methods of results in resources.rs and durable.rs"
)]
#![cfg_attr(
    test,
    allow(dead_code, reason = "exports are registered in the addon only, so a test build sees no caller")
)]

mod cancel;
mod durable;
mod entity;
mod entity_questions;
mod environment;
mod failure;
mod lifecycle;
mod packages;
mod resources;
mod runtime_store;
mod session_graph;
mod session_graph_side;
mod settle;

use napi::bindgen_prelude::Object;
use napi_derive::napi;

use crate::error::Code;

/// Runs once per environment that loads the addon.
#[napi(module_exports)]
pub fn start(_exports: Object) -> napi::Result<()> {
    // Threads of the pool outlive the worker that started them. If that worker alone had loaded the addon, Node would
    // unmap their code when it ends.
    napi::bindgen_prelude::retain_current_module_for_unload_safety();
    Ok(())
}

/// Returns every stable error code (`HF_…`), in the order of their declaration.
#[napi(catch_unwind)]
pub fn error_codes() -> Vec<&'static str> {
    Code::ALL.iter().map(|code| code.as_str()).collect()
}

/// Returns the version of the addon, which must equal the version of the package that loads it.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
