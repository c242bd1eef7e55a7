//! The rows of effects. Times decide who may do an effect; the token decides whose outcome counts.

use super::error::{corrupt_row, hash_conflict, lease_lost, missing};
use super::message::{Asked, Claim, End, Held, Key, Prune, Renewal};
use crate::error::Result;
use crate::ids;
use crate::json;
use crate::session_graph::sql::{Sql, Value, first};

/// Times beyond it are no safe integers of JavaScript.
const TIME_MAX: i64 = (1 << 53) - 1;

struct Row {
    hash: String,
    status: String,
    expires_at: i64,
    due_at: Option<i64>,
    outcome: Option<String>,
    error: Option<String>,
}

/// What a row means to who asks.
enum Found {
    /// Done, well or badly: the answer.
    Over(String),
    /// Somebody is at it until then.
    Busy(i64),
    /// It was begun, and nobody is at it; when a sleep is over.
    Lapsed(Option<i64>),
    /// It never happened.
    Absent,
}

fn look_at(sql: &mut dyn Sql, asked: &Asked<'_>, now: i64) -> Result<Found> {
    let key = &asked.key;
    let found = first(
        sql,
        "look for an effect",
        "SELECT envelope_hash, status, lease_expires_at_ms, due_at_ms, outcome_json, error_json
         FROM runtime_effect_replay WHERE scope_id = ?1 AND replay_key = ?2",
        &[Value::Text(&key.scope.text()), Value::Text(&key.replay_key)],
        |row| {
            Ok(Row {
                hash: row.string(0)?,
                status: row.string(1)?,
                expires_at: row.int(2)?,
                due_at: row.opt_int(3)?,
                outcome: row.opt_string(4)?,
                error: row.opt_string(5)?,
            })
        },
    )?;
    let Some(row) = found else { return Ok(Found::Absent) };
    if row.hash != asked.hash()? {
        return Err(hash_conflict(key));
    }
    let sound = |text: String, what: &str| match json::validate(text.as_bytes()) {
        Ok(()) => Ok(text),
        Err(error) => Err(corrupt_row(key, &format!("its {what} is no JSON ({error})"))),
    };
    match row.status.as_str() {
        "completed" => Ok(Found::Over(match row.outcome {
            Some(outcome) => format!("{{\"state\":\"completed\",\"outcome\":{}}}", sound(outcome, "outcome")?),
            None => "{\"state\":\"completed\"}".to_owned(),
        })),
        "failed" => {
            let error = row.error.ok_or_else(|| corrupt_row(key, "it failed, and has no error"))?;
            Ok(Found::Over(format!("{{\"state\":\"failed\",\"error\":{}}}", sound(error, "error")?)))
        }
        "in_progress" if row.expires_at > now => Ok(Found::Busy(row.expires_at)),
        "in_progress" => Ok(Found::Lapsed(row.due_at)),
        other => Err(corrupt_row(key, &format!("{other:?} is no status"))),
    }
}

fn busy(until: i64, now: i64) -> String {
    format!("{{\"state\":\"busy\",\"leftMs\":{}}}", until.saturating_sub(now))
}

/// Looks how far an effect is, without touching it.
pub(super) fn look(sql: &mut dyn Sql, asked: &Asked<'_>) -> Result<String> {
    let now = sql.now()?;
    match look_at(sql, asked, now)? {
        Found::Over(answer) => Ok(answer),
        Found::Busy(until) => Ok(busy(until, now)),
        Found::Absent if asked.strict => Err(missing(&asked.key)),
        Found::Absent | Found::Lapsed(_) => Ok("{\"state\":\"free\"}".to_owned()),
    }
}

/// Begins an effect, or takes it over from somebody who went away.
pub(super) fn claim(sql: &mut dyn Sql, claim: &Claim<'_>) -> Result<String> {
    let (asked, key) = (&claim.asked, &claim.asked.key);
    let now = sql.now()?;
    let begun = match look_at(sql, asked, now)? {
        Found::Over(answer) => return Ok(answer),
        Found::Busy(until) => return Ok(busy(until, now)),
        Found::Absent if asked.strict => return Err(missing(key)),
        Found::Absent => None,
        Found::Lapsed(due) => due,
    };
    let later = |ms: i64| now.saturating_add(ms).min(TIME_MAX);
    // A sleep that was begun ends when it was to end.
    let due = begun.or(claim.sleep_ms.map(later));
    let token = ids::uuid().replace('-', "");
    sql.run(
        "begin an effect",
        "INSERT INTO runtime_effect_replay (scope_id, replay_key, envelope_hash, status, lease_owner_id, lease_token,
           lease_expires_at_ms, due_at_ms, created_at_ms, updated_at_ms)
         VALUES (?1, ?2, ?3, 'in_progress', ?4, ?5, ?6, ?7, ?8, ?8)
         ON CONFLICT (scope_id, replay_key) DO UPDATE SET lease_owner_id = ?4, lease_token = ?5, lease_expires_at_ms = ?6,
           due_at_ms = ?7, updated_at_ms = ?8",
        &[
            Value::Text(&key.scope.text()),
            Value::Text(&key.replay_key),
            Value::Text(&asked.hash()?),
            Value::Text(&claim.owner_id),
            Value::Text(&token),
            Value::Int(later(claim.lease_ttl_ms)),
            Value::OptInt(due),
            Value::Int(now),
        ],
    )?;
    let due = due.map_or_else(|| "null".to_owned(), |due| due.to_string());
    Ok(format!("{{\"state\":\"claimed\",\"leaseToken\":\"{token}\",\"dueAtMs\":{due}}}"))
}

