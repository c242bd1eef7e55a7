//! Handles: which session may deal with which process.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{not_granted, unknown};
use super::record::Process;
use super::scope::{Scope, stored_members};
use crate::error::Result;
use crate::json;
use crate::session_graph::command::arguments;
use crate::session_graph::error::row_damaged;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

#[derive(Deserialize)]
struct Grant<'a> {
    scope: Scope,
    id: String,
    #[serde(borrow)]
    descriptor: &'a RawValue,
}

#[derive(Deserialize)]
struct Held {
    scope: Scope,
    id: String,
}

#[derive(Deserialize)]
struct Transfer {
    from: Scope,
    to: Scope,
    ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    scope: Scope,
    live_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfSession {
    session_id: String,
}

#[derive(Deserialize)]
struct OfProcess {
    id: String,
}

/// As the facade returns it.
fn text(session: &str, scope_id: &str, process: &str, descriptor: &str) -> Result<String> {
    let damaged =
        |_| row_damaged("process_handle_grants", &format!("{scope_id}, {process}"), "its descriptor is no JSON");
    json::validate(descriptor.as_bytes()).map_err(damaged)?;
    let scope = stored_members(session, scope_id);
    Ok(format!("{{{scope},\"processId\":{},\"descriptor\":{descriptor}}}", json::quote(process)))
}

fn put(sql: &mut dyn Sql, scope: &Scope, scope_id: &str, process: &str, descriptor: &str) -> Result<()> {
    sql.run(
        "grant a handle",
        "INSERT INTO process_handle_grants (scope_id, process_id, session_id, descriptor_json) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (scope_id, process_id) DO UPDATE SET descriptor_json = excluded.descriptor_json",
        &[Value::Text(scope_id), Value::Text(process), Value::Text(&scope.session_id), Value::Text(descriptor)],
    )
    .map(drop)
}

fn remove(sql: &mut dyn Sql, scope_id: &str, process: &str) -> Result<u64> {
    sql.run(
        "revoke a handle",
        "DELETE FROM process_handle_grants WHERE scope_id = ?1 AND process_id = ?2",
        &[Value::Text(scope_id), Value::Text(process)],
    )
}

fn descriptor_of(sql: &mut dyn Sql, scope_id: &str, process: &str) -> Result<Option<String>> {
    first(
        sql,
        "look for a handle",
        "SELECT descriptor_json FROM process_handle_grants WHERE scope_id = ?1 AND process_id = ?2",
        &[Value::Text(scope_id), Value::Text(process)],
        |row| row.string(0),
    )
}

/// Grants a handle, or describes it anew; returns it.
pub(super) fn grant(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Grant { scope, id, descriptor } = arguments(command, "grant")?;
    let scope_id = scope.id()?;
    if Process::find(sql, &id)?.is_none() {
        return Err(unknown(&id));
    }
    put(sql, &scope, &scope_id, &id, descriptor.get())?;
    text(&scope.session_id, &scope_id, &id, descriptor.get())
}

/// Takes a handle back; none is fine.
pub(super) fn revoke(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Held { scope, id } = arguments(command, "revoke")?;
    remove(sql, &scope.id()?, &id)?;
    Ok("null".to_owned())
}

/// Whether a handle is granted to exactly this scope.
pub(super) fn has(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Held { scope, id } = arguments(command, "hasGrant")?;
    Ok(descriptor_of(sql, &scope.id()?, &id)?.is_some().to_string())
}

/// Moves handles from a scope to another: all or, if one is not granted, none.
pub(super) fn transfer(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let Transfer { from, to, ids } = arguments(command, "transfer")?;
    let (from_id, to_id) = (from.id()?, to.id()?);
    for id in ids.iter().collect::<BTreeSet<_>>() {
        let descriptor = descriptor_of(sql, &from_id, id)?.ok_or_else(|| not_granted(id, &from.session_id))?;
        if from_id != to_id {
            remove(sql, &from_id, id)?;
            put(sql, &to, &to_id, id, &descriptor)?;
        }
    }
    Ok("null".to_owned())
}

fn shown(row: &dyn Row) -> Result<String> {
    text(row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?)
}

/// The handles of a process, by session, then scope, as a JSON array.
pub(super) fn of_process(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let OfProcess { id } = arguments(command, "grantsOfProcess")?;
    let grants = all(
        sql,
        "list handles",
        "SELECT session_id, scope_id, process_id, descriptor_json FROM process_handle_grants WHERE process_id = ?1
         ORDER BY session_id, scope_id",
        &[Value::Text(&id)],
        shown,
    )?;
    Ok(format!("[{}]", grants.join(",")))
}

/// The handles of a scope with their processes, by process, as a JSON array.
pub(super) fn list(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let List { scope, live_only } = arguments(command, "grants")?;
    let grants = all(
        sql,
        "list handles",
        "SELECT session_id, scope_id, process_id, descriptor_json FROM process_handle_grants WHERE scope_id = ?1
         ORDER BY process_id",
        &[Value::Text(&scope.id()?)],
        |row| Ok((row.string(2)?, shown(row)?)),
    )?;
    let mut entries = Vec::with_capacity(grants.len());
    for (id, grant) in grants {
        let process = Process::known(sql, &id)?;
        if !live_only || process.is_running() {
            entries.push(format!("{{\"grant\":{grant},\"record\":{}}}", process.text()?));
        }
    }
    Ok(format!("[{}]", entries.join(",")))
}

/// Takes all handles of a session back; says which running processes nobody holds any more, and which somebody still does.
pub(super) fn delete_session(sql: &mut dyn Sql, command: &str) -> Result<String> {
    let OfSession { session_id } = arguments(command, "deleteSession")?;
    let running = all(
        sql,
        "list handles",
        "SELECT DISTINCT process_id FROM process_handle_grants JOIN processes USING (process_id)
         WHERE session_id = ?1 AND status = 'running' ORDER BY process_id",
        &[Value::Text(&session_id)],
        |row| row.string(0),
    )?;
    let revoked = sql.run(
        "revoke handles",
        "DELETE FROM process_handle_grants WHERE session_id = ?1",
        &[Value::Text(&session_id)],
    )?;
    let (mut cancel, mut preserved) = (Vec::new(), Vec::new());
    for id in running {
        let left = first(
            sql,
            "look for a handle",
            "SELECT 1 FROM process_handle_grants WHERE process_id = ?1 LIMIT 1",
            &[Value::Text(&id)],
            |row| row.int(0),
        )?;
        if left.is_some() { &mut preserved } else { &mut cancel }.push(json::quote(&id));
    }
    Ok(format!(
        "{{\"sessionId\":{},\"revokedHandleCount\":{revoked},\"deletedWakeCount\":0,\"cancelProcessIds\":[{}],\
         \"preservedProcessIds\":[{}]}}",
        json::quote(&session_id),
        cancel.join(","),
        preserved.join(",")
    ))
}
