//! Events of a process.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{invalid_payload, needs_key, replay_conflict, terminal, undeclared, unknown};
use super::output;
use super::record::{self, Process};
use super::schema;
use super::scope::Scope;
use super::types::{CANCEL_REQUESTED, EventType, State};
use super::wakes;
use crate::error::{Code, HfError, Result};
use crate::json;
use crate::session_graph::command::arguments;
use crate::session_graph::error::row_damaged;
use crate::session_graph::side::hash::canonical_hash;
use crate::session_graph::sql::{Sql, Value, all, first};

/// An event that is to be appended.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Append<'a> {
    id: String,
    event_type: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    replay_key: Option<String>,
    wake_target_scope: Option<Scope>,
    #[serde(default)]
    verdict: Verdict,
}

/// What the caller's own validator said.
#[derive(Debug, Default, Deserialize)]
struct Verdict {
    /// It was asked.
    validated: bool,
    /// What it does not like.
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Complete<'a> {
    id: String,
    #[serde(borrow)]
    output: &'a RawValue,
    #[serde(default)]
    verdict: Verdict,
}

#[derive(Deserialize)]
pub(super) struct After {
    pub(super) id: String,
    pub(super) seq: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfType {
    id: String,
    event_type: String,
    #[serde(default)]
    seq: i64,
}

/// Appends an event; returns it, and whom it wakes.
pub(super) fn append(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let append: Append<'_> = arguments(text, "append")?;
    let process = Process::known(sql, &append.id)?;
    store(sql, &process, &append)
}

/// Ends a process with an output; returns the process.
pub(super) fn complete(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let Complete { id, output, verdict } = arguments(text, "complete")?;
    let state = output::state_of(output.get())
        .map_err(|why| HfError::new(Code::InvalidArgument, format!("output {why}")).with_field("argument", "output"))?;
    let payload = RawValue::from_string(format!("{{\"awaitOutput\":{}}}", output.get()))
        .map_err(|error| HfError::new(Code::InvalidArgument, format!("output: {error}")))?;
    let process = Process::known(sql, &id)?;
    let event_type = state.event_type().to_owned();
    let replay_key = Some(format!("process:{id}:terminal:{event_type}"));
    let append = Append { id, event_type, payload: &payload, replay_key, wake_target_scope: None, verdict };
    store(sql, &process, &append)?;
    Process::known(sql, &append.id)?.text()
}

fn store(sql: &mut dyn Sql, process: &Process, append: &Append<'_>) -> Result<String> {
    let Append { id, event_type: name, payload, replay_key, .. } = append;
    let payload = payload.get();
    let hash = canonical_hash(&format!("[{},{payload}]", json::quote(name)))?;
    if let Some(key) = replay_key
        && let Some((known, event, wake)) = by_key(sql, id, key)?
    {
        return if known == hash { Ok(appended(&event, wake.as_deref())) } else { Err(replay_conflict(id, key)) };
    }
    let event_type = process.event_type(name)?.ok_or_else(|| undeclared(id, name))?;
    if replay_key.is_none() && (event_type.terminal.is_some() || name == CANCEL_REQUESTED) {
        return Err(needs_key(id, name));
    }
    append.verdict.check(&event_type, payload).map_err(|why| invalid_payload(id, name, &why))?;
    let ending = ending(process, &event_type, payload)?;
    let sequence = next_sequence(sql, id)?;
    let now = sql.now()?;
    let target = append.wake_target_scope.as_ref();
    let waking = wakes::waking(process, &event_type, payload, target, sequence, now)?;
    let mut event = format!(
        "{{\"processId\":{},\"sequence\":{sequence},\"eventType\":{},\"payload\":{payload},\"occurredAtMs\":{now}",
        json::quote(id),
        json::quote(name)
    );
    if let Some(key) = replay_key {
        event.push_str(&format!(",\"replayKey\":{}", json::quote(key)));
    }
    if let Some((state, output)) = &ending {
        event.push_str(&format!(",\"terminal\":{{\"state\":\"{}\",\"awaitOutput\":{output}}}", state.name()));
    }
    if let Some(waking) = &waking {
        event.push_str(&format!(",\"wake\":{}", waking.shown));
    }
    event.push('}');
    let delivery = waking.as_ref().map(|waking| waking.delivery.as_str());
    sql.run(
        "append an event",
        "INSERT INTO process_events (process_id, sequence, event_type, payload_hash, idempotency_key, occurred_at_ms, event_json,
         wake_json) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        &[
            Value::Text(id),
            Value::Int(sequence),
            Value::Text(name),
            Value::Text(&hash),
            Value::OptText(replay_key.as_deref()),
            Value::Int(now),
            Value::Text(&event),
            Value::OptText(delivery),
        ],
    )?;
    if let Some((state, output)) = &ending {
        record::end(sql, id, state.name(), output, now)?;
    }
    Ok(appended(&event, delivery))
}

impl Verdict {
    fn check(&self, event_type: &EventType, payload: &str) -> std::result::Result<(), String> {
        match (&event_type.schema, &self.refusal) {
            (_, Some(why)) => Err(why.clone()),
            (Some(schema), None) if !self.validated => schema::check(schema, payload),
            _ => Ok(()),
        }
    }
}

