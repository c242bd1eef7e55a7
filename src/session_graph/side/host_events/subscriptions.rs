//! Who wants to hear of what.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::json;
use crate::session_graph::error::row_damaged;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

/// What is wanted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Draft<'a> {
    session_id: String,
    name: Option<String>,
    source_type: String,
    source_key: String,
    #[serde(borrow)]
    source: &'a RawValue,
    #[serde(borrow)]
    target: &'a RawValue,
}

/// Which one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    session_id: String,
    handle: String,
}

/// Which ones: those that fit all that is given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    session_id: Option<String>,
    handle: Option<String>,
    name: Option<String>,
    source_type: Option<String>,
    source_key: Option<String>,
    enabled: Option<bool>,
}

/// Columns that [`read`] expects, of `s`, from the given one on.
macro_rules! columns {
    () => {
        "s.subscription_id, s.handle, s.session_id, s.name, s.source_type, s.source_key, s.enabled, s.created_at_ms,
         s.updated_at_ms, s.record_json"
    };
}
pub(super) use columns;

/// How many they are.
pub(super) const COLUMNS: usize = 10;

/// A subscription as JSON, from its columns that begin at `at`.
pub(super) fn read(row: &dyn Row, at: usize) -> Result<String> {
    let id = row.text(at)?;
    let record = row.text(at + 9)?;
    let sound = json::validate(record.as_bytes()).is_ok() && record.len() > 2 && record.starts_with('{');
    let Some(rest) = record.get(1..).filter(|_| sound) else {
        return Err(row_damaged("subscriptions", id, "its record is no JSON object"));
    };
    let mut out = format!(
        "{{\"subscriptionId\":{},\"handle\":{},\"sessionId\":{}",
        json::quote(id),
        json::quote(row.text(at + 1)?),
        json::quote(row.text(at + 2)?)
    );
    if let Some(name) = row.opt_text(at + 3)? {
        out += &format!(",\"name\":{}", json::quote(name));
    }
    out += &format!(
        ",\"sourceType\":{},\"sourceKey\":{},\"enabled\":{},\"createdAtMs\":{},\"updatedAtMs\":{},{rest}",
        json::quote(row.text(at + 4)?),
        json::quote(row.text(at + 5)?),
        row.int(at + 6)? != 0,
        row.int(at + 7)?,
        row.int(at + 8)?
    );
    Ok(out)
}

/// Registers a subscription under a number of its own; returns it.
pub(super) fn register(sql: &mut dyn Sql, draft: &Draft<'_>) -> Result<String> {
    let numbers = all(
        sql,
        "number a subscription",
        "UPDATE host_event_info SET last_subscription = last_subscription + 1 RETURNING last_subscription",
        &[],
        |row| row.int(0),
    )?;
    let number = *numbers.first().ok_or_else(|| row_damaged("host_event_info", "1", "it is missing"))?;
    let now = sql.now()?;
    let record = format!("{{\"source\":{},\"target\":{}}}", draft.source.get(), draft.target.get());
    sql.run(
        "register a subscription",
        "INSERT INTO subscriptions (number, subscription_id, session_id, handle, name, source_type, source_key, enabled,
           created_at_ms, updated_at_ms, record_json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?8, ?9)",
        &[
            Value::Int(number),
            Value::Text(&format!("subscription:{number}")),
            Value::Text(&draft.session_id),
            Value::Text(&format!("trigger:{number}")),
            Value::OptText(draft.name.as_deref()),
            Value::Text(&draft.source_type),
            Value::Text(&draft.source_key),
            Value::Int(now),
            Value::Text(&record),
        ],
    )?;
    let stored = first(
        sql,
        "read a subscription",
        concat!("SELECT ", columns!(), " FROM subscriptions s WHERE s.number = ?1"),
        &[Value::Int(number)],
        |row| read(row, 0),
    )?;
    stored.ok_or_else(|| row_damaged("subscriptions", &number.to_string(), "it is missing"))
}

/// Ends a subscription; tells whether it was on. It is kept, and so is its number.
pub(super) fn cancel(sql: &mut dyn Sql, named: &Named) -> Result<String> {
    let now = sql.now()?;
    let changed = sql.run(
        "cancel a subscription",
        "UPDATE subscriptions SET enabled = 0, updated_at_ms = ?3 WHERE session_id = ?1 AND handle = ?2 AND enabled = 1",
        &[Value::Text(&named.session_id), Value::Text(&named.handle), Value::Int(now)],
    )?;
    Ok((changed > 0).to_string())
}

/// Lists subscriptions, by session and number.
pub(super) fn list(sql: &mut dyn Sql, filter: &Filter) -> Result<String> {
    let found = all(
        sql,
        "list subscriptions",
        concat!(
            "SELECT ",
            columns!(),
            " FROM subscriptions s WHERE (?1 IS NULL OR s.session_id = ?1) AND (?2 IS NULL OR s.handle = ?2)
              AND (?3 IS NULL OR s.name = ?3) AND (?4 IS NULL OR s.source_type = ?4) AND (?5 IS NULL OR s.source_key = ?5)
              AND (?6 IS NULL OR s.enabled = ?6) ORDER BY s.session_id, s.number"
        ),
        &[
            Value::OptText(filter.session_id.as_deref()),
            Value::OptText(filter.handle.as_deref()),
            Value::OptText(filter.name.as_deref()),
            Value::OptText(filter.source_type.as_deref()),
            Value::OptText(filter.source_key.as_deref()),
            Value::OptInt(filter.enabled.map(i64::from)),
        ],
        |row| read(row, 0),
    )?;
    Ok(format!("[{}]", found.join(",")))
}

/// What is not needed any more.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Prune {
    pub(super) older_than_ms: i64,
    pub(super) limit: i64,
}

/// What [`prune`] runs: it looks at what is old enough, by an index.
pub(super) const PRUNE: &str = "DELETE FROM subscriptions WHERE number IN (
       SELECT s.number FROM subscriptions s WHERE s.enabled = 0 AND s.updated_at_ms <= ?1 AND NOT EXISTS (
         SELECT 1 FROM deliveries d WHERE d.subscription_id = s.subscription_id AND d.state = 'reserved')
       LIMIT ?2)";

/// Forgets subscriptions that were cancelled so long ago and owe no delivery. At most `limit`; returns how many.
pub(super) fn prune(sql: &mut dyn Sql, prune: &Prune) -> Result<String> {
    let until = sql.now()?.saturating_sub(prune.older_than_ms);
    let removed = sql.run("forget subscriptions", PRUNE, &[Value::Int(until), Value::Int(prune.limit)])?;
    Ok(removed.to_string())
}
