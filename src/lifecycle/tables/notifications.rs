//! The inbox: what people were, or should have been, told, whether anything carried it to them or not.

use serde::Serialize;

use super::{first, list, number};
use crate::error::Result;
use crate::lifecycle::decide::reaction::Priority;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::{ReactionKey, Word as _};

/// So many one statement marks.
const CHUNK: usize = 16;

/// Something for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Its number; newer ones have higher ones.
    pub id: i64,
    /// Of which project.
    pub project_id: String,
    /// About which session.
    pub session_id: String,
    /// Which reaction it belongs to.
    pub reaction: String,
    /// `reaction.<key>` or `reaction.escalated`
    #[serde(rename = "type")]
    pub event_type: String,
    /// `urgent`, `action` or `info`
    pub priority: String,
    /// What is said.
    pub message: String,
    /// How often it was said.
    pub count: i64,
    /// When it was said first.
    pub first_at: Millis,
    /// When it was said last.
    pub last_at: Millis,
    /// When somebody saw it.
    pub seen_at: Option<Millis>,
    /// When its cause went away, or somebody said so.
    pub resolved_at: Option<Millis>,
}

/// What is to be said.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// About which session.
    pub session_id: &'a str,
    /// Which reaction it belongs to.
    pub reaction: ReactionKey,
    /// `reaction.<key>` or `reaction.escalated`
    pub event_type: &'a str,
    /// How much it presses.
    pub priority: Priority,
    /// What is said.
    pub message: &'a str,
}

/// Puts a notification in, or counts it to the one that is not resolved. One that only informs is resolved from the beginning.
///
/// # Errors
/// As [`Sql::run`].
pub fn post(sql: &mut dyn Sql, what: &Post<'_>, now: Millis) -> Result<()> {
    let at = time::text(now)?;
    let priority = match what.priority {
        Priority::Urgent => "urgent",
        Priority::Action => "action",
        Priority::Info => "info",
    };
    let resolved = (what.priority == Priority::Info).then_some(at.as_str());
    sql.run(
        "store a notification",
        "INSERT INTO notification (project_id, session_id, reaction, event_type, priority, message, first_at, last_at, resolved_at) \
         SELECT s.project_id, s.id, ?2, ?3, ?4, ?5, ?6, ?6, ?7 FROM sessions s WHERE s.id = ?1 \
         ON CONFLICT (session_id, reaction) WHERE resolved_at IS NULL DO UPDATE SET event_type = excluded.event_type, \
         priority = excluded.priority, message = excluded.message, last_at = excluded.last_at, \
         count = notification.count + 1, seen_at = NULL",
        &[
            Value::Text(what.session_id),
            Value::Text(what.reaction.as_str()),
            Value::Text(what.event_type),
            Value::Text(priority),
            Value::Text(what.message),
            Value::Text(&at),
            Value::OptText(resolved),
        ],
    )?;
    Ok(())
}

/// Notes that the cause of a reaction's notification is gone.
///
/// # Errors
/// As [`Sql::run`].
pub fn cause_gone(sql: &mut dyn Sql, session_id: &str, reaction: ReactionKey, now: Millis) -> Result<()> {
    let at = time::text(now)?;
    sql.run(
        "resolve a notification",
        "UPDATE notification SET resolved_at = ?3 WHERE session_id = ?1 AND reaction = ?2 AND resolved_at IS NULL",
        &[Value::Text(session_id), Value::Text(reaction.as_str()), Value::Text(&at)],
    )?;
    Ok(())
}

/// Notes that the causes of all notifications about a session are gone.
///
/// # Errors
/// As [`Sql::run`].
pub fn all_gone(sql: &mut dyn Sql, session_id: &str, now: Millis) -> Result<()> {
    let at = time::text(now)?;
    // What has nothing to say costs no flush.
    let open = "SELECT count(*) FROM notification WHERE session_id = ?1 AND resolved_at IS NULL";
    if number(sql, "count notifications", open, &[Value::Text(session_id)])? == 0 {
        return Ok(());
    }
    sql.run(
        "resolve notifications",
        "UPDATE notification SET resolved_at = ?2 WHERE session_id = ?1 AND resolved_at IS NULL",
        &[Value::Text(session_id), Value::Text(&at)],
    )?;
    Ok(())
}

/// Notes that somebody settled a notification; tells whether it was open.
///
/// # Errors
/// As [`Sql::run`].
pub fn resolve(sql: &mut dyn Sql, id: i64, now: Millis) -> Result<bool> {
    let at = time::text(now)?;
    let changed = sql.run(
        "resolve a notification",
        "UPDATE notification SET resolved_at = ?2 WHERE id = ?1 AND resolved_at IS NULL",
        &[Value::Int(id), Value::Text(&at)],
    )?;
    Ok(changed > 0)
}

/// Notes that somebody saw notifications; tells of how many that is news.
///
/// # Errors
/// As [`Sql::run`].
pub fn see(sql: &mut dyn Sql, ids: &[i64], at: Millis) -> Result<u64> {
    let at = time::text(at)?;
    // Two who mark the same lock them in the same order.
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut changed = 0;
    for chunk in ids.chunks(CHUNK) {
        let mut params = vec![Value::Text(&at)];
        params.extend(chunk.iter().map(|id| Value::Int(*id)));
        // No notification has this number.
        params.resize(CHUNK + 1, Value::Int(-1));
        changed += sql.run(
            "mark notifications as seen",
            "UPDATE notification SET seen_at = ?1 WHERE seen_at IS NULL \
             AND id IN (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            &params,
        )?;
    }
    Ok(changed)
}

