//! What is noted of a session beside its record: none of it counts as a write of that, and none is told in the change log.

use crate::error::Result;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::time;

/// Notes which start of its runtime counts from now on for the session of a spawn, which is `owner`'s. One that has ended gets the name of
/// a start when that has come up: one that fails leaves nothing behind.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_launch(sql: &mut dyn Sql, token: &str, owner: &str, launch_id: &str) -> Result<()> {
    sql.run(
        "note the launch of a session",
        "UPDATE sessions SET launch_id = ?3 \
         WHERE id = (SELECT session_id FROM session_operation WHERE id = ?1 AND owner = ?2 AND kind = 'spawn')",
        &[Value::Text(token), Value::Text(owner), Value::Text(launch_id)],
    )?;
    Ok(())
}

/// Notes that the runtime of a session has come up, by a start with a name perhaps. What is torn down at the next end is of this life.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_launched(sql: &mut dyn Sql, id: &str, launch_id: Option<&str>, at: Millis) -> Result<()> {
    let at = time::text(at)?;
    sql.run(
        "note the start of a session",
        "UPDATE sessions SET launched_at = ?2, launch_id = COALESCE(?3, launch_id), workspace_freed_at = NULL, \
         runtime_freed_at = NULL, stopped_at = NULL WHERE id = ?1",
        &[Value::Text(id), Value::Text(&at), Value::OptText(launch_id)],
    )?;
    Ok(())
}

/// Notes that the runtime of an ended session is gone; nothing of one that lives.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_runtime_freed(sql: &mut dyn Sql, id: &str, at: Millis) -> Result<()> {
    let at = time::text(at)?;
    sql.run(
        "note that a runtime is gone",
        "UPDATE sessions SET runtime_freed_at = ?2 \
         WHERE id = ?1 AND runtime_freed_at IS NULL AND session_state IN ('done', 'terminated')",
        &[Value::Text(id), Value::Text(&at)],
    )?;
    Ok(())
}

/// As [`set_runtime_freed`], of the session of an operation, which is `owner`'s.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_runtime_freed_by(sql: &mut dyn Sql, token: &str, owner: &str, at: Millis) -> Result<()> {
    let at = time::text(at)?;
    sql.run(
        "note that a runtime is gone",
        "UPDATE sessions SET runtime_freed_at = ?3 \
         WHERE id = (SELECT session_id FROM session_operation WHERE id = ?1 AND owner = ?2) \
         AND runtime_freed_at IS NULL AND session_state IN ('done', 'terminated')",
        &[Value::Text(token), Value::Text(owner), Value::Text(&at)],
    )?;
    Ok(())
}

/// Notes when a session was stopped in order to be resumed; `None` = it is not to be resumed.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_stopped(sql: &mut dyn Sql, id: &str, at: Option<Millis>) -> Result<()> {
    let at = time::opt_text(at)?;
    sql.run(
        "note that a session is stopped",
        "UPDATE sessions SET stopped_at = ?2 WHERE id = ?1",
        &[Value::Text(id), Value::OptText(at.as_deref())],
    )?;
    Ok(())
}

/// Notes when the workspace of a session was given back; tells whether that is new.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_workspace_freed(sql: &mut dyn Sql, id: &str, at: Option<Millis>) -> Result<bool> {
    let at = time::opt_text(at)?;
    let changed = sql.run(
        "note that a workspace is free",
        "UPDATE sessions SET workspace_freed_at = ?2 WHERE id = ?1 AND workspace_freed_at IS DISTINCT FROM ?2",
        &[Value::Text(id), Value::OptText(at.as_deref())],
    )?;
    Ok(changed > 0)
}

/// Notes the key that a session was made with.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_key(sql: &mut dyn Sql, project_id: &str, key: &str, session_id: &str) -> Result<()> {
    sql.run(
        "note the key of a session",
        "INSERT INTO session_key (project_id, key, session_id) VALUES (?1, ?2, ?3)",
        &[Value::Text(project_id), Value::Text(key), Value::Text(session_id)],
    )?;
    Ok(())
}
