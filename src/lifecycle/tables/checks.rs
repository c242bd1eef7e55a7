//! Runs of checks.

use super::{first, list, word};
use crate::error::Result;
use crate::lifecycle::check::constraint;
use crate::lifecycle::model::{Millis, PrCheck};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::{CheckStatus, Word};

/// Stores a run. Of one that is known, `created_at` stays; where nothing differs, nothing is written.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` (foreign key) without such a pull request. As [`Sql::run`].
pub fn upsert(sql: &mut dyn Sql, check: &PrCheck, observed_at: Millis) -> Result<()> {
    sql.lock_pr(&check.pr_url)?;
    let same = first(
        sql,
        "read a check",
        "SELECT status, url, log_tail FROM pr_checks WHERE pr_url = ?1 AND name = ?2 AND commit_hash = ?3",
        &[Value::Text(&check.pr_url), Value::Text(&check.name), Value::Text(&check.commit_hash)],
        |row| Ok(row.text(0)? == check.status.as_str() && row.text(1)? == check.url && row.text(2)? == check.log_tail),
    )?;
    if same == Some(true) {
        return Ok(());
    }
    let (created, observed) = (time::text(check.created_at)?, time::text(observed_at)?);
    let stored = sql.run(
        "store a check",
        "INSERT INTO pr_checks (pr_url, name, commit_hash, status, url, created_at, observed_at, log_tail) \
         SELECT p.url, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM pr p WHERE p.url = ?1 \
         ON CONFLICT (pr_url, name, commit_hash) DO UPDATE SET status = excluded.status, url = excluded.url, \
         observed_at = excluded.observed_at, log_tail = excluded.log_tail",
        &[
            Value::Text(&check.pr_url),
            Value::Text(&check.name),
            Value::Text(&check.commit_hash),
            Value::Text(check.status.as_str()),
            Value::Text(&check.url),
            Value::Text(&created),
            Value::Text(&observed),
            Value::Text(&check.log_tail),
        ],
    )?;
    if stored == 0 {
        let message = "pr_checks.pr_url: there is no such pull request; store it first, nothing was changed";
        return Err(constraint("pr_checks", "pr_url", "foreign_key", message));
    }
    Ok(())
}

/// Returns how the last runs of a check went, the newest first.
///
/// # Errors
/// As [`Sql::rows`].
pub fn recent(sql: &mut dyn Sql, url: &str, name: &str, limit: i64) -> Result<Vec<CheckStatus>> {
    list(
        sql,
        "read the last runs of a check",
        "SELECT status FROM pr_checks WHERE pr_url = ?1 AND name = ?2 ORDER BY created_at DESC, rowid DESC LIMIT ?3",
        &[Value::Text(url), Value::Text(name), Value::Int(limit)],
        |row| word(row, 0),
    )
}

/// Returns all runs of a pull request's checks, by name and first sight.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of(sql: &mut dyn Sql, url: &str) -> Result<Vec<PrCheck>> {
    list(
        sql,
        "list checks",
        "SELECT pr_url, name, commit_hash, status, url, log_tail, created_at FROM pr_checks WHERE pr_url = ?1 \
         ORDER BY name, created_at, rowid",
        &[Value::Text(url)],
        read,
    )
}

fn read(row: &dyn Row) -> Result<PrCheck> {
    Ok(PrCheck {
        pr_url: row.text(0)?.to_owned(),
        name: row.text(1)?.to_owned(),
        commit_hash: row.text(2)?.to_owned(),
        status: word(row, 3)?,
        url: row.text(4)?.to_owned(),
        log_tail: row.text(5)?.to_owned(),
        created_at: time::millis(row.text(6)?)?,
    })
}
