//! Wakes: whom an event wakes, and who has heard of it.

use super::error::no_wake_target;
use super::events::{After, require};
use super::record::Process;
use super::scope::Scope;
use super::selector::text_of;
use super::types::EventType;
use crate::error::Result;
use crate::json;
use crate::session_graph::command::arguments;
use crate::session_graph::side::hash::canonical_hash;
use crate::session_graph::sql::{Sql, Value};

/// A wake.
pub(super) struct Waking {
    /// As the event shows it.
    pub(super) shown: String,
    /// As it is delivered.
    pub(super) delivery: String,
}

/// Whom an event wakes.
pub(super) fn waking(
    process: &Process,
    event_type: &EventType,
    payload: &str,
    target: Option<&Scope>,
    sequence: i64,
    now: i64,
) -> Result<Option<Waking>> {
    let Some(wake) = &event_type.wake else { return Ok(None) };
    let (id, name) = (&process.id, &event_type.name);
    if let Some(when) = &wake.when
        && !when.is_truthy(payload)?
    {
        return Ok(None);
    }
    let input = text_of(&wake.input.select(payload)?);
    let dedupe_key = match &wake.dedupe_key {
        Some(selector) => selector.text(payload)?,
        None => format!("{id}:{sequence}"),
    };
    let scope = target.ok_or_else(|| no_wake_target(id, name))?;
    let scope_id = scope.id()?;
    let key = json::quote(&dedupe_key);
    let wake_id = canonical_hash(&format!("[{},{key}]", json::quote(&scope_id)))?;
    let input = json::quote(&input);
    let caused_by =
        process.caused_by()?.map_or_else(String::new, |caused_by| format!(",\"processCausedBy\":{caused_by}"));
    let delivery = format!(
        "{{\"wakeId\":\"wake:{wake_id}\",\"targetSessionId\":{},\"targetScopeId\":{},\"processId\":{},\
         \"sequence\":{sequence},\"eventType\":{},\"dedupeKey\":{key},\"input\":{input},\"createdAtMs\":{now}{caused_by}}}",
        json::quote(&scope.session_id),
        json::quote(&scope_id),
        json::quote(id),
        json::quote(name)
    );
    Ok(Some(Waking { shown: format!("{{\"input\":{input},\"dedupeKey\":{key}}}"), delivery }))
}

/// Notes that somebody took note of a wake.
pub(super) fn ack_wake(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let After { id, seq } = arguments(text, "ackWake")?;
    let noted = sql.run(
        "acknowledge a wake",
        "INSERT INTO process_wake_acks (process_id, sequence) SELECT process_id, sequence FROM process_events
         WHERE process_id = ?1 AND sequence = ?2 AND wake_json IS NOT NULL ON CONFLICT DO NOTHING",
        &[Value::Text(&id), Value::Int(seq)],
    )?;
    if noted == 0 {
        require(sql, &id)?;
    }
    Ok("null".to_owned())
}
