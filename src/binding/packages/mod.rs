//! The packages module for the facade.
//!
//! Manifests, options and results cross as JSON text, blobs as bytes. A blob is copied as it comes in: the caller may change its
//! buffer while the work runs, and what was verified must be what is unpacked.

mod blobs;
mod pure;
mod store;

use std::sync::Arc;

use serde::Deserialize;

use super::cancel::{Cancel, CancelToken};
use crate::error::{Code, HfError, Result};
use crate::packages::archive::Limits;
use crate::packages::store::retire::Now;

/// Bounds of archives, as the facade names them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LimitsIn {
    max_entries: Option<f64>,
    max_total_bytes: Option<f64>,
    max_entry_bytes: Option<f64>,
    max_path_bytes: Option<f64>,
    max_depth: Option<f64>,
}

impl LimitsIn {
    fn limits(self) -> Limits {
        let usual = Limits::default();
        // The facade checks that they are positive; a double that is too large means "no bound".
        let or = |given: Option<f64>, usual: u64| given.map_or(usual, |given| given as u64);
        Limits {
            max_entries: or(self.max_entries, usual.max_entries),
            max_total_bytes: or(self.max_total_bytes, usual.max_total_bytes),
            max_entry_bytes: or(self.max_entry_bytes, usual.max_entry_bytes),
            max_path_bytes: or(self.max_path_bytes, usual.max_path_bytes),
            max_depth: or(self.max_depth, usual.max_depth),
        }
    }
}

/// What the work shares with a caller's signal.
fn shared(token: Option<&CancelToken>) -> Arc<Cancel> {
    token.map_or_else(Arc::default, CancelToken::shared)
}

/// Fails once the caller has aborted; the facade throws the signal's reason instead.
fn check(cancel: &Cancel) -> Result<()> {
    if cancel.is_cancelled() { Err(HfError::new(Code::Busy, "the caller aborted the call")) } else { Ok(()) }
}

fn now(given: Option<f64>) -> Now {
    given.map_or(Now::Clock, Now::Given)
}

fn text_of<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| HfError::new(Code::Panic, format!("a result has no text: {error}")))
}
