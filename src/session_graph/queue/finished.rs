//! Batches that are over: remembered only where somebody asked for it, and only for a while.

use super::batch::Batch;
use super::rows::{Stored, columns};
use crate::error::Result;
use crate::json;
use crate::session_graph::sql::{Row, Sql, Value, first};

/// Memories that each new one clears away, if they are old enough: so their number stays bounded without a sweep.
const CLEARED_MAX: i64 = 8;
/// Times beyond it are no safe integers of JavaScript.
const TIME_MAX: i64 = (1 << 53) - 1;

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Completed,
    Cancelled,
}

impl Outcome {
    fn stored(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Remembers how a batch ended, and clears away some of what is not to be remembered any more.
pub(super) fn remember(sql: &mut dyn Sql, batch: &Batch, outcome: Outcome, retain_ms: i64, now: i64) -> Result<()> {
    let text = Batch { items: Vec::new(), ..batch.clone() }.text();
    sql.post(
        "remember a batch",
        "INSERT INTO queued_work_finished
         (batch_id, session_id, source_key, outcome, attempts, finished_at_ms, expires_at_ms, batch_json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        &[
            Value::Text(&batch.id),
            Value::Text(&batch.session_id),
            Value::OptText(batch.source_key.as_deref()),
            Value::Text(outcome.stored()),
            Value::Int(batch.attempts),
            Value::Int(now),
            Value::Int(now.saturating_add(retain_ms).min(TIME_MAX)),
            Value::Text(&text),
        ],
    )?;
    let statement = forgetting(sql);
    sql.post("forget batches", statement, &[Value::Int(now), Value::Int(CLEARED_MAX)])
}

/// The statement that clears away. Many may do that at once in PostgreSQL: they leave each other's rows alone.
fn forgetting(sql: &dyn Sql) -> &'static str {
    if sql.is_embedded() {
        "DELETE FROM queued_work_finished WHERE batch_id IN
         (SELECT batch_id FROM queued_work_finished WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2)"
    } else {
        "DELETE FROM queued_work_finished WHERE batch_id = ANY (ARRAY
         (SELECT batch_id FROM queued_work_finished WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2
          FOR UPDATE SKIP LOCKED))"
    }
}

/// Clears away at most `limit` of what is not to be remembered any more; tells how many.
pub(crate) fn clear(sql: &mut dyn Sql, now: i64, limit: i64) -> Result<u64> {
    let statement = forgetting(sql);
    sql.run("forget batches", statement, &[Value::Int(now), Value::Int(limit)])
}

/// The batch of a source key whose end is remembered, as JSON.
pub(super) fn by_key(sql: &mut dyn Sql, session: &str, key: &str, now: i64) -> Result<Option<String>> {
    first(
        sql,
        "look for a source key",
        "SELECT batch_json, outcome, finished_at_ms FROM queued_work_finished
         WHERE session_id = ?1 AND source_key = ?2 AND expires_at_ms > ?3 ORDER BY expires_at_ms DESC LIMIT 1",
        &[Value::Text(session), Value::Text(key), Value::Int(now)],
        |row| ended(row, 0),
    )
}

/// A batch that was cancelled, as JSON, or when one was completed.
pub(super) enum Ended {
    Cancelled(String),
    Completed(i64),
}

/// How a batch ended, if that is remembered.
pub(super) fn by_id(sql: &mut dyn Sql, session: &str, id: &str, now: i64) -> Result<Option<Ended>> {
    first(
        sql,
        "look for a batch",
        "SELECT batch_json, outcome, finished_at_ms FROM queued_work_finished
         WHERE session_id = ?1 AND batch_id = ?2 AND expires_at_ms > ?3",
        &[Value::Text(session), Value::Text(id), Value::Int(now)],
        |row| {
            let is_cancelled = row.text(1)? == Outcome::Cancelled.stored();
            Ok(if is_cancelled { Ended::Cancelled(ended(row, 0)?) } else { Ended::Completed(row.int(2)?) })
        },
    )
}

/// A batch that is over, as JSON: `batch_json`, `outcome` and `finished_at_ms`, from the column `first` on.
pub(super) fn ended(row: &dyn Row, first: usize) -> Result<String> {
    let batch = row.text(first)?;
    let batch = batch.strip_suffix('}').unwrap_or(batch);
    Ok(format!(
        "{batch},\"finished\":{{\"outcome\":{},\"atEpochMs\":{}}}}}",
        json::quote(row.text(first + 1)?),
        row.int(first + 2)?
    ))
}

/// What is known of a batch, as JSON.
pub(crate) fn state(sql: &mut dyn Sql, session: &str, id: &str) -> Result<String> {
    let now = sql.now()?;
    let stored = first(
        sql,
        "look for a batch",
        concat!("SELECT ", columns!(), " FROM queued_work_batches WHERE session_id = ?1 AND batch_id = ?2"),
        &[Value::Text(session), Value::Text(id)],
        |row| Ok((Stored::read(row)?, row.int(14)?, row.int(7)?)),
    )?;
    if let Some((stored, attempts, available)) = stored {
        let owner = stored.owner.as_deref().map_or_else(|| "null".to_owned(), json::quote);
        return Ok(if stored.is_live(now) {
            format!(
                "{{\"state\":\"claimed\",\"attempts\":{attempts},\"ownerId\":{owner},\"claimedAtEpochMs\":{},\
                 \"expiresAtEpochMs\":{}}}",
                stored.claimed_at_ms, stored.expires_at_ms
            )
        } else if stored.is_last {
            format!("{{\"state\":\"dead\",\"attempts\":{attempts}}}")
        } else {
            format!("{{\"state\":\"waiting\",\"attempts\":{attempts},\"availableAtMs\":{available}}}")
        });
    }
    let over = first(
        sql,
        "look for a batch",
        "SELECT outcome, attempts, finished_at_ms, expires_at_ms FROM queued_work_finished
         WHERE session_id = ?1 AND batch_id = ?2 AND expires_at_ms > ?3",
        &[Value::Text(session), Value::Text(id), Value::Int(now)],
        |row| {
            let (outcome, attempts, at, until) = (json::quote(row.text(0)?), row.int(1)?, row.int(2)?, row.int(3)?);
            Ok(format!(
                "{{\"state\":{outcome},\"attempts\":{attempts},\"finishedAtEpochMs\":{at},\"rememberedUntilEpochMs\":{until}}}"
            ))
        },
    )?;
    Ok(over.unwrap_or_else(|| "{\"state\":\"notFound\"}".to_owned()))
}
