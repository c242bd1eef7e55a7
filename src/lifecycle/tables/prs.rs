//! Pull requests.

use super::{first, list, word};
use crate::error::Result;
use crate::lifecycle::check::constraint;
use crate::lifecycle::model::{PrFacts, PrRow};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::Word;

/// Returns a pull request.
///
/// # Errors
/// As [`Sql::rows`].
pub fn get(sql: &mut dyn Sql, url: &str) -> Result<Option<PrRow>> {
    first(
        sql,
        "read a pull request",
        "SELECT url, session_id, number, pr_state, review_decision, ci_state, mergeability, updated_at FROM pr WHERE url = ?1",
        &[Value::Text(url)],
        read,
    )
}

/// Returns the pull requests of a session: the last written first, then the highest number, then by address.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of_session(sql: &mut dyn Sql, session_id: &str) -> Result<Vec<PrRow>> {
    list(
        sql,
        "list pull requests",
        "SELECT url, session_id, number, pr_state, review_decision, ci_state, mergeability, updated_at FROM pr \
         WHERE session_id = ?1 ORDER BY updated_at DESC, number DESC, url",
        &[Value::Text(session_id)],
        read,
    )
}

/// Returns what is known of the pull request that counts for a session: the first that is open or a draft, else the first.
///
/// # Errors
/// As [`Sql::rows`].
pub fn facts(sql: &mut dyn Sql, session_id: &str) -> Result<PrFacts> {
    let found = first(
        sql,
        "read the pull request of a session",
        "SELECT p.url, p.session_id, p.number, p.pr_state, p.review_decision, p.ci_state, p.mergeability, p.updated_at, \
         CASE WHEN EXISTS (SELECT 1 FROM pr_comment c WHERE c.pr_url = p.url AND c.resolved = 0) THEN 1 ELSE 0 END \
         FROM pr p WHERE p.session_id = ?1 \
         ORDER BY CASE WHEN p.pr_state IN ('draft', 'open') THEN 0 ELSE 1 END, p.updated_at DESC, p.number DESC, p.url LIMIT 1",
        &[Value::Text(session_id)],
        |row| Ok(PrFacts::of(&read(row)?, row.int(8)? != 0)),
    )?;
    Ok(found.unwrap_or_default())
}

/// Returns the facts of all sessions of a project that have a pull request: one statement, whatever their number.
///
/// # Errors
/// As [`Sql::rows`].
pub fn facts_of_project(sql: &mut dyn Sql, project_id: &str) -> Result<std::collections::HashMap<String, PrFacts>> {
    let mut facts = std::collections::HashMap::new();
    sql.rows(
        "read the pull requests of a project",
        "SELECT p.url, p.session_id, p.number, p.pr_state, p.review_decision, p.ci_state, p.mergeability, p.updated_at, \
         CASE WHEN EXISTS (SELECT 1 FROM pr_comment c WHERE c.pr_url = p.url AND c.resolved = 0) THEN 1 ELSE 0 END \
         FROM sessions s JOIN pr p ON p.session_id = s.id WHERE s.project_id = ?1 \
         ORDER BY CASE WHEN p.pr_state IN ('draft', 'open') THEN 0 ELSE 1 END, p.updated_at DESC, p.number DESC, p.url",
        &[Value::Text(project_id)],
        &mut |row| {
            // The first of each session counts.
            if !facts.contains_key(row.text(1)?) {
                let pr = read(row)?;
                let found = PrFacts::of(&pr, row.int(8)? != 0);
                facts.insert(pr.session_id, found);
            }
            Ok(())
        },
    )?;
    Ok(facts)
}

/// Stores what was observed of a pull request. Where nothing but the time differs, nothing is written.
///
/// # Errors
/// As [`put`].
pub fn upsert(sql: &mut dyn Sql, pr: &PrRow) -> Result<()> {
    sql.lock_pr(&pr.url)?;
    match get(sql, &pr.url)? {
        Some(stored) if PrRow { updated_at: stored.updated_at, ..pr.clone() } == stored => Ok(()),
        _ => write(sql, pr),
    }
}

/// Stores a pull request with its time.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` (foreign key) without such a session. As [`Sql::run`].
pub fn put(sql: &mut dyn Sql, pr: &PrRow) -> Result<()> {
    sql.lock_pr(&pr.url)?;
    if get(sql, &pr.url)?.is_some_and(|stored| stored == *pr) { Ok(()) } else { write(sql, pr) }
}

/// Removes a pull request with its checks and comments; tells whether there was one.
///
/// # Errors
/// As [`Sql::run`].
pub fn delete(sql: &mut dyn Sql, url: &str) -> Result<bool> {
    sql.lock_pr(url)?;
    Ok(sql.run("delete a pull request", "DELETE FROM pr WHERE url = ?1", &[Value::Text(url)])? > 0)
}

fn write(sql: &mut dyn Sql, pr: &PrRow) -> Result<()> {
    let updated = time::text(pr.updated_at)?;
    // The session is looked up by the statement itself: an unknown one leaves it without a row to store.
    let stored = sql.run(
        "store a pull request",
        "INSERT INTO pr (url, session_id, number, pr_state, review_decision, ci_state, mergeability, updated_at) \
         SELECT ?1, s.id, ?3, ?4, ?5, ?6, ?7, ?8 FROM sessions s WHERE s.id = ?2 \
         ON CONFLICT (url) DO UPDATE SET session_id = excluded.session_id, number = excluded.number, \
         pr_state = excluded.pr_state, review_decision = excluded.review_decision, ci_state = excluded.ci_state, \
         mergeability = excluded.mergeability, updated_at = excluded.updated_at",
        &[
            Value::Text(&pr.url),
            Value::Text(&pr.session_id),
            Value::Int(pr.number),
            Value::Text(pr.state.as_str()),
            Value::Text(pr.review_decision.as_str()),
            Value::Text(pr.ci_state.as_str()),
            Value::Text(pr.mergeability.as_str()),
            Value::Text(&updated),
        ],
    )?;
    if stored == 0 {
        let message = format!("pr.session_id: there is no session \"{}\"; nothing was changed", pr.session_id);
        return Err(constraint("pr", "session_id", "foreign_key", message));
    }
    Ok(())
}

fn read(row: &dyn Row) -> Result<PrRow> {
    Ok(PrRow {
        url: row.text(0)?.to_owned(),
        session_id: row.text(1)?.to_owned(),
        number: row.int(2)?,
        state: word(row, 3)?,
        review_decision: word(row, 4)?,
        ci_state: word(row, 5)?,
        mergeability: word(row, 6)?,
        updated_at: time::millis(row.text(7)?)?,
    })
}
