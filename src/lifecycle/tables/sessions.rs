//! Sessions.

mod marks;
mod save;

use super::{first, list, projects, word};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::check::constraint;
use crate::lifecycle::model::{Activity, Detecting, Lifecycle, Metadata, Millis, SessionRecord};
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::{SessionKind, Word};

pub use marks::{
    set_key, set_launch, set_launched, set_runtime_freed, set_runtime_freed_by, set_stopped, set_workspace_freed,
};
use save::Times;
pub use save::{save, save_always};

/// All columns of a record, in the order of [`read`]. The prompt is last, as it is in the table: `''` in its place leaves its pages unread.
macro_rules! select {
    ($rest:literal) => {
        select!("prompt", $rest)
    };
    ($prompt:literal, $rest:literal) => {
        select!($prompt, "", $rest)
    };
    ($prompt:literal, $more:literal, $rest:literal) => {
        concat!(
            "SELECT id, project_id, num, issue_id, kind, harness, session_state, termination_reason, is_alive, activity_state, \
             activity_last_at, activity_source, detecting_attempts, detecting_started_at, detecting_evidence_hash, branch, \
             workspace_path, runtime_handle_id, runtime_name, agent_session_id, revision, created_at, updated_at, \
             display_name, pinned, launch_id, launched_at, runtime_freed_at, stopped_at, ",
            $prompt,
            $more,
            " FROM sessions ",
            $rest
        )
    };
}

mod watched;
pub use watched::{Watched, merge_ends, set_merge_ends, watched, with_policy};

/// What [`insert`] is to make a session of; the rest is decided there.
#[derive(Debug, Clone)]
pub struct New {
    /// Its project.
    pub project_id: String,
    /// What it works on.
    pub issue_id: String,
    /// What it is for.
    pub kind: SessionKind,
    /// The truth.
    pub lifecycle: Lifecycle,
    /// Handles.
    pub metadata: Metadata,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last written.
    pub updated_at: Millis,
    /// For people.
    pub display_name: String,
    /// For people.
    pub pinned: bool,
}

/// Returns a session.
///
/// # Errors
/// As [`Sql::rows`].
pub fn get(sql: &mut dyn Sql, id: &str) -> Result<Option<SessionRecord>> {
    first(sql, "read a session", select!("WHERE id = ?1"), &[Value::Text(id)], read)
}

/// Returns a session that nobody else writes until the end of this transaction.
///
/// # Errors
/// As [`Sql::rows`].
pub fn get_for_update(sql: &mut dyn Sql, id: &str) -> Result<Option<SessionRecord>> {
    sql.lock_session(id)?;
    get(sql, id)
}

/// Returns the sessions of a project, by number.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of_project(sql: &mut dyn Sql, project_id: &str) -> Result<Vec<SessionRecord>> {
    list(sql, "list sessions", select!("WHERE project_id = ?1 ORDER BY num"), &[Value::Text(project_id)], read)
}

/// Returns all sessions, by project and number.
///
/// # Errors
/// As [`Sql::rows`].
pub fn all(sql: &mut dyn Sql) -> Result<Vec<SessionRecord>> {
    list(sql, "list sessions", select!("ORDER BY project_id, num"), &[], read)
}

/// Returns the sessions that have not ended, by project and number.
///
/// # Errors
/// As [`Sql::rows`].
pub fn running(sql: &mut dyn Sql) -> Result<Vec<SessionRecord>> {
    list(
        sql,
        "list running sessions",
        select!("WHERE session_state NOT IN ('done', 'terminated') ORDER BY project_id, num"),
        &[],
        read,
    )
}

/// As [`running`], with empty prompts: those may be long, and are not read then.
///
/// # Errors
/// As [`Sql::rows`].
pub fn running_without_prompts(sql: &mut dyn Sql) -> Result<Vec<SessionRecord>> {
    list(
        sql,
        "list running sessions",
        select!("''", "WHERE session_state NOT IN ('done', 'terminated') ORDER BY project_id, num"),
        &[],
        read,
    )
}

