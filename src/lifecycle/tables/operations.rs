//! The table `session_operation`: what is under way with a session, and whose it is.

use serde::Serialize;

use super::{first, list};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::model::{Activity, Millis};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;

/// Something that is under way with a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Its name.
    pub token: String,
    /// The session.
    pub session_id: String,
    /// `spawn`, `kill`, `restore`, `cleanup` or `stop`.
    pub kind: String,
    /// The last step that was told of; empty before the first.
    pub step: String,
    /// The store that does it.
    #[serde(skip)]
    pub owner: String,
}

fn read(row: &dyn Row) -> Result<Operation> {
    Ok(Operation {
        token: row.text(0)?.to_owned(),
        session_id: row.text(1)?.to_owned(),
        kind: row.text(2)?.to_owned(),
        step: row.text(3)?.to_owned(),
        owner: row.text(4)?.to_owned(),
    })
}

/// What is under way with a session.
///
/// # Errors
/// What the database says.
pub fn of(sql: &mut dyn Sql, session_id: &str) -> Result<Vec<Operation>> {
    list(
        sql,
        "read the operations of a session",
        "SELECT id, session_id, kind, step, owner FROM session_operation WHERE session_id = ?1 ORDER BY started_at, id",
        &[Value::Text(session_id)],
        read,
    )
}

/// Everything under way that is not `owner`'s, oldest first.
///
/// # Errors
/// What the database says.
pub fn of_others(sql: &mut dyn Sql, owner: &str) -> Result<Vec<Operation>> {
    list(
        sql,
        "read the operations of others",
        "SELECT id, session_id, kind, step, owner FROM session_operation WHERE owner <> ?1 ORDER BY started_at, id",
        &[Value::Text(owner)],
        read,
    )
}

/// One of `owner`'s.
///
/// # Errors
/// What the database says.
pub fn get(sql: &mut dyn Sql, token: &str, owner: &str) -> Result<Option<Operation>> {
    first(
        sql,
        "read an operation",
        "SELECT id, session_id, kind, step, owner FROM session_operation WHERE id = ?1 AND owner = ?2",
        &[Value::Text(token), Value::Text(owner)],
        read,
    )
}

/// Notes that one begins.
///
/// # Errors
/// What the database says; a session that is not there is a broken constraint.
pub fn insert(sql: &mut dyn Sql, operation: &Operation, now: Millis) -> Result<()> {
    let now = time::text(now)?;
    sql.run(
        "begin an operation",
        "INSERT INTO session_operation (id, session_id, kind, step, owner, started_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        &[
            Value::Text(&operation.token),
            Value::Text(&operation.session_id),
            Value::Text(&operation.kind),
            Value::Text(&operation.step),
            Value::Text(&operation.owner),
            Value::Text(&now),
        ],
    )?;
    Ok(())
}

/// Notes a step of one of `owner`'s, and which start of the runtime it is at, if it comes to one; tells whether there is such a one.
///
/// # Errors
/// What the database says.
pub fn advance(
    sql: &mut dyn Sql,
    token: &str,
    owner: &str,
    step: &str,
    launch_id: Option<&str>,
    now: Millis,
) -> Result<bool> {
    let now = time::text(now)?;
    let changed = sql.run(
        "advance an operation",
        "UPDATE session_operation SET step = ?3, launch_id = COALESCE(?4, launch_id), updated_at = ?5 \
         WHERE id = ?1 AND owner = ?2",
        &[Value::Text(token), Value::Text(owner), Value::Text(step), Value::OptText(launch_id), Value::Text(&now)],
    )?;
    Ok(changed > 0)
}

/// What an agent does that is heard before the restore that starts it is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early(pub Option<Activity>);

/// What was heard of a start that is under way with a session; `None` if no such start is.
///
/// # Errors
/// What the database says, and `HF_CORRUPT`.
pub fn early(sql: &mut dyn Sql, session_id: &str, launch_id: &str) -> Result<Option<Early>> {
    first(
        sql,
        "read a start that is under way",
        "SELECT early_activity FROM session_operation WHERE session_id = ?1 AND launch_id = ?2",
        &[Value::Text(session_id), Value::Text(launch_id)],
        |row| {
            let text = row.opt_text(0)?;
            let heard = text.map(serde_json::from_str).transpose();
            heard
                .map(Early)
                .map_err(|_| HfError::new(Code::Corrupt, "a stored activity cannot be read; restore a backup"))
        },
    )
}

/// Notes what was heard of a start that is under way.
///
/// # Errors
/// What the database says.
pub fn set_early(sql: &mut dyn Sql, session_id: &str, launch_id: &str, heard: &Activity) -> Result<()> {
    let text = serde_json::to_string(heard).map_err(|error| HfError::new(Code::Panic, error.to_string()))?;
    sql.run(
        "note what was heard of a start",
        "UPDATE session_operation SET early_activity = ?3 WHERE session_id = ?1 AND launch_id = ?2",
        &[Value::Text(session_id), Value::Text(launch_id), Value::Text(&text)],
    )?;
    Ok(())
}

/// Makes one of `from`'s that of `to`; tells whether it still was there.
///
/// # Errors
/// What the database says.
pub fn take_over(sql: &mut dyn Sql, token: &str, from: &str, to: &str, now: Millis) -> Result<bool> {
    let now = time::text(now)?;
    let changed = sql.run(
        "take over an operation",
        "UPDATE session_operation SET owner = ?3, updated_at = ?4 WHERE id = ?1 AND owner = ?2",
        &[Value::Text(token), Value::Text(from), Value::Text(to), Value::Text(&now)],
    )?;
    Ok(changed > 0)
}

/// Notes that one is over.
///
/// # Errors
/// What the database says.
pub fn delete(sql: &mut dyn Sql, token: &str) -> Result<()> {
    sql.run("end an operation", "DELETE FROM session_operation WHERE id = ?1", &[Value::Text(token)])?;
    Ok(())
}
