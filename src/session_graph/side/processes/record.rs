//! Processes as they are stored.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{empty, registration_conflict, unknown};
use super::scope::Scope;
use super::types::{self, EventType};
use crate::error::Result;
use crate::json::{self, Object};
use crate::session_graph::command::{arguments, refused};
use crate::session_graph::error::row_damaged;
use crate::session_graph::side::hash::canonical_hash;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

macro_rules! processes {
    ($which:literal) => {
        concat!(
            "SELECT process_id, registration_hash, created_at_ms, updated_at_ms, status, external_ref_json, \
             await_output_json, record_json FROM processes ",
            $which
        )
    };
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: String,
    hash: String,
    created: i64,
    updated: i64,
    status: String,
    external_ref: Option<String>,
    pub(super) output: Option<String>,
    /// `{ id, input, eventTypes, provenance }`
    record: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration<'a> {
    id: String,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    event_types: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    provenance: Provenance<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provenance<'a> {
    owner_scope: Scope,
    host_profile_id: String,
    #[serde(borrow)]
    caused_by: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Register<'a> {
    #[serde(borrow)]
    registration: &'a RawValue,
}

#[derive(Deserialize)]
struct ExternalRef<'a> {
    id: String,
    #[serde(borrow)]
    reference: Option<&'a RawValue>,
}

impl Process {
    fn read(row: &dyn Row) -> Result<Self> {
        Ok(Self {
            id: row.string(0)?,
            hash: row.string(1)?,
            created: row.int(2)?,
            updated: row.int(3)?,
            status: row.string(4)?,
            external_ref: row.opt_string(5)?,
            output: row.opt_string(6)?,
            record: row.string(7)?,
        })
    }

    /// Finds a process.
    pub(super) fn find(sql: &mut dyn Sql, id: &str) -> Result<Option<Self>> {
        first(sql, "read a process", processes!("WHERE process_id = ?1"), &[Value::Text(id)], Self::read)
    }

    /// Finds a process that must be there.
    pub(super) fn known(sql: &mut dyn Sql, id: &str) -> Result<Self> {
        Self::find(sql, id)?.ok_or_else(|| unknown(id))
    }

    pub(super) fn is_running(&self) -> bool {
        self.status == "running"
    }

    fn damaged(&self, why: &str) -> crate::error::HfError {
        row_damaged("processes", &self.id, why)
    }

    /// One of the members of what was registered, as it was written.
    fn member(&self, name: &str) -> Result<&str> {
        let record = Object::parse(&self.record).map_err(|_| self.damaged("its record is no JSON object"))?;
        record.get(name).ok_or_else(|| self.damaged("its record lacks a member"))
    }

    /// A type of events that it declares.
    pub(super) fn event_type(&self, name: &str) -> Result<Option<EventType>> {
        let types = json::array(self.member("eventTypes")?).map_err(|_| self.damaged("its event types are no list"))?;
        for raw in types {
            let event_type = EventType::parse(raw).map_err(|_| self.damaged("an event type cannot be read"))?;
            if event_type.name == name {
                return Ok(Some(event_type));
            }
        }
        Ok(None)
    }

    /// What it says of its origin, as it was written.
    pub(super) fn caused_by(&self) -> Result<Option<&str>> {
        let provenance = Object::parse(self.member("provenance")?);
        Ok(provenance.map_err(|_| self.damaged("its provenance is no object"))?.get("causedBy"))
    }

    /// As the facade returns it.
    pub(super) fn text(&self) -> Result<String> {
        let record = json::validate(self.record.as_bytes()).ok().and_then(|()| self.record.strip_suffix('}'));
        let record = record.ok_or_else(|| self.damaged("its record is no JSON object"))?;
        let Self { hash, created, updated, status, .. } = self;
        let mut text = format!(
            "{record},\"registrationHash\":\"{hash}\",\"createdAtMs\":{created},\"updatedAtMs\":{updated},\"status\":\"{status}\""
        );
        for (name, value) in [("externalRef", &self.external_ref), ("awaitOutput", &self.output)] {
            let Some(value) = value else { continue };
            json::validate(value.as_bytes()).map_err(|_| self.damaged(&format!("its {name} is no JSON")))?;
            text.push_str(&format!(",\"{name}\":{value}"));
        }
        text.push('}');
        Ok(text)
    }
}

