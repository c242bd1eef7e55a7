//! Processes, their events, leases and handles.

use crate::error::Result;
use crate::session_graph::command::unknown;
use crate::session_graph::sql::Sql;
use crate::sqlite::Migration;

/// Marks the files of this kind: "HFPR".
pub(super) const APPLICATION_ID: i32 = 0x4846_5052;

/// The versions of the tables.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "processes",
    sql: include_str!("../../../../migrations/sqlite/session_graph/processes/0001_processes.sql"),
}];

/// Runs a command that may write.
pub(super) fn write(_sql: &mut dyn Sql, name: &str, _text: &str) -> Result<String> {
    Err(unknown(name))
}

/// Runs a command that only reads.
pub(super) fn read(_sql: &mut dyn Sql, name: &str, _text: &str) -> Result<String> {
    Err(unknown(name))
}
