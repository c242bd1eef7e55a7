//! Consumers of the change log, and how far they have come.

use super::{changes, first, list};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::time;

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// The last change that it has confirmed.
    pub acked_seq: i64,
    /// When it did.
    pub updated_at: Millis,
}

/// Returns how far a consumer has come; `None` for one that nobody knows.
///
/// # Errors
/// As [`Sql::rows`].
pub fn offset(sql: &mut dyn Sql, name: &str) -> Result<Option<i64>> {
    let text = "SELECT acked_seq FROM consumer_offset WHERE name = ?1";
    first(sql, "read a consumer's place", text, &[Value::Text(name)], |row| row.int(0))
}

/// Makes a consumer known, so that the changes from now on are kept for it; it begins with the oldest that is there. Returns its place.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` without a name. As [`Sql::run`].
pub fn register(sql: &mut dyn Sql, name: &str, now: Millis) -> Result<i64> {
    if name.is_empty() {
        return Err(HfError::new(Code::InvalidArgument, "a consumer needs a name").with_argument(
            "name",
            "a string that is not empty",
            &name.into(),
        ));
    }
    let now = time::text(now)?;
    // Else retention that did not see it yet could go past the place that it gets.
    sql.lock_retention()?;
    sql.run(
        "register a consumer",
        "INSERT INTO consumer_offset (name, acked_seq, updated_at) \
         SELECT ?1, f.pruned_seq, ?2 FROM change_log_floor f WHERE f.id = 1 ON CONFLICT (name) DO NOTHING",
        &[Value::Text(name), Value::Text(&now)],
    )?;
    Ok(offset(sql, name)?.unwrap_or(0))
}

/// Confirms all changes up to `seq`. An earlier place changes nothing.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for a change that there is not yet. As [`Sql::run`].
pub fn ack(sql: &mut dyn Sql, name: &str, seq: i64, now: Millis) -> Result<()> {
    let place = match offset(sql, name)? {
        Some(place) => place,
        None => register(sql, name, now)?,
    };
    if seq <= place {
        return Ok(());
    }
    let head = changes::head(sql)?;
    if seq > head {
        let message = format!("consumer \"{name}\" cannot confirm change {seq}: the newest is {head}");
        return Err(HfError::new(Code::InvalidArgument, message)
            .with_argument("seq", format!("a change that is in the log: at most {head}"), &seq.into())
            .with_field("head", head));
    }
    let now = time::text(now)?;
    sql.run(
        "note a consumer's place",
        "UPDATE consumer_offset SET acked_seq = ?2, updated_at = ?3 WHERE name = ?1 AND acked_seq < ?2",
        &[Value::Text(name), Value::Int(seq), Value::Text(&now)],
    )?;
    Ok(())
}

/// Forgets a consumer: nothing is kept for it any more.
///
/// # Errors
/// As [`Sql::run`].
pub fn delete(sql: &mut dyn Sql, name: &str) -> Result<()> {
    sql.run("forget a consumer", "DELETE FROM consumer_offset WHERE name = ?1", &[Value::Text(name)])?;
    Ok(())
}

/// Returns all consumers, by name.
///
/// # Errors
/// As [`Sql::rows`].
pub fn all(sql: &mut dyn Sql) -> Result<Vec<Consumer>> {
    list(sql, "list consumers", "SELECT name, acked_seq, updated_at FROM consumer_offset ORDER BY name", &[], |row| {
        Ok(Consumer { name: row.text(0)?.to_owned(), acked_seq: row.int(1)?, updated_at: time::millis(row.text(2)?)? })
    })
}

/// Returns the changes that a consumer has not confirmed, oldest first, at most `limit`, as the text of a JSON array; `None` for a
/// consumer that nobody knows.
///
/// # Errors
/// `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED` where some of them are no longer kept. As [`Sql::rows`].
pub fn read(sql: &mut dyn Sql, name: &str, limit: i64) -> Result<Option<String>> {
    let Some(place) = offset(sql, name)? else { return Ok(None) };
    changes::kept(sql, place, Some(name))?;
    changes::after(sql, place, limit, None).map(Some)
}
