//! What only grows is cut back, where the host says so, and piece by piece.

use serde::Deserialize;

use super::queue;
use super::sql::{Row, Sql, Value, all, first};
use crate::error::Result;
use crate::json;

/// Rows that one transaction removes.
const SLICE: i64 = 1_000;

/// Turns that were committed longer ago: one slice.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Turns {
    older_than_ms: i64,
    /// Where the slice before ended: session and turn.
    after: Option<(String, String)>,
}

/// Forgets a slice of old turns. `{"removed":…,"next":…}`, where `next` is `null` at the end.
pub(crate) fn turns(sql: &mut dyn Sql, turns: &Turns) -> Result<String> {
    let before = sql.now()?.saturating_sub(turns.older_than_ms);
    let (session, turn) = turns.after.as_ref().map_or(("", ""), |(session, turn)| (session, turn));
    let looked_at = all(
        sql,
        "look for old turns",
        "SELECT session_id, turn_id, committed_at_ms FROM runtime_turn_commits WHERE (session_id, turn_id) > (?1, ?2)
         ORDER BY session_id, turn_id LIMIT ?3",
        &[Value::Text(session), Value::Text(turn), Value::Int(SLICE)],
        |row| Ok((row.string(0)?, row.string(1)?, row.int(2)?)),
    )?;
    let mut removed = 0;
    for (session, turn, _) in looked_at.iter().filter(|(_, _, at)| *at <= before) {
        let statement = "DELETE FROM runtime_turn_commits WHERE session_id = ?1 AND turn_id = ?2";
        removed += sql.run("forget a turn", statement, &[Value::Text(session), Value::Text(turn)])?;
    }
    let next = looked_at.last().filter(|_| looked_at.len() as i64 == SLICE);
    let next = next.map_or_else(
        || "null".to_owned(),
        |(session, turn, _)| format!("[{},{}]", json::quote(session), json::quote(turn)),
    );
    Ok(format!("{{\"removed\":{removed},\"next\":{next}}}"))
}

/// Sums up the entries of the ledger but the last `keep`: one is left of each source and model, at the place of its first one. Tells how
/// many rows fewer there are. The totals do not change.
pub(crate) fn fold_usage(sql: &mut dyn Sql, keep: i64) -> Result<i64> {
    let read = |row: &dyn Row| row.int(0);
    let last = first(
        sql,
        "fold usage",
        "SELECT seq FROM usage_deltas ORDER BY seq DESC LIMIT 1 OFFSET ?1",
        &[Value::Int(keep)],
        read,
    )?;
    let Some(last) = last else { return Ok(0) };
    let last = Value::Int(last);
    // What used nothing is not in the totals, so it must not be in the sums either.
    let sums = all(
        sql,
        "fold usage",
        "SELECT source, model, min(seq), CAST(sum(input_tokens) AS BIGINT), CAST(sum(output_tokens) AS BIGINT),
         CAST(sum(cached_input_tokens) AS BIGINT), CAST(sum(reasoning_tokens) AS BIGINT)
         FROM usage_deltas WHERE seq <= ?1 AND input_tokens + output_tokens + reasoning_tokens <> 0
         GROUP BY source, model",
        &[last],
        |row| {
            let numbers = [row.int(2)?, row.int(3)?, row.int(4)?, row.int(5)?, row.int(6)?];
            Ok((row.string(0)?, row.string(1)?, numbers))
        },
    )?;
    let removed = sql.run("fold usage", "DELETE FROM usage_deltas WHERE seq <= ?1", &[last])? as i64;
    for (source, model, [seq, input, output, cached, reasoning]) in &sums {
        sql.run(
            "fold usage",
            "INSERT INTO usage_deltas
             (seq, source, model, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &[
                Value::Int(*seq),
                Value::Text(source),
                Value::Text(model),
                Value::Int(*input),
                Value::Int(*output),
                Value::Int(*cached),
                Value::Int(*reasoning),
            ],
        )?;
    }
    Ok(removed - sums.len() as i64)
}

/// Forgets a slice of the batches that are over and not to be remembered any more; tells how many.
pub(crate) fn finished(sql: &mut dyn Sql) -> Result<u64> {
    let now = sql.now()?;
    queue::clear_finished(sql, now, SLICE)
}
