//! The table `reaction_policy`: what projects want otherwise about reactions.

use super::{first, list};
use crate::error::Result;
use crate::lifecycle::check::constraint;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::{Sql, Value};

/// Returns the policy of a project as it is stored; `None` if it wants nothing.
///
/// # Errors
/// As [`Sql::rows`].
pub fn get(sql: &mut dyn Sql, project_id: &str) -> Result<Option<String>> {
    first(
        sql,
        "read the policy of a project",
        "SELECT policy FROM reaction_policy WHERE project_id = ?1",
        &[Value::Text(project_id)],
        |row| row.text(0).map(str::to_owned),
    )
}

/// Returns the policy of a session's project as it is stored.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of_session(sql: &mut dyn Sql, session_id: &str) -> Result<Option<String>> {
    first(
        sql,
        "read the policy of a session's project",
        "SELECT p.policy FROM sessions s JOIN reaction_policy p ON p.project_id = s.project_id WHERE s.id = ?1",
        &[Value::Text(session_id)],
        |row| row.text(0).map(str::to_owned),
    )
}

/// Stores the policy of a project in place of the one it had. `escalate_after_ms` is what `policy` says of it.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` (foreign key) without such a project. As [`Sql::run`].
pub fn put(sql: &mut dyn Sql, project_id: &str, policy: &str, escalate_after_ms: Option<Millis>) -> Result<()> {
    if get(sql, project_id)?.is_some_and(|stored| stored == policy) {
        return Ok(());
    }
    let stored = sql.run(
        "store the policy of a project",
        "INSERT INTO reaction_policy (project_id, policy, escalate_after_ms) SELECT p.id, ?2, ?3 FROM projects p WHERE p.id = ?1 \
         ON CONFLICT (project_id) DO UPDATE SET policy = excluded.policy, escalate_after_ms = excluded.escalate_after_ms",
        &[Value::Text(project_id), Value::Text(policy), Value::OptInt(escalate_after_ms)],
    )?;
    if stored == 0 {
        let message = format!(
            "reaction_policy.project_id: there is no project \"{project_id}\"; store it with upsertProject first, nothing was \
             changed"
        );
        return Err(constraint("reaction_policy", "project_id", "foreign_key", message));
    }
    Ok(())
}

/// Forgets the policy of a project.
///
/// # Errors
/// As [`Sql::run`].
pub fn delete(sql: &mut dyn Sql, project_id: &str) -> Result<()> {
    sql.run(
        "forget the policy of a project",
        "DELETE FROM reaction_policy WHERE project_id = ?1",
        &[Value::Text(project_id)],
    )?;
    Ok(())
}

/// Returns the delays of escalation that projects have of their own, each once.
///
/// # Errors
/// As [`Sql::rows`].
pub fn delays(sql: &mut dyn Sql) -> Result<Vec<Millis>> {
    list(
        sql,
        "list the delays of projects",
        "SELECT DISTINCT escalate_after_ms FROM reaction_policy WHERE escalate_after_ms IS NOT NULL",
        &[],
        |row| row.int(0),
    )
}
