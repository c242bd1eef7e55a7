//! What effects came to, so that a run that is repeated does not repeat them.

use crate::error::Result;
use crate::session_graph::command::unknown;
use crate::session_graph::sql::Sql;
use crate::sqlite::Migration;

/// Marks the files of this kind: "HFEF".
pub(super) const APPLICATION_ID: i32 = 0x4846_4546;

/// The versions of the tables.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "effects",
    sql: include_str!("../../../../migrations/sqlite/session_graph/effects/0001_effects.sql"),
}];

/// Runs a command that may write.
pub(super) fn write(_sql: &mut dyn Sql, name: &str, _text: &str) -> Result<String> {
    Err(unknown(name))
}

/// Runs a command that only reads.
pub(super) fn read(_sql: &mut dyn Sql, name: &str, _text: &str) -> Result<String> {
    Err(unknown(name))
}
