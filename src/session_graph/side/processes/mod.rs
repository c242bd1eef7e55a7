//! Processes, their events, leases and handles.

mod error;
mod events;
mod grants;
mod leases;
mod output;
mod prune;
mod record;
mod schema;
mod scope;
mod selector;
mod types;
mod wakes;

use serde::Deserialize;

use self::record::Process;
use crate::error::Result;
use crate::session_graph::command::{arguments, unknown};
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

#[derive(Deserialize)]
struct ById {
    id: String,
}

/// Runs a command that may write.
pub(super) fn write(sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
    match name {
        "register" => record::register(sql, text),
        "setExternalRef" => record::set_external_ref(sql, text),
        "append" => events::append(sql, text),
        "complete" => events::complete(sql, text),
        "ackWake" => wakes::ack_wake(sql, text),
        "schema" => events::schema_of(sql, text),
        "grant" => grants::grant(sql, text),
        "revoke" => grants::revoke(sql, text),
        "transfer" => grants::transfer(sql, text),
        "deleteSession" => grants::delete_session(sql, text),
        "claimLease" => leases::claim(sql, text),
        "renewLease" => leases::renew(sql, text),
        "releaseLease" => leases::release(sql, text),
        "prune" => prune::prune(sql, text),
        other => Err(unknown(other)),
    }
}

/// Runs a command that only reads.
pub(super) fn read(sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
    match name {
        "process" => {
            let found = Process::find(sql, &arguments::<ById>(text, name)?.id)?;
            found.map_or_else(|| Ok("null".to_owned()), |process| process.text())
        }
        "running" => record::running(sql),
        "outcome" => {
            let process = Process::known(sql, &arguments::<ById>(text, name)?.id)?;
            // The text shows that the rest of it is sound, too.
            process.text()?;
            Ok(process.output.unwrap_or_else(|| "null".to_owned()))
        }
        "events" => events::after(sql, text, false),
        "wakes" => events::after(sql, text, true),
        "eventAfter" => events::of_type_after(sql, text),
        "hasGrant" => grants::has(sql, text),
        "grants" => grants::list(sql, text),
        "grantsOfProcess" => grants::of_process(sql, text),
        other => Err(unknown(other)),
    }
}
