//! Who was told of what: each pair of an occurrence and a subscription once, whatever happens.

use serde::Deserialize;

use super::error::{unknown_delivery, unknown_occurrence};
use super::{occurrences, subscriptions};
use crate::error::Result;
use crate::json;
use crate::session_graph::side::hash::canonical_hash;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

/// Which occurrence.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reserve {
    occurrence_id: String,
}

/// Which delivery.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    process_id: String,
}

/// A delivery as JSON: a subscription, then an occurrence, then the process and when.
fn read(row: &dyn Row) -> Result<String> {
    let at = subscriptions::COLUMNS;
    Ok(format!(
        "{{\"occurrence\":{},\"subscription\":{},\"processId\":{},\"reservedAtMs\":{}}}",
        occurrences::read(row, at)?,
        subscriptions::read(row, 0)?,
        json::quote(row.text(at + 6)?),
        row.int(at + 7)?
    ))
}

/// Reserves what was not reserved before; returns these deliveries, by session and number.
pub(super) fn reserve(sql: &mut dyn Sql, reserve: &Reserve) -> Result<String> {
    let id = &reserve.occurrence_id;
    let now = sql.now()?;
    let found = first(
        sql,
        "look for an occurrence",
        "SELECT reserved_at_ms FROM occurrences WHERE occurrence_id = ?1",
        &[Value::Text(id)],
        |row| row.opt_int(0),
    )?;
    let reserved_at = found.ok_or_else(|| unknown_occurrence(id))?;
    if reserved_at.is_none() {
        sql.run(
            "mark an occurrence",
            "UPDATE occurrences SET reserved_at_ms = ?2 WHERE occurrence_id = ?1",
            &[Value::Text(id), Value::Int(now)],
        )?;
    }
    let fresh = all(
        sql,
        "look for subscriptions",
        "SELECT s.subscription_id FROM occurrences o
         JOIN subscriptions s ON s.source_type = o.source_type AND s.source_key = o.source_key AND s.enabled = 1
         WHERE o.occurrence_id = ?1 AND NOT EXISTS (
           SELECT 1 FROM deliveries d WHERE d.occurrence_id = o.occurrence_id AND d.subscription_id = s.subscription_id)
         ORDER BY s.session_id, s.number",
        &[Value::Text(id)],
        |row| row.string(0),
    )?;
    let mut out = Vec::with_capacity(fresh.len());
    for subscription in fresh {
        let hash = canonical_hash(&format!("[{},{}]", json::quote(id), json::quote(&subscription)))?;
        let process_id = format!("process:host-event:{hash}");
        sql.run(
            "reserve a delivery",
            "INSERT INTO deliveries (occurrence_id, subscription_id, process_id, state, created_at_ms)
             VALUES (?1, ?2, ?3, 'reserved', ?4)",
            &[Value::Text(id), Value::Text(&subscription), Value::Text(&process_id), Value::Int(now)],
        )?;
        out.extend(first(
            sql,
            "read a delivery",
            concat!(
                "SELECT ",
                subscriptions::columns!(),
                ", ",
                occurrences::columns!(),
                ", d.process_id, d.created_at_ms FROM deliveries d
                 JOIN occurrences o ON o.occurrence_id = d.occurrence_id
                 JOIN subscriptions s ON s.subscription_id = d.subscription_id WHERE d.process_id = ?1"
            ),
            &[Value::Text(&process_id)],
            read,
        )?);
    }
    Ok(format!("[{}]", out.join(",")))
}

/// Notes that the process of a delivery was started; tells whether that was news.
pub(super) fn started(sql: &mut dyn Sql, started: &Started) -> Result<String> {
    let id = &started.process_id;
    let now = sql.now()?;
    let changed = sql.run(
        "mark a delivery",
        "UPDATE deliveries SET state = 'started', started_at_ms = ?2 WHERE process_id = ?1 AND state = 'reserved'",
        &[Value::Text(id), Value::Int(now)],
    )?;
    if changed > 0 {
        return Ok("true".to_owned());
    }
    let statement = "SELECT 1 FROM deliveries WHERE process_id = ?1";
    let known = first(sql, "look for a delivery", statement, &[Value::Text(id)], |row| row.int(0))?;
    known.map(|_| "false".to_owned()).ok_or_else(|| unknown_delivery(id))
}

/// Deliveries whose process was not started, as far as anybody said; the oldest first.
pub(super) fn unstarted(sql: &mut dyn Sql) -> Result<String> {
    let found = all(
        sql,
        "list deliveries",
        concat!(
            "SELECT ",
            subscriptions::columns!(),
            ", ",
            occurrences::columns!(),
            ", d.process_id, d.created_at_ms FROM deliveries d
             JOIN occurrences o ON o.occurrence_id = d.occurrence_id
             JOIN subscriptions s ON s.subscription_id = d.subscription_id WHERE d.state = 'reserved'
             ORDER BY d.created_at_ms, o.occurred_at_ms, o.occurrence_id, s.session_id, s.number"
        ),
        &[],
        read,
    )?;
    Ok(format!("[{}]", found.join(",")))
}
