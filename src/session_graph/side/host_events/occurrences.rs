//! What happened, recorded once however often it is told.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::idempotency_conflict;
use super::subscriptions::Prune;
use crate::error::Result;
use crate::json;
use crate::session_graph::command::present;
use crate::session_graph::error::row_damaged;
use crate::session_graph::side::hash::canonical_hash;
use crate::session_graph::sql::{Row, Sql, Value, first};

/// What is told.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    source_type: String,
    source_key: String,
    idempotency_key: String,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    source: Option<&'a RawValue>,
}

impl Request<'_> {
    /// What was given of payload and source.
    fn record(&self) -> String {
        let member = |name: &str, value: Option<&RawValue>| value.map(|value| format!("\"{name}\":{}", value.get()));
        let members: Vec<String> =
            [member("payload", self.payload), member("source", self.source)].into_iter().flatten().collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Columns that [`read`] expects, of `o`.
macro_rules! columns {
    () => {
        "o.occurrence_id, o.idempotency_key, o.source_type, o.source_key, o.occurred_at_ms, o.record_json"
    };
}
pub(super) use columns;

/// An occurrence as JSON, from its columns that begin at `at`.
pub(super) fn read(row: &dyn Row, at: usize) -> Result<String> {
    let id = row.text(at)?;
    let record = row.text(at + 5)?;
    let sound = json::validate(record.as_bytes()).is_ok() && record.starts_with('{');
    let Some(rest) = record.get(1..).filter(|_| sound) else {
        return Err(row_damaged("occurrences", id, "its record is no JSON object"));
    };
    let comma = if rest == "}" { "" } else { "," };
    Ok(format!(
        "{{\"occurrenceId\":{},\"idempotencyKey\":{},\"sourceType\":{},\"sourceKey\":{},\"occurredAtMs\":{}{comma}{rest}",
        json::quote(id),
        json::quote(row.text(at + 1)?),
        json::quote(row.text(at + 2)?),
        json::quote(row.text(at + 3)?),
        row.int(at + 4)?
    ))
}

/// Records an occurrence, unless its key has one: then that is the answer, if it is the same.
pub(super) fn record(sql: &mut dyn Sql, request: &Request<'_>) -> Result<String> {
    let record = request.record();
    let hash = canonical_hash(&format!(
        "[{},{},{record}]",
        json::quote(&request.source_type),
        json::quote(&request.source_key)
    ))?;
    // The key gives the id: also what was pruned and is told again starts the same processes, whose registry knows them.
    let id = format!("occurrence:{}", canonical_hash(&json::quote(&request.idempotency_key))?);
    let now = sql.now()?;
    sql.run(
        "record an occurrence",
        "INSERT INTO occurrences (occurrence_id, idempotency_key, source_type, source_key, request_hash, occurred_at_ms, record_json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        &[
            Value::Text(&id),
            Value::Text(&request.idempotency_key),
            Value::Text(&request.source_type),
            Value::Text(&request.source_key),
            Value::Text(&hash),
            Value::Int(now),
            Value::Text(&record),
        ],
    )?;
    let stored = first(
        sql,
        "read an occurrence",
        concat!("SELECT ", columns!(), ", o.request_hash FROM occurrences o WHERE o.idempotency_key = ?1"),
        &[Value::Text(&request.idempotency_key)],
        |row| Ok((read(row, 0)?, row.string(6)?)),
    )?;
    match stored {
        Some((text, stored)) if stored == hash => Ok(text),
        Some(_) => Err(idempotency_conflict(&request.idempotency_key)),
        None => Err(row_damaged("occurrences", &id, "another one has its id")),
    }
}

/// What [`prune`] runs: it looks at what is old enough, by an index.
pub(super) const PRUNE: &str = "DELETE FROM occurrences WHERE occurrence_id IN (
       SELECT o.occurrence_id FROM occurrences o
       WHERE o.occurred_at_ms <= ?1 AND o.reserved_at_ms IS NOT NULL AND NOT EXISTS (
         SELECT 1 FROM deliveries d WHERE d.occurrence_id = o.occurrence_id AND d.state = 'reserved')
       LIMIT ?2)";

/// Forgets occurrences of so long ago whose deliveries were reserved, and all of them started. At most `limit`; returns how many.
pub(super) fn prune(sql: &mut dyn Sql, prune: &Prune) -> Result<String> {
    let until = sql.now()?.saturating_sub(prune.older_than_ms);
    let removed = sql.run("forget occurrences", PRUNE, &[Value::Int(until), Value::Int(prune.limit)])?;
    Ok(removed.to_string())
}