/// Returns the sessions that were stopped in order to be resumed, by project and number, with empty prompts.
///
/// # Errors
/// As [`Sql::rows`].
pub fn stopped(sql: &mut dyn Sql) -> Result<Vec<SessionRecord>> {
    list(
        sql,
        "list stopped sessions",
        select!(
            "''",
            "WHERE stopped_at IS NOT NULL AND session_state IN ('done', 'terminated') ORDER BY project_id, num"
        ),
        &[],
        read,
    )
}

/// Makes a session: takes the project's next number, names it after that, and stores it.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` (foreign key) without such a project. As [`Sql::run`].
pub fn insert(sql: &mut dyn Sql, new: New) -> Result<SessionRecord> {
    let Some(num) = projects::next_number(sql, &new.project_id)? else {
        let message = format!(
            "sessions.project_id: there is no project \"{}\"; store it with upsertProject first, nothing was changed",
            new.project_id
        );
        return Err(constraint("sessions", "project_id", "foreign_key", message));
    };
    let record = SessionRecord {
        id: format!("{}-{num}", new.project_id),
        project_id: new.project_id,
        num,
        issue_id: new.issue_id,
        kind: new.kind,
        lifecycle: new.lifecycle,
        metadata: new.metadata,
        revision: 0,
        created_at: new.created_at,
        updated_at: new.updated_at,
        display_name: new.display_name,
        pinned: new.pinned,
        launch_id: String::new(),
        launched_at: None,
        runtime_freed: false,
        stopped: false,
    };
    let times = Times::of(&record)?;
    let created = time::text(record.created_at)?;
    let (lifecycle, metadata) = (&record.lifecycle, &record.metadata);
    sql.run(
        "store a session",
        "INSERT INTO sessions (id, project_id, num, issue_id, kind, harness, session_state, termination_reason, is_alive, \
         activity_state, activity_last_at, activity_source, detecting_attempts, detecting_started_at, detecting_evidence_hash, \
         branch, workspace_path, runtime_handle_id, runtime_name, agent_session_id, revision, created_at, updated_at, \
         display_name, pinned, prompt) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, 0, ?21, ?22, ?23, ?24, \
         ?25)",
        &[
            Value::Text(&record.id),
            Value::Text(&record.project_id),
            Value::Int(record.num),
            Value::Text(&record.issue_id),
            Value::Text(record.kind.as_str()),
            Value::Text(&lifecycle.harness),
            Value::Text(lifecycle.state.as_str()),
            Value::Text(lifecycle.termination_reason.as_str()),
            Value::Int(lifecycle.is_alive.into()),
            Value::Text(lifecycle.activity.state.as_str()),
            Value::OptText(times.last_activity.as_deref()),
            Value::Text(lifecycle.activity.source.as_str()),
            Value::OptInt(lifecycle.detecting.as_ref().map(|memory| memory.attempts)),
            Value::OptText(times.detecting.as_deref()),
            Value::OptText(lifecycle.detecting.as_ref().map(|memory| memory.evidence_hash.as_str())),
            Value::Text(&metadata.branch),
            Value::Text(&metadata.workspace_path),
            Value::Text(&metadata.runtime_handle_id),
            Value::Text(&metadata.runtime_name),
            Value::Text(&metadata.agent_session_id),
            Value::Text(&created),
            Value::Text(&times.updated),
            Value::Text(&record.display_name),
            Value::Int(record.pinned.into()),
            Value::Text(&metadata.prompt),
        ],
    )?;
    Ok(record)
}

/// Returns the sessions of a project that have ended and whose workspace nobody has given back, by number; not those that are to be
/// resumed in it.
///
/// # Errors
/// As [`Sql::rows`].
pub fn reclaimable(sql: &mut dyn Sql, project_id: &str) -> Result<Vec<SessionRecord>> {
    list(
        sql,
        "list sessions to clean up",
        select!(
            "WHERE project_id = ?1 AND session_state IN ('done', 'terminated') AND workspace_path <> '' \
             AND workspace_freed_at IS NULL AND stopped_at IS NULL ORDER BY num"
        ),
        &[Value::Text(project_id)],
        read,
    )
}

