//! Questions to the log.

use rusqlite::{Connection, ToSql, params, params_from_iter};

use crate::entity::clock::micros;
use crate::entity::field_text::{other_keys_to_find, value_key};
use crate::entity::log::Question;
use crate::entity::model::{HistoryQuery, HistoryRow, Stats};
use crate::error::Result;
use crate::sqlite::sql_error;

/// Answers `inStateSince`.
pub fn in_state_since(db: &Connection, question: &Question, value: &str) -> Result<Option<i64>> {
    in_state_since_of(db, question, value).map_err(|error| sql_error("asking since when a field has its value", error))
}

fn in_state_since_of(db: &Connection, question: &Question, value: &str) -> rusqlite::Result<Option<i64>> {
    let Question { kind, entity_id, field } = question;
    let mut latest = db.prepare_cached(
        "SELECT to_key, masked, transitioned_at FROM entity_transitions \
         WHERE kind = ? AND entity_id = ? AND field = ? ORDER BY transitioned_at DESC LIMIT 1",
    )?;
    // Open until the end: both statements see the same commit.
    let mut rows = latest.query(params![kind, entity_id, field])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (key, masked, at) = (row.get_ref(0)?.as_blob()?, row.get(1)?, row.get(2)?);
    // Of a masked value the log knows only `****`: that the latest row led to it.
    let own = if masked { return Ok(Some(at)) } else { value_key(value) };
    if key == own {
        return Ok(Some(at));
    }
    let [plain, twin] = other_keys_to_find(value, own);
    if key == plain || key == twin {
        return Ok(Some(at));
    }
    // One by one: the end of a range in the index is found at once, a range to be searched is not.
    let twin = (twin != own).then_some(&twin[..]);
    db.prepare_cached(
        "SELECT max(at) FROM ( \
         SELECT max(transitioned_at) AS at FROM entity_transitions \
           WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 AND to_key = ?4 \
         UNION ALL SELECT max(transitioned_at) FROM entity_transitions \
           WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 AND to_key = ?5 \
         UNION ALL SELECT max(transitioned_at) FROM entity_transitions \
           WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 AND to_key = ?6)",
    )?
    .query_row(params![kind, entity_id, field, &own[..], &plain[..], twin], |row| row.get(0))
}

/// Answers `transitionCount`: a difference of two positions, however long the history.
pub fn transition_count(db: &Connection, question: &Question, since_us: i64) -> Result<i64> {
    let Question { kind, entity_id, field } = question;
    db.prepare_cached(
        "SELECT coalesce( \
           (SELECT ordinal FROM entity_transitions WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 \
              ORDER BY transitioned_at DESC LIMIT 1) \
         - (SELECT ordinal FROM entity_transitions WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 \
              AND transitioned_at >= ?4 ORDER BY transitioned_at LIMIT 1) + 1, 0)",
    )
    .and_then(|mut select| select.query_row(params![kind, entity_id, field, since_us], |row| row.get(0)))
    .map_err(|error| sql_error("counting transitions", error))
}

/// Reads a page of the history.
pub fn history(db: &Connection, query: &HistoryQuery) -> Result<Vec<HistoryRow>> {
    let (order, beyond) = if query.ascending { ("ASC", ">") } else { ("DESC", "<") };
    let mut sql = String::from(
        "SELECT change_id || '.' || position, field, from_value, to_value, masked, change_id, transitioned_at, seq \
         FROM entity_transitions \
         WHERE kind = ? AND entity_id = ?",
    );
    let (from, to) = (query.from_ms.map(micros), query.to_ms.map(micros));
    let mut values: Vec<&dyn ToSql> = vec![&query.kind, &query.entity_id];
    if let Some(field) = &query.field {
        sql.push_str(" AND field = ?");
        values.push(field);
    }
    if let Some(from) = &from {
        sql.push_str(" AND transitioned_at >= ?");
        values.push(from);
    }
    if let Some(to) = &to {
        sql.push_str(" AND transitioned_at < ?");
        values.push(to);
    }
    if let Some((at, seq)) = &query.after {
        sql.push_str(&format!(" AND (transitioned_at, seq) {beyond} (?, ?)"));
        values.push(at);
        values.push(seq);
    }
    sql.push_str(&format!(" ORDER BY transitioned_at {order}, seq {order} LIMIT ?"));
    values.push(&query.limit);
    db.prepare_cached(&sql)
        .and_then(|mut select| {
            select
                .query_map(params_from_iter(values), |row| {
                    Ok(HistoryRow {
                        id: row.get(0)?,
                        field: row.get(1)?,
                        from_value: row.get(2)?,
                        to_value: row.get(3)?,
                        masked: row.get(4)?,
                        change_id: row.get(5)?,
                        at_us: row.get(6)?,
                        seq: row.get(7)?,
                    })
                })?
                .collect()
        })
        .map_err(|error| sql_error("reading the history", error))
}

/// Counts what is waiting.
pub fn waiting(db: &Connection) -> Result<Stats> {
    db.query_row(
        "SELECT count(*), min(created_at), (SELECT count(*) FROM entity_intents) \
         FROM entity_changes INDEXED BY entity_changes_pending_idx WHERE delivered_at IS NULL",
        [],
        |row| {
            let count = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
            let oldest: Option<i64> = row.get(1)?;
            let oldest_undelivered_ms = oldest.map(|us| us as f64 / 1000.0);
            Ok(Stats { undelivered: count(0)?, intents: count(2)?, oldest_undelivered_ms, ..Stats::default() })
        },
    )
    .map_err(|error| sql_error("reading the counters", error))
}
