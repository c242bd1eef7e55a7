//! Pull requests.

use std::collections::HashMap;

use super::{first, list, word};
use crate::error::Result;
use crate::lifecycle::check::constraint;
use crate::lifecycle::decide::several::{Branched, Counted};
use crate::lifecycle::model::{PrFacts, PrRow};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::{SeveralPrs, Word};

/// Returns a pull request.
///
/// # Errors
/// As [`Sql::rows`].
pub fn get(sql: &mut dyn Sql, url: &str) -> Result<Option<PrRow>> {
    first(
        sql,
        "read a pull request",
        "SELECT url, session_id, number, pr_state, review_decision, ci_state, mergeability, updated_at, head_branch, base_branch \
         FROM pr WHERE url = ?1",
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
        "SELECT url, session_id, number, pr_state, review_decision, ci_state, mergeability, updated_at, head_branch, base_branch \
         FROM pr WHERE session_id = ?1 ORDER BY updated_at DESC, number DESC, url",
        &[Value::Text(session_id)],
        read,
    )
}

/// What is looked at of pull requests `p` of sessions, the open ones first, and of those the last written.
macro_rules! select_facts {
    ($more:literal, $from:literal, $rest:literal) => {
        concat!(
            "SELECT p.url, p.session_id, p.number, p.pr_state, p.review_decision, p.ci_state, p.mergeability, p.updated_at, \
             p.head_branch, p.base_branch, \
             CASE WHEN EXISTS (SELECT 1 FROM pr_comment c WHERE c.pr_url = p.url AND c.resolved = 0) THEN 1 ELSE 0 END",
            $more,
            " FROM ",
            $from,
            " ORDER BY CASE WHEN p.pr_state IN ('draft', 'open') THEN 0 ELSE 1 END, p.updated_at DESC, p.number DESC, p.url",
            $rest
        )
    };
}

/// Returns what is known of the pull request that counts for a session: of those that are open or drafts the newest or the worst,
/// else the newest.
///
/// # Errors
/// As [`Sql::rows`].
pub fn facts(sql: &mut dyn Sql, session_id: &str, several: SeveralPrs) -> Result<PrFacts> {
    Ok(counted(sql, session_id, several)?.first)
}

/// Returns the pull requests that count for a session.
///
/// # Errors
/// As [`Sql::rows`].
pub fn counted(sql: &mut dyn Sql, session_id: &str, several: SeveralPrs) -> Result<Counted> {
    if several == SeveralPrs::Worst
        && let Some(found) = Counted::of(several, open(sql, session_id)?)
    {
        return Ok(found);
    }
    let found = first(
        sql,
        "read the pull request of a session",
        // The last column: it goes to the branch of another open one.
        select_facts!(
            ", CASE WHEN p.base_branch <> '' AND EXISTS (SELECT 1 FROM pr o WHERE o.session_id = p.session_id AND o.url <> p.url \
             AND o.pr_state IN ('draft', 'open') AND o.head_branch = p.base_branch) THEN 1 ELSE 0 END",
            "pr p WHERE p.session_id = ?1",
            " LIMIT 1"
        ),
        &[Value::Text(session_id)],
        |row| Ok((PrFacts::of(&read(row)?, row.int(10)? != 0), row.int(11)? != 0)),
    )?;
    match found {
        Some((facts, true)) if facts.is_open() => {
            Ok(Counted::of(several, open(sql, session_id)?).unwrap_or_else(|| Counted::one(facts)))
        }
        found => Ok(Counted::one(found.unwrap_or_default().0)),
    }
}

/// The open pull requests of a session, newest first.
fn open(sql: &mut dyn Sql, session_id: &str) -> Result<Vec<Branched>> {
    list(
        sql,
        "read the open pull requests of a session",
        select_facts!("", "pr p WHERE p.session_id = ?1 AND p.pr_state IN ('draft', 'open')", ""),
        &[Value::Text(session_id)],
        |row| Ok(Branched::of(read(row)?, row.int(10)? != 0)),
    )
}

/// Returns the facts of all sessions of a project that have a pull request: one statement, whatever their number.
///
/// # Errors
/// As [`Sql::rows`].
pub fn facts_of_project(sql: &mut dyn Sql, project_id: &str, several: SeveralPrs) -> Result<HashMap<String, PrFacts>> {
    let mut sessions: HashMap<String, Vec<Branched>> = HashMap::new();
    sql.rows(
        "read the pull requests of a project",
        select_facts!("", "sessions s JOIN pr p ON p.session_id = s.id WHERE s.project_id = ?1", ""),
        &[Value::Text(project_id)],
        &mut |row| {
            let known = sessions.get_mut(row.text(1)?);
            // The first of each session counts, and beside it those that are open, if the worst is looked for.
            if known.is_some() && several == SeveralPrs::Newest {
                return Ok(());
            }
            let session_id = row.text(1)?.to_owned();
            let pr = Branched::of(read(row)?, row.int(10)? != 0);
            match known {
                Some(others) if pr.facts.is_open() => others.push(pr),
                Some(_) => {}
                None => drop(sessions.insert(session_id, vec![pr])),
            }
            Ok(())
        },
    )?;
    let counted = sessions.into_iter().filter_map(|(id, prs)| Some((id, Counted::of(several, prs)?.first)));
    Ok(counted.collect())
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
        "INSERT INTO pr (url, session_id, number, pr_state, review_decision, ci_state, mergeability, updated_at, head_branch, \
         base_branch) SELECT ?1, s.id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM sessions s WHERE s.id = ?2 \
         ON CONFLICT (url) DO UPDATE SET session_id = excluded.session_id, number = excluded.number, \
         pr_state = excluded.pr_state, review_decision = excluded.review_decision, ci_state = excluded.ci_state, \
         mergeability = excluded.mergeability, updated_at = excluded.updated_at, \
         head_branch = excluded.head_branch, base_branch = excluded.base_branch",
        &[
            Value::Text(&pr.url),
            Value::Text(&pr.session_id),
            Value::Int(pr.number),
            Value::Text(pr.state.as_str()),
            Value::Text(pr.review_decision.as_str()),
            Value::Text(pr.ci_state.as_str()),
            Value::Text(pr.mergeability.as_str()),
            Value::Text(&updated),
            Value::Text(&pr.head_branch),
            Value::Text(&pr.base_branch),
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
        head_branch: row.text(8)?.to_owned(),
        base_branch: row.text(9)?.to_owned(),
    })
}