/// Removes a session and all that belongs to it but its changes; tells whether there was one.
///
/// # Errors
/// As [`Sql::run`].
pub fn delete(sql: &mut dyn Sql, id: &str) -> Result<bool> {
    sql.lock_session(id)?;
    Ok(sql.run("delete a session", "DELETE FROM sessions WHERE id = ?1", &[Value::Text(id)])? > 0)
}

/// Returns the session that was made with a caller's key.
///
/// # Errors
/// As [`Sql::rows`].
pub fn by_key(sql: &mut dyn Sql, project_id: &str, key: &str) -> Result<Option<SessionRecord>> {
    first(
        sql,
        "look a session up by its key",
        select!("WHERE id = (SELECT session_id FROM session_key WHERE project_id = ?1 AND key = ?2)"),
        &[Value::Text(project_id), Value::Text(key)],
        read,
    )
}

/// The error of a record that somebody else has written since it was read.
#[must_use]
pub fn stale(id: &str, expected: i64, actual: Option<i64>) -> HfError {
    let found = actual.map_or_else(|| "another one".to_owned(), |actual| actual.to_string());
    let error = HfError::new(
        Code::LifecycleStaleRecord,
        format!(
            "session {id} was written since it was read (revision {expected} expected, found {found}); read it again"
        ),
    )
    .with_field("sessionId", id)
    .with_field("expected", expected);
    match actual {
        Some(actual) => error.with_field("actual", actual),
        None => error,
    }
}

/// The error of a session that does not exist; `op` is what was to be done with it.
#[must_use]
pub fn not_found(op: &str, id: &str) -> HfError {
    HfError::new(Code::LifecycleSessionNotFound, format!("{op} {id}: session: not found"))
        .with_field("op", op)
        .with_field("sessionId", id)
}

fn read(row: &dyn Row) -> Result<SessionRecord> {
    Ok(SessionRecord {
        id: row.text(0)?.to_owned(),
        project_id: row.text(1)?.to_owned(),
        num: row.int(2)?,
        issue_id: row.text(3)?.to_owned(),
        kind: word(row, 4)?,
        lifecycle: Lifecycle {
            harness: row.text(5)?.to_owned(),
            state: word(row, 6)?,
            termination_reason: word(row, 7)?,
            is_alive: row.int(8)? != 0,
            activity: Activity {
                state: word(row, 9)?,
                last_activity_at: time::opt_millis(row.opt_text(10)?)?,
                source: word(row, 11)?,
            },
            detecting: match (row.opt_int(12)?, row.opt_text(13)?, row.opt_text(14)?) {
                (Some(attempts), Some(started), Some(hash)) => {
                    Some(Detecting { attempts, started_at: time::millis(started)?, evidence_hash: hash.to_owned() })
                }
                _ => None,
            },
        },
        metadata: Metadata {
            branch: row.text(15)?.to_owned(),
            workspace_path: row.text(16)?.to_owned(),
            runtime_handle_id: row.text(17)?.to_owned(),
            runtime_name: row.text(18)?.to_owned(),
            agent_session_id: row.text(19)?.to_owned(),
            prompt: row.text(29)?.to_owned(),
        },
        revision: row.int(20)?,
        created_at: time::millis(row.text(21)?)?,
        updated_at: time::millis(row.text(22)?)?,
        display_name: row.text(23)?.to_owned(),
        pinned: row.int(24)? != 0,
        launch_id: row.text(25)?.to_owned(),
        launched_at: time::opt_millis(row.opt_text(26)?)?,
        runtime_freed: row.opt_text(27)?.is_some(),
        stopped: row.opt_text(28)?.is_some(),
    })
}