/// Requires that a statement changed the row that the lease is for.
fn owned(changed: u64, key: &Key) -> Result<String> {
    if changed == 1 { Ok("null".to_owned()) } else { Err(lease_lost(key)) }
}

/// Lets a lease last longer, also one that has lapsed as long as nobody took over.
pub(super) fn renew(sql: &mut dyn Sql, renewal: &Renewal) -> Result<String> {
    let Held { key, lease_token } = &renewal.held;
    let expires = sql.now()?.saturating_add(renewal.lease_ttl_ms).min(TIME_MAX);
    let changed = sql.run(
        "renew an effect",
        "UPDATE runtime_effect_replay SET lease_expires_at_ms = ?4
         WHERE scope_id = ?1 AND replay_key = ?2 AND lease_token = ?3 AND status = 'in_progress'",
        &[Value::Text(&key.scope.text()), Value::Text(&key.replay_key), Value::Text(lease_token), Value::Int(expires)],
    )?;
    owned(changed, key)
}

/// Records an outcome, for ever.
pub(super) fn complete(sql: &mut dyn Sql, end: &End<'_>) -> Result<String> {
    let outcome = end.result.map(serde_json::value::RawValue::get);
    finish(sql, &end.held, "completed", outcome, None)
}

/// Records an error, for ever.
pub(super) fn fail(sql: &mut dyn Sql, end: &End<'_>) -> Result<String> {
    let error = end.result.map_or("{}", |error| error.get());
    finish(sql, &end.held, "failed", None, Some(error))
}

fn finish(sql: &mut dyn Sql, held: &Held, status: &str, outcome: Option<&str>, error: Option<&str>) -> Result<String> {
    let Held { key, lease_token } = held;
    let now = sql.now()?;
    let changed = sql.run(
        "end an effect",
        "UPDATE runtime_effect_replay SET status = ?4, outcome_json = ?5, error_json = ?6, updated_at_ms = ?7,
           lease_owner_id = NULL, lease_token = NULL, lease_expires_at_ms = 0
         WHERE scope_id = ?1 AND replay_key = ?2 AND lease_token = ?3 AND status = 'in_progress'",
        &[
            Value::Text(&key.scope.text()),
            Value::Text(&key.replay_key),
            Value::Text(lease_token),
            Value::Text(status),
            Value::OptText(outcome),
            Value::OptText(error),
            Value::Int(now),
        ],
    )?;
    owned(changed, key)
}

/// Gives an effect up: whoever asks next does it, at once. That it was begun, and until when it sleeps, stays.
pub(super) fn release(sql: &mut dyn Sql, held: &Held) -> Result<String> {
    let Held { key, lease_token } = held;
    let now = sql.now()?;
    let changed = sql.run(
        "give an effect up",
        "UPDATE runtime_effect_replay SET lease_owner_id = NULL, lease_token = NULL, lease_expires_at_ms = 0, updated_at_ms = ?4
         WHERE scope_id = ?1 AND replay_key = ?2 AND lease_token = ?3 AND status = 'in_progress'",
        &[Value::Text(&key.scope.text()), Value::Text(&key.replay_key), Value::Text(lease_token), Value::Int(now)],
    )?;
    owned(changed, key)
}

/// What [`prune`] runs: it looks at what is old enough, by an index.
pub(super) const PRUNE: &str = "DELETE FROM runtime_effect_replay WHERE rowid IN (
       SELECT rowid FROM runtime_effect_replay
       WHERE (?1 IS NULL OR scope_id = ?1) AND updated_at_ms <= ?2 AND (status <> 'in_progress'
         OR (lease_expires_at_ms <= ?3 AND coalesce(due_at_ms, 0) <= ?3))
       LIMIT ?4)";

/// Forgets effects that are over, or that nobody is at, for so long; never one that sleeps. At most `limit`; returns how many.
pub(super) fn prune(sql: &mut dyn Sql, prune: &Prune) -> Result<String> {
    let now = sql.now()?;
    let scope = prune.scope.as_ref().map(super::message::Scope::text);
    let removed = sql.run(
        "forget effects",
        PRUNE,
        &[
            Value::OptText(scope.as_deref()),
            Value::Int(now.saturating_sub(prune.older_than_ms)),
            Value::Int(now),
            Value::Int(prune.limit),
        ],
    )?;
    Ok(removed.to_string())
}
