//! Turns that were committed, with what their commit answered.

use crate::error::Result;
use crate::session_graph::sql::{Sql, Value, first};

/// Returns hash and answer of a turn.
pub(crate) fn get(sql: &mut dyn Sql, session_id: &str, turn_id: &str) -> Result<Option<(String, String)>> {
    first(
        sql,
        "look for a turn",
        "SELECT turn_commit_hash, result_json FROM runtime_turn_commits WHERE session_id = ?1 AND turn_id = ?2",
        &[Value::Text(session_id), Value::Text(turn_id)],
        |row| Ok((row.string(0)?, row.string(1)?)),
    )
}

/// Records a turn.
pub(crate) fn put(
    sql: &mut dyn Sql,
    session_id: &str,
    turn_id: &str,
    hash: &str,
    result: &str,
    now: i64,
) -> Result<()> {
    sql.post(
        "record a turn",
        "INSERT INTO runtime_turn_commits (session_id, turn_id, turn_commit_hash, result_json, committed_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        &[Value::Text(session_id), Value::Text(turn_id), Value::Text(hash), Value::Text(result), Value::Int(now)],
    )
}