/// How the process ends with an event, and its output.
fn ending(process: &Process, event_type: &EventType, payload: &str) -> Result<Option<(State, String)>> {
    let Some((state, selector)) = &event_type.terminal else { return Ok(None) };
    if !process.is_running() {
        return Err(terminal(&process.id));
    }
    let Some(selector) = selector else {
        return Ok(Some((*state, format!("{{\"type\":\"success\",\"value\":{payload}}}"))));
    };
    let output = selector.select(payload)?;
    let why = match output::state_of(&output) {
        Ok(found) if found == *state => return Ok(Some((*state, output.into_owned()))),
        Ok(_) => format!("its awaitOutput must be of type {}", state.output_type()),
        Err(why) => format!("its awaitOutput {why}"),
    };
    Err(invalid_payload(&process.id, &event_type.name, &why))
}

fn appended(event: &str, wake: Option<&str>) -> String {
    let wake = wake.map_or_else(String::new, |wake| format!(",\"wakeDelivery\":{wake}"));
    format!("{{\"event\":{event}{wake}}}")
}

/// Hash, text and wake of the event with a replay key.
fn by_key(sql: &mut dyn Sql, id: &str, key: &str) -> Result<Option<(String, String, Option<String>)>> {
    let found = first(
        sql,
        "look for an event",
        "SELECT payload_hash, event_json, wake_json, sequence FROM process_events
         WHERE process_id = ?1 AND idempotency_key = ?2",
        &[Value::Text(id), Value::Text(key)],
        |row| Ok((row.string(0)?, row.string(1)?, row.opt_string(2)?, row.int(3)?)),
    )?;
    let Some((hash, event, wake, sequence)) = found else { return Ok(None) };
    sound(id, sequence, &event)?;
    wake.as_deref().map(|wake| sound(id, sequence, wake)).transpose()?;
    Ok(Some((hash, event, wake)))
}

/// Requires that what is stored can be shown.
fn sound(id: &str, sequence: i64, text: &str) -> Result<()> {
    json::validate(text.as_bytes())
        .map_err(|_| row_damaged("process_events", &format!("{id}:{sequence}"), "it holds no JSON"))
}

fn next_sequence(sql: &mut dyn Sql, id: &str) -> Result<i64> {
    let last = first(
        sql,
        "look for the last event",
        "SELECT sequence FROM process_events WHERE process_id = ?1 ORDER BY sequence DESC LIMIT 1",
        &[Value::Text(id)],
        |row| row.int(0),
    )?;
    Ok(last.unwrap_or(0) + 1)
}

/// The events after a sequence, or those that wake somebody who has not acknowledged it, as a JSON array.
pub(super) fn after(sql: &mut dyn Sql, text: &str, only_wakes: bool) -> Result<String> {
    let After { id, seq } = arguments(text, "events")?;
    let statement = if only_wakes {
        "SELECT sequence, event_json FROM process_events AS event WHERE process_id = ?1 AND sequence > ?2
         AND wake_json IS NOT NULL AND NOT EXISTS (SELECT 1 FROM process_wake_acks AS ack
         WHERE ack.process_id = event.process_id AND ack.sequence = event.sequence) ORDER BY sequence"
    } else {
        "SELECT sequence, event_json FROM process_events WHERE process_id = ?1 AND sequence > ?2 ORDER BY sequence"
    };
    let events = all(sql, "read events", statement, &[Value::Text(&id), Value::Int(seq)], |row| {
        let event = row.string(1)?;
        sound(&id, row.int(0)?, &event)?;
        Ok(event)
    })?;
    if events.is_empty() {
        require(sql, &id)?;
    }
    Ok(format!("[{}]", events.join(",")))
}

/// The first event of a type after a sequence; `null` if there is none yet.
pub(super) fn of_type_after(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let OfType { id, event_type, seq } = arguments(text, "eventAfter")?;
    let found = first(
        sql,
        "wait for an event",
        "SELECT sequence, event_json FROM process_events WHERE process_id = ?1 AND event_type = ?2 AND sequence > ?3
         ORDER BY sequence LIMIT 1",
        &[Value::Text(&id), Value::Text(&event_type), Value::Int(seq)],
        |row| Ok((row.int(0)?, row.string(1)?)),
    )?;
    if let Some((sequence, event)) = found {
        sound(&id, sequence, &event)?;
        return Ok(event);
    }
    if Process::known(sql, &id)?.event_type(&event_type)?.is_none() {
        let message = format!("process `{id}` declares no event type `{event_type}`, so no such event will come");
        return Err(HfError::new(Code::InvalidArgument, message).with_field("argument", "type"));
    }
    Ok("null".to_owned())
}

/// The schema of a type's payloads, in an array of one; `[]` if there is none, or no such type.
pub(super) fn schema_of(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let OfType { id, event_type, .. } = arguments(text, "schema")?;
    let Some(process) = Process::find(sql, &id)? else { return Ok("[]".to_owned()) };
    let schema = process.event_type(&event_type)?.and_then(|event_type| event_type.schema);
    Ok(format!("[{}]", schema.unwrap_or_default()))
}

/// Requires that a process is there.
pub(super) fn require(sql: &mut dyn Sql, id: &str) -> Result<()> {
    let found =
        first(sql, "look for a process", "SELECT 1 FROM processes WHERE process_id = ?1", &[Value::Text(id)], |row| {
            row.int(0)
        })?;
    found.map(drop).ok_or_else(|| unknown(id))
}
