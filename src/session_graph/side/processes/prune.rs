//! Forgetting processes that have ended.

use serde::Deserialize;

use crate::error::Result;
use crate::session_graph::command::arguments;
use crate::session_graph::sql::{Sql, Value};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prune {
    older_than_ms: i64,
    limit: i64,
}

/// Forgets processes that ended so long ago, and that nobody has a handle of or runs, with their events.
/// At most `limit`; returns how many.
pub(super) fn prune(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let prune: Prune = arguments(text, "prune")?;
    let now = sql.now()?;
    let removed = sql.run(
        "forget processes",
        "DELETE FROM processes WHERE process_id IN (
           SELECT p.process_id FROM processes p
           WHERE p.status <> 'running' AND p.updated_at_ms <= ?1
             AND NOT EXISTS (SELECT 1 FROM process_handle_grants g WHERE g.process_id = p.process_id)
             AND NOT EXISTS (SELECT 1 FROM process_leases l
               WHERE l.process_id = p.process_id AND l.lease_token IS NOT NULL AND l.expires_at_ms > ?2)
           LIMIT ?3)",
        &[Value::Int(now.saturating_sub(prune.older_than_ms)), Value::Int(now), Value::Int(prune.limit)],
    )?;
    Ok(removed.to_string())
}
