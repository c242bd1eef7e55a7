//! What decides about a session beside its record: the policy of its project, and its own way to end.

use super::{get, read};
use crate::error::Result;
use crate::lifecycle::model::SessionRecord;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::tables::first;
use crate::lifecycle::words::{MergeEnds, Word as _};

/// How many columns [`read`] reads; what is asked for besides comes after them.
const COLUMNS: usize = 30;

/// A session with what decides how the engine reacts to it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The session.
    pub session: SessionRecord,
    /// The policy of its project as it is stored, if that has one.
    pub policy: Option<String>,
    /// Which merge ends this very session; `None` = as the policy says.
    pub merge_ends: Option<MergeEnds>,
}

/// Returns a session with what decides how the engine reacts to it. Nobody else writes it until the end of this transaction.
///
/// # Errors
/// As [`Sql::rows`].
pub fn watched(sql: &mut dyn Sql, id: &str) -> Result<Option<Watched>> {
    sql.lock_session(id)?;
    with_policy(sql, id)
}

/// As [`watched`], for a look only.
///
/// # Errors
/// As [`Sql::rows`].
pub fn with_policy(sql: &mut dyn Sql, id: &str) -> Result<Option<Watched>> {
    // One statement for all of it: each is a way to the server and back.
    first(
        sql,
        "read a session and its policy",
        select!(
            "prompt",
            ", (SELECT p.policy FROM reaction_policy p WHERE p.project_id = sessions.project_id), merge_ends",
            "WHERE id = ?1"
        ),
        &[Value::Text(id)],
        |row| {
            let policy = row.opt_text(COLUMNS)?.map(str::to_owned);
            // A word that only a newer version knows is no reason to leave the session alone.
            let merge_ends = MergeEnds::parse(row.text(COLUMNS + 1)?);
            Ok(Watched { session: read(row)?, policy, merge_ends })
        },
    )
}

/// Returns which merge ends a session; `None` = as the policy says, or there is no such session.
///
/// # Errors
/// As [`Sql::rows`].
pub fn merge_ends(sql: &mut dyn Sql, id: &str) -> Result<Option<MergeEnds>> {
    let text = "SELECT merge_ends FROM sessions WHERE id = ?1";
    let found = first(sql, "read which merge ends a session", text, &[Value::Text(id)], |row| {
        Ok(MergeEnds::parse(row.text(0)?))
    })?;
    Ok(found.flatten())
}

/// Notes which merge ends a session; `None` = as the policy says. Tells whether there is such a session. It is no part of the record:
/// the revision stays.
///
/// # Errors
/// As [`Sql::run`].
pub fn set_merge_ends(sql: &mut dyn Sql, id: &str, ends: Option<MergeEnds>) -> Result<bool> {
    sql.lock_session(id)?;
    let changed = sql.run(
        "note which merge ends a session",
        "UPDATE sessions SET merge_ends = ?2 WHERE id = ?1 AND merge_ends <> ?2",
        &[Value::Text(id), Value::Text(ends.map_or("", MergeEnds::as_str))],
    )?;
    Ok(changed > 0 || get(sql, id)?.is_some())
}
