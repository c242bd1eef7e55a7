//! What happened at the host, and which processes it starts.

use crate::error::Result;
use crate::session_graph::command::unknown;
use crate::session_graph::sql::Sql;
use crate::sqlite::Migration;

/// Marks the files of this kind: "HFEV".
pub(super) const APPLICATION_ID: i32 = 0x4846_4556;

/// The versions of the tables.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "host_events",
    sql: include_str!("../../../../migrations/sqlite/session_graph/host_events/0001_host_events.sql"),
}];

/// Runs a command that may write.
pub(super) fn write(_sql: &mut dyn Sql, name: &str, _text: &str) -> Result<String> {
    Err(unknown(name))
}

/// Runs a command that only reads.
pub(super) fn read(_sql: &mut dyn Sql, name: &str, _text: &str) -> Result<String> {
    Err(unknown(name))
}