/// Stores a process, or finds the same one; returns it.
pub(super) fn register(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let Register { registration } = arguments(text, "register")?;
    let message: Registration<'_> =
        serde_json::from_str(registration.get()).map_err(|error| refused("registration", &error))?;
    let Registration { id, input, event_types, provenance } = message;
    let Provenance { owner_scope, host_profile_id, caused_by } = provenance;
    if id.is_empty() {
        return Err(empty("process id"));
    }
    let owner = owner_scope.id()?;
    if host_profile_id.is_empty() {
        return Err(empty("process host profile id"));
    }
    let types = types::completed(&id, &event_types.unwrap_or_default())?;
    let caused_by = caused_by.map_or_else(String::new, |raw| format!(",\"causedBy\":{}", raw.get()));
    let provenance = format!(
        "{{\"ownerScope\":{},\"hostProfileId\":{}{caused_by}}}",
        owner_scope.text(),
        json::quote(&host_profile_id)
    );
    let record = |types: &[(String, String)]| {
        let types: Vec<&str> = types.iter().map(|(_, raw)| raw.as_str()).collect();
        let (id, input, types) = (json::quote(&id), input.get(), types.join(","));
        format!("{{\"id\":{id},\"input\":{input},\"eventTypes\":[{types}],\"provenance\":{provenance}}}")
    };
    // In which order types are declared means nothing.
    let mut sorted = types.clone();
    sorted.sort_unstable();
    let hash = canonical_hash(&record(&sorted))?;
    if let Some(known) = Process::find(sql, &id)? {
        return if known.hash == hash { known.text() } else { Err(registration_conflict(&id, &known.hash, &hash)) };
    }
    let now = sql.now()?;
    sql.run(
        "register a process",
        "INSERT INTO processes (process_id, registration_hash, owner_scope_id, host_profile_id, created_at_ms, updated_at_ms,
         status, record_json) VALUES (?1, ?2, ?3, ?4, ?5, ?5, 'running', ?6)",
        &[
            Value::Text(&id),
            Value::Text(&hash),
            Value::Text(&owner),
            Value::Text(&host_profile_id),
            Value::Int(now),
            Value::Text(&record(&types)),
        ],
    )?;
    Process::known(sql, &id)?.text()
}

/// Notes where the process runs, or forgets it; returns the process.
pub(super) fn set_external_ref(sql: &mut dyn Sql, text: &str) -> Result<String> {
    let ExternalRef { id, reference } = arguments(text, "setExternalRef")?;
    let now = sql.now()?;
    let changed = sql.run(
        "set the external reference of a process",
        "UPDATE processes SET external_ref_json = ?2, updated_at_ms = max(updated_at_ms, ?3) WHERE process_id = ?1",
        &[Value::Text(&id), Value::OptText(reference.map(RawValue::get)), Value::Int(now)],
    )?;
    if changed == 0 {
        return Err(unknown(&id));
    }
    Process::known(sql, &id)?.text()
}

/// Notes that a process has ended.
pub(super) fn end(sql: &mut dyn Sql, id: &str, status: &str, output: &str, now: i64) -> Result<()> {
    sql.run(
        "end a process",
        "UPDATE processes SET status = ?2, await_output_json = ?3, updated_at_ms = max(updated_at_ms, ?4)
         WHERE process_id = ?1",
        &[Value::Text(id), Value::Text(status), Value::Text(output), Value::Int(now)],
    )
    .map(drop)
}

/// The processes that have not ended, the oldest first, as a JSON array.
pub(super) fn running(sql: &mut dyn Sql) -> Result<String> {
    let statement = processes!("WHERE status = 'running' ORDER BY created_at_ms, process_id");
    let found = all(sql, "list processes", statement, &[], Process::read)?;
    let texts: Vec<String> = found.iter().map(Process::text).collect::<Result<_>>()?;
    Ok(format!("[{}]", texts.join(",")))
}
