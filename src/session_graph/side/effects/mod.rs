//! What a runtime did besides thinking (calls of a model, of a tool, a sleep), recorded under a key of its scope: the first who comes does
//! it, all others get its outcome.

mod error;
mod keeper;
mod message;
mod rows;
#[cfg(test)]
mod tests;

pub use keeper::{Ended, Keeper};

use crate::error::Result;
use crate::session_graph::command::{arguments, unknown};
use crate::session_graph::sql::Sql;
use crate::sqlite::Migration;

/// Marks the files of effects: "HFEF".
pub(super) const APPLICATION_ID: i32 = 0x4846_4546;

/// The versions of the tables.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "effects",
    sql: include_str!("../../../../migrations/sqlite/session_graph/effects/0001_effects.sql"),
}];

/// Runs a command that may write, in one transaction; returns JSON.
pub(super) fn write(sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
    match name {
        "claimEffect" => rows::claim(sql, &arguments(text, name)?),
        "renewEffect" => rows::renew(sql, &arguments(text, name)?),
        "completeEffect" => rows::complete(sql, &arguments(text, name)?),
        "failEffect" => rows::fail(sql, &arguments(text, name)?),
        "releaseEffect" => rows::release(sql, &arguments(text, name)?),
        "pruneEffects" => rows::prune(sql, &arguments(text, name)?),
        _ => Err(unknown(name)),
    }
}

/// Runs a command that only reads, on one snapshot; returns JSON.
pub(super) fn read(sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
    match name {
        "lookEffect" => rows::look(sql, &arguments(text, name)?),
        _ => Err(unknown(name)),
    }
}
