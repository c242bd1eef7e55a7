//! Work that is not to be done any more.

use serde::Deserialize;

use super::finished::{self, Ended, Outcome};
use super::rows::{Stored, columns, fill};
use crate::error::Result;
use crate::json;
use crate::session_graph::sql::{Sql, Value, first};

/// Which batch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cancel {
    session_id: String,
    batch_id: String,
    /// Says why nothing was cancelled, where nothing was.
    #[serde(default)]
    with_reason: bool,
    /// How long it is remembered; `None` = as long as its enqueuer asked for.
    retain_ms: Option<i64>,
}

/// Removes a batch that nobody holds and returns its JSON; `null` for all others, or with a reason an outcome. A damaged one comes back
/// without items.
pub(crate) fn cancel(sql: &mut dyn Sql, cancel: &Cancel) -> Result<String> {
    let Cancel { session_id, batch_id, with_reason, retain_ms } = cancel;
    let look = concat!("SELECT ", columns!(), " FROM queued_work_batches WHERE session_id = ?1 AND batch_id = ?2");
    let locking =
        concat!("SELECT ", columns!(), " FROM queued_work_batches WHERE session_id = ?1 AND batch_id = ?2 FOR UPDATE");
    let look = if sql.is_embedded() { look } else { locking };
    let values = [Value::Text(session_id), Value::Text(batch_id)];
    let found = first(sql, "look for a batch", look, &values, Stored::read)?;
    let now = sql.now()?;
    let mut stored = match found {
        Some(stored) if !stored.is_live(now) => stored,
        _ if !with_reason => return Ok("null".to_owned()),
        Some(held) => {
            let owner = held.owner.as_deref().map_or_else(|| "null".to_owned(), json::quote);
            let until = held.expires_at_ms;
            return Ok(format!("{{\"outcome\":\"claimed\",\"ownerId\":{owner},\"expiresAtEpochMs\":{until}}}"));
        }
        None => {
            return Ok(match finished::by_id(sql, session_id, batch_id, now)? {
                Some(Ended::Cancelled(batch)) => cancelled(&batch),
                Some(Ended::Completed(at)) => format!("{{\"outcome\":\"completed\",\"finishedAtEpochMs\":{at}}}"),
                None => "{\"outcome\":\"notFound\"}".to_owned(),
            });
        }
    };
    fill(sql, &mut stored)?;
    sql.post("cancel a batch", "DELETE FROM queued_work_batches WHERE batch_id = ?1", &[Value::Text(batch_id)])?;
    let retain_ms = retain_ms.or(stored.retain_ms);
    let batch = stored.or_remains(session_id);
    if let Some(retain_ms) = retain_ms {
        finished::remember(sql, &batch, Outcome::Cancelled, retain_ms, now)?;
    }
    Ok(if *with_reason { cancelled(&batch.text()) } else { batch.text() })
}

fn cancelled(batch: &str) -> String {
    format!("{{\"outcome\":\"cancelled\",\"batch\":{batch}}}")
}
