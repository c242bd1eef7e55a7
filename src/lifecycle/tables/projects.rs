//! Projects.

use super::{first, list};
use crate::error::Result;
use crate::lifecycle::model::{Millis, Project};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;

/// Stores a project. Of one that is known, `registered_at` stays.
///
/// # Errors
/// As [`Sql::run`].
pub fn upsert(sql: &mut dyn Sql, project: &Project) -> Result<()> {
    let (registered, archived) = (time::text(project.registered_at)?, time::opt_text(project.archived_at)?);
    if let Some(stored) = get(sql, &project.id)? {
        let same = Project { registered_at: stored.registered_at, ..project.clone() };
        if same == stored {
            return Ok(());
        }
    }
    sql.run(
        "store a project",
        "INSERT INTO projects (id, path, repo_origin_url, display_name, registered_at, archived_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO UPDATE SET path = excluded.path, \
         repo_origin_url = excluded.repo_origin_url, display_name = excluded.display_name, archived_at = excluded.archived_at",
        &[
            Value::Text(&project.id),
            Value::Text(&project.path),
            Value::Text(&project.repo_origin_url),
            Value::Text(&project.display_name),
            Value::Text(&registered),
            Value::OptText(archived.as_deref()),
        ],
    )?;
    Ok(())
}

/// Marks a project as archived; nothing happens to one that nobody knows.
///
/// # Errors
/// As [`Sql::run`].
pub fn archive(sql: &mut dyn Sql, id: &str, at: Millis) -> Result<()> {
    let at = time::text(at)?;
    sql.run(
        "archive a project",
        "UPDATE projects SET archived_at = ?2 WHERE id = ?1 AND archived_at IS DISTINCT FROM ?2",
        &[Value::Text(id), Value::Text(&at)],
    )?;
    Ok(())
}

/// Returns a project, archived or not.
///
/// # Errors
/// As [`Sql::rows`].
pub fn get(sql: &mut dyn Sql, id: &str) -> Result<Option<Project>> {
    first(
        sql,
        "read a project",
        "SELECT id, path, repo_origin_url, display_name, registered_at, archived_at FROM projects WHERE id = ?1",
        &[Value::Text(id)],
        read,
    )
}

/// Returns the active projects, by id.
///
/// # Errors
/// As [`Sql::rows`].
pub fn active(sql: &mut dyn Sql) -> Result<Vec<Project>> {
    list(
        sql,
        "list projects",
        "SELECT id, path, repo_origin_url, display_name, registered_at, archived_at FROM projects \
         WHERE archived_at IS NULL ORDER BY id",
        &[],
        read,
    )
}

/// Gives out the next number of a project's sessions; `None` without such a project. Whoever else asks waits for the end of this
/// transaction.
///
/// # Errors
/// As [`Sql::rows`].
pub fn next_number(sql: &mut dyn Sql, id: &str) -> Result<Option<i64>> {
    first(
        sql,
        "number a session",
        "UPDATE projects SET last_session_num = last_session_num + 1 WHERE id = ?1 RETURNING last_session_num",
        &[Value::Text(id)],
        |row| row.int(0),
    )
}

fn read(row: &dyn Row) -> Result<Project> {
    Ok(Project {
        id: row.text(0)?.to_owned(),
        path: row.text(1)?.to_owned(),
        repo_origin_url: row.text(2)?.to_owned(),
        display_name: row.text(3)?.to_owned(),
        registered_at: time::millis(row.text(4)?)?,
        archived_at: time::opt_millis(row.opt_text(5)?)?,
    })
}
