//! Dead letters: batches whose last claim ended without a commit. They wait for somebody who looks after them.

use serde::Deserialize;

use super::rows::{Stored, columns, fill};
use crate::error::Result;
use crate::json;
use crate::session_graph::error::queue_corrupt;
use crate::session_graph::sql::{Sql, Value, all, first};

/// All dead letters of a session in their order, as a JSON array.
pub(crate) fn dead_letters(sql: &mut dyn Sql, session: &str) -> Result<String> {
    let now = sql.now()?;
    let last = all(
        sql,
        "list dead letters",
        concat!(
            "SELECT ",
            columns!(),
            " FROM queued_work_batches WHERE session_id = ?1 AND last_attempt = 1 ORDER BY enqueue_seq"
        ),
        &[Value::Text(session)],
        Stored::read,
    )?;
    let mut letters = Vec::new();
    for mut stored in last.into_iter().filter(|stored| stored.is_dead(now)) {
        fill(sql, &mut stored)?;
        letters.push(letter(&stored)?);
    }
    Ok(format!("[{}]", letters.join(",")))
}

fn letter(stored: &Stored) -> Result<String> {
    let batch = stored.batch.as_ref().map_err(|why| queue_corrupt(&stored.id, why))?;
    // Of a claim that was given back nothing is left.
    let owner = stored.owner.as_deref().map_or_else(|| "null".to_owned(), json::quote);
    let claimed = stored.owner.as_ref().map_or_else(|| "null".to_owned(), |_| stored.claimed_at_ms.to_string());
    Ok(format!("{{\"batch\":{},\"ownerId\":{owner},\"claimedAtEpochMs\":{claimed}}}", batch.text()))
}

/// Which dead letter gets another chance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Requeue {
    session_id: String,
    batch_id: String,
    /// Not before that time; `None` = as before.
    available_at_ms: Option<i64>,
}

/// Lets a dead letter wait again, at its old place, as if it had never been claimed. Returns it as JSON, `null` if there is none.
pub(crate) fn requeue(sql: &mut dyn Sql, requeue: &Requeue) -> Result<String> {
    let Requeue { session_id, batch_id, available_at_ms } = requeue;
    let now = sql.now()?;
    let freed = first(
        sql,
        "requeue a batch",
        concat!(
            "UPDATE queued_work_batches SET attempts = 0, last_attempt = 0, claim_id = NULL, claim_owner_id = NULL,
             claim_token = NULL, claim_fencing_token = 0, claim_claimed_at_ms = 0, claim_expires_at_ms = 0,
             available_at_ms = COALESCE(?3, available_at_ms)
             WHERE session_id = ?1 AND batch_id = ?2 AND last_attempt = 1
               AND (claim_token IS NULL OR claim_expires_at_ms <= ?4)
             RETURNING ",
            columns!()
        ),
        &[Value::Text(session_id), Value::Text(batch_id), Value::OptInt(*available_at_ms), Value::Int(now)],
        Stored::read,
    )?;
    let Some(mut stored) = freed else { return Ok("null".to_owned()) };
    fill(sql, &mut stored)?;
    match stored.batch {
        Ok(batch) => Ok(batch.text()),
        Err(why) => Err(queue_corrupt(&stored.id, &why)),
    }
}
