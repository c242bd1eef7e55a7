//! What happens outside of a runtime, and the sessions that want a process started when it does: subscriptions, occurrences, and which of the
//! one were told of which of the other.

mod deliveries;
mod error;
mod occurrences;
mod subscriptions;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::json;
use crate::session_graph::command::{arguments, unknown};
use crate::session_graph::side::hash::canonical_hash;
use crate::session_graph::sql::Sql;
use crate::sqlite::Migration;

/// Marks the files of host events: "HFEV".
pub(super) const APPLICATION_ID: i32 = 0x4846_4556;

/// The versions of the tables.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "host_events",
    sql: include_str!("../../../../migrations/sqlite/session_graph/host_events/0001_host_events.sql"),
}];

/// Runs a command that may write, in one transaction; returns JSON.
pub(super) fn write(sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
    match name {
        "subscribe" => subscriptions::register(sql, &arguments(text, name)?),
        "unsubscribe" => subscriptions::cancel(sql, &arguments(text, name)?),
        "occur" => occurrences::record(sql, &arguments(text, name)?),
        "reserve" => deliveries::reserve(sql, &arguments(text, name)?),
        "started" => deliveries::started(sql, &arguments(text, name)?),
        "pruneOccurrences" => occurrences::prune(sql, &arguments(text, name)?),
        "pruneSubscriptions" => subscriptions::prune(sql, &arguments(text, name)?),
        _ => Err(unknown(name)),
    }
}

/// Runs a command that only reads, on one snapshot; returns JSON.
pub(super) fn read(sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
    match name {
        "subscriptions" => subscriptions::list(sql, &arguments(text, name)?),
        "unstarted" => deliveries::unstarted(sql),
        _ => Err(unknown(name)),
    }
}

/// The key of a source: its type, and a hash of all that it is. `source` is JSON.
///
/// # Errors
/// `HF_INVALID_ARGUMENT`: it is none.
pub fn source_key(source_type: &str, source: &str) -> Result<String> {
    let text = format!("[{},{source}]", json::quote(source_type));
    Ok(format!("source:{source_type}:{}", canonical_hash(&text)?))
}
