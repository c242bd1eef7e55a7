//! The log of changes.

use super::{first, list, number};
use crate::error::{Code, HfError, Result};
use crate::json;
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;

/// Changes that are read when nobody says how many.
pub const LIMIT: i64 = 512;

/// Returns the changes after `after`, oldest first, at most `limit`, as the text of a JSON array.
///
/// # Errors
/// `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED` where some of them are no longer kept. As [`Sql::rows`].
pub fn after(sql: &mut dyn Sql, after: i64, limit: i64, project_id: Option<&str>) -> Result<String> {
    if after > 0 {
        kept(sql, after, None)?;
    }
    text(sql, after, limit, project_id)
}

/// Checks that all changes after `after` are still there; `consumer` is whose place it is.
///
/// # Errors
/// `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`
pub fn kept(sql: &mut dyn Sql, after: i64, consumer: Option<&str>) -> Result<()> {
    let floor = floor(sql)?;
    if after >= floor {
        return Ok(());
    }
    let oldest = oldest(sql)?;
    let whose = consumer.map_or_else(String::new, |name| format!("consumer \"{name}\": "));
    let error = HfError::new(
        Code::LifecycleChangeLogTruncated,
        format!(
            "{whose}the changes {} to {floor} are no longer kept (the oldest is {oldest}); read the current state, then go on \
             after {floor}",
            after + 1
        ),
    )
    .with_field("after", after)
    .with_field("oldestSeq", oldest)
    .with_field("lostFrom", after + 1)
    .with_field("lostTo", floor);
    Err(match consumer {
        Some(name) => error.with_field("consumer", name),
        None => error,
    })
}

/// Returns the highest number that was ever given to a change; 0 if there was none.
///
/// # Errors
/// As [`Sql::rows`].
pub fn head(sql: &mut dyn Sql) -> Result<i64> {
    let newest = number(sql, "read the head of the change log", "SELECT max(seq) FROM change_log", &[])?;
    if newest > 0 { Ok(newest) } else { floor(sql) }
}

/// Returns the number of the oldest change that is still there; 0 if there is none.
///
/// # Errors
/// As [`Sql::rows`].
pub fn oldest(sql: &mut dyn Sql) -> Result<i64> {
    number(sql, "read the oldest change", "SELECT min(seq) FROM change_log", &[])
}

/// Returns the number of the newest change that retention removed; 0 if there is none.
///
/// # Errors
/// As [`Sql::rows`].
pub fn floor(sql: &mut dyn Sql) -> Result<i64> {
    let text = "SELECT pruned_seq FROM change_log_floor WHERE id = 1";
    Ok(first(sql, "read what was removed of the change log", text, &[], |row| row.int(0))?.unwrap_or(0))
}

/// Returns all that is kept of one session, oldest first: the number of each change, and its text. Reads the log of its project.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of_session(sql: &mut dyn Sql, project_id: &str, session_id: &str) -> Result<Vec<(i64, String)>> {
    list(
        sql,
        "read the changes of a session",
        "SELECT seq, project_id, session_id, event_type, payload, created_at FROM change_log \
         WHERE project_id = ?1 AND session_id = ?2 ORDER BY seq",
        &[Value::Text(project_id), Value::Text(session_id)],
        |row| {
            let mut text = String::new();
            add(&mut text, row)?;
            Ok((row.int(0)?, text))
        },
    )
}

fn text(sql: &mut dyn Sql, after: i64, limit: i64, project_id: Option<&str>) -> Result<String> {
    const DOING: &str = "read the change log";
    let mut out = Text::new();
    match project_id {
        None => sql.rows(
            DOING,
            "SELECT seq, project_id, session_id, event_type, payload, created_at FROM change_log WHERE seq > ?1 \
             ORDER BY seq LIMIT ?2",
            &[Value::Int(after), Value::Int(limit)],
            &mut |row| out.add(row),
        )?,
        Some(project) => sql.rows(
            DOING,
            "SELECT seq, project_id, session_id, event_type, payload, created_at FROM change_log \
             WHERE project_id = ?3 AND seq > ?1 ORDER BY seq LIMIT ?2",
            &[Value::Int(after), Value::Int(limit), Value::Text(project)],
            &mut |row| out.add(row),
        )?,
    }
    Ok(out.end())
}

/// A JSON array, one element per line, written by hand: the payload is JSON already, and rows come by the hundred thousand.
struct Text(String);

impl Text {
    fn new() -> Self {
        Self("[".to_owned())
    }

    fn add(&mut self, row: &dyn Row) -> Result<()> {
        if self.0.len() > 1 {
            self.0.push_str(",\n");
        }
        add(&mut self.0, row)
    }

    fn end(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

fn add(out: &mut String, row: &dyn Row) -> Result<()> {
    out.push_str("{\"seq\":");
    integer(out, row.int(0)?);
    out.push_str(",\"projectId\":");
    json::quote_into(row.text(1)?, out);
    out.push_str(",\"sessionId\":");
    match row.opt_text(2)? {
        Some(session) => json::quote_into(session, out),
        None => out.push_str("null"),
    }
    out.push_str(",\"type\":");
    json::quote_into(row.text(3)?, out);
    out.push_str(",\"payload\":");
    out.push_str(row.text(4)?);
    out.push_str(",\"createdAt\":");
    integer(out, time::millis(row.text(5)?)?);
    out.push('}');
    Ok(())
}

fn integer(out: &mut String, value: i64) {
    use std::fmt::Write as _;
    // Writing to a text cannot fail.
    let _ = write!(out, "{value}");
}
