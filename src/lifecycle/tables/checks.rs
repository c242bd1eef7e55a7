//! Runs of checks.

use std::collections::HashSet;

use super::{list, word};
use crate::error::Result;
use crate::lifecycle::check::{self, CheckInput, constraint};
use crate::lifecycle::model::{Millis, PrCheck};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::{CheckStatus, Word};

/// Makes runs of what was seen of the checks of a pull request.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` for an unknown status, `HF_INVALID_ARGUMENT` for a time that cannot be stored.
pub fn seen(url: &str, seen: Vec<CheckInput>, now: Millis) -> Result<Vec<PrCheck>> {
    seen.into_iter().map(|input| check::check(CheckInput { pr_url: url.to_owned(), ..input }, now)).collect()
}

/// Tells of each run whether the stored one says the same.
///
/// # Errors
/// As [`Sql::rows`].
pub fn are_same(sql: &mut dyn Sql, url: &str, runs: &[PrCheck]) -> Result<Vec<bool>> {
    let keys: Vec<Vec<Value<'_>>> =
        runs.iter().map(|run| vec![Value::Text(url), Value::Text(&run.name), Value::Text(&run.commit_hash)]).collect();
    let mut same = vec![false; runs.len()];
    sql.rows_each(
        "read checks",
        "SELECT status, url, log_tail FROM pr_checks WHERE pr_url = ?1 AND name = ?2 AND commit_hash = ?3",
        &keys,
        &mut |at, row| {
            if let (Some(run), Some(same)) = (runs.get(at), same.get_mut(at)) {
                *same = row.text(0)? == run.status.as_str() && row.text(1)? == run.url && row.text(2)? == run.log_tail;
            }
            Ok(())
        },
    )?;
    Ok(same)
}

/// Stores runs of the checks of a pull request, in their order. Of one that is known, `created_at` stays; where nothing differs, nothing
/// is written.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` (foreign key) without such a pull request. As [`Sql::run`].
pub fn store(sql: &mut dyn Sql, url: &str, runs: &[PrCheck], observed_at: Millis) -> Result<()> {
    sql.lock_pr(url)?;
    let same = are_same(sql, url, runs)?;
    // One that is told twice is compared with what the first made of it.
    let mut written: HashSet<(&str, &str)> = HashSet::new();
    let observed = time::text(observed_at)?;
    let mut sets = Vec::new();
    let created: Vec<String> = runs.iter().map(|run| time::text(run.created_at)).collect::<Result<_>>()?;
    for ((run, same), created) in runs.iter().zip(same).zip(&created) {
        let key = (run.name.as_str(), run.commit_hash.as_str());
        if same && !written.contains(&key) {
            continue;
        }
        written.insert(key);
        sets.push(vec![
            Value::Text(url),
            Value::Text(&run.name),
            Value::Text(&run.commit_hash),
            Value::Text(run.status.as_str()),
            Value::Text(&run.url),
            Value::Text(created),
            Value::Text(&observed),
            Value::Text(&run.log_tail),
        ]);
    }
    let stored = sql.run_each(
        "store checks",
        "INSERT INTO pr_checks (pr_url, name, commit_hash, status, url, created_at, observed_at, log_tail) \
         SELECT p.url, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM pr p WHERE p.url = ?1 \
         ON CONFLICT (pr_url, name, commit_hash) DO UPDATE SET status = excluded.status, url = excluded.url, \
         observed_at = excluded.observed_at, log_tail = excluded.log_tail",
        &sets,
    )?;
    if stored.contains(&0) {
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