/// Which notifications are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Of this project.
    pub project_id: Option<&'a str>,
    /// About this session.
    pub session_id: Option<&'a str>,
    /// That are not resolved.
    pub unresolved: bool,
    /// That nobody saw.
    pub unseen: bool,
    /// With a number below this one.
    pub before: Option<i64>,
}

/// Returns notifications, newest first, at most `limit`.
///
/// # Errors
/// As [`Sql::rows`].
pub fn find(sql: &mut dyn Sql, filter: Filter<'_>, limit: i64) -> Result<Vec<Notification>> {
    macro_rules! select {
        ($scope:literal, $which:literal) => {
            concat!(
                "SELECT id, project_id, session_id, reaction, event_type, priority, message, count, first_at, last_at, seen_at, \
                 resolved_at FROM notification WHERE id < ?1",
                $scope,
                $which,
                " ORDER BY id DESC LIMIT ?2"
            )
        };
    }
    // What is open is little, what was is much: `|| ''` keeps SQLite from walking all of a project to find the one that is open.
    macro_rules! scoped {
        ($whole:literal, $part:literal) => {
            match (filter.unresolved, filter.unseen) {
                (false, false) => select!($whole, ""),
                (true, false) => select!($part, " AND resolved_at IS NULL"),
                (false, true) => select!($part, " AND seen_at IS NULL"),
                (true, true) => select!($part, " AND resolved_at IS NULL AND seen_at IS NULL"),
            }
        };
    }
    let (text, of) = match (filter.session_id, filter.project_id) {
        (Some(id), Some(project)) if id.rsplit_once('-').is_none_or(|(own, _)| own != project) => return Ok(Vec::new()),
        (Some(id), _) => (scoped!(" AND session_id = ?3", " AND session_id || '' = ?3"), Some(id)),
        (None, Some(id)) => (scoped!(" AND project_id = ?3", " AND project_id || '' = ?3"), Some(id)),
        (None, None) => (scoped!("", ""), None),
    };
    let mut params = vec![Value::Int(filter.before.unwrap_or(i64::MAX)), Value::Int(limit)];
    params.extend(of.map(Value::Text));
    list(sql, "list notifications", text, &params, read)
}

fn read(row: &dyn Row) -> Result<Notification> {
    Ok(Notification {
        id: row.int(0)?,
        project_id: row.text(1)?.to_owned(),
        session_id: row.text(2)?.to_owned(),
        reaction: row.text(3)?.to_owned(),
        event_type: row.text(4)?.to_owned(),
        priority: row.text(5)?.to_owned(),
        message: row.text(6)?.to_owned(),
        count: row.int(7)?,
        first_at: time::millis(row.text(8)?)?,
        last_at: time::millis(row.text(9)?)?,
        seen_at: time::opt_millis(row.opt_text(10)?)?,
        resolved_at: time::opt_millis(row.opt_text(11)?)?,
    })
}

/// For a badge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Nobody saw them.
    pub unseen: i64,
    /// Their cause is still there.
    pub unresolved: i64,
    /// Of those, the urgent ones.
    pub urgent: i64,
}

/// Counts the notifications of a project, or of all.
///
/// # Errors
/// As [`Sql::rows`].
pub fn counts(sql: &mut dyn Sql, project_id: Option<&str>) -> Result<Counts> {
    const DOING: &str = "count notifications";
    let read = |row: &dyn Row| Ok(Counts { unseen: row.int(0)?, unresolved: row.int(1)?, urgent: row.int(2)? });
    let found = match project_id {
        Some(id) => first(
            sql,
            DOING,
            "SELECT (SELECT count(*) FROM notification WHERE seen_at IS NULL AND project_id || '' = ?1), \
             (SELECT count(*) FROM notification WHERE resolved_at IS NULL AND project_id || '' = ?1), \
             (SELECT count(*) FROM notification WHERE resolved_at IS NULL AND project_id || '' = ?1 AND priority = 'urgent')",
            &[Value::Text(id)],
            read,
        )?,
        None => first(
            sql,
            DOING,
            "SELECT (SELECT count(*) FROM notification WHERE seen_at IS NULL), \
             (SELECT count(*) FROM notification WHERE resolved_at IS NULL), \
             (SELECT count(*) FROM notification WHERE resolved_at IS NULL AND priority = 'urgent')",
            &[],
            read,
        )?,
    };
    Ok(found.unwrap_or_default())
}

/// Removes notifications that were resolved before `limit`, at most so many; the oldest first.
///
/// # Errors
/// As [`Sql::run`].
pub fn prune(sql: &mut dyn Sql, limit: Millis, most: i64) -> Result<()> {
    let limit = time::text(limit)?;
    // Without anything to remove, nothing is locked or written.
    let oldest = "SELECT count(*) FROM (SELECT 1 FROM notification WHERE resolved_at < ?1 LIMIT 1) old";
    if number(sql, "look for notifications to remove", oldest, &[Value::Text(&limit)])? == 0 {
        return Ok(());
    }
    sql.run(
        "remove old notifications",
        "DELETE FROM notification WHERE id IN \
         (SELECT id FROM notification WHERE resolved_at < ?1 ORDER BY resolved_at, id LIMIT ?2)",
        &[Value::Text(&limit), Value::Int(most)],
    )?;
    Ok(())
}
