//! Retention of the change log.

use super::{changes, first, list, notifications};
use crate::error::Result;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::time;

/// Changes that one transaction removes at most: others want to write too.
pub const BATCH: i64 = 1000;

/// What is kept of the change log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Changes that are older may go.
    pub max_age_ms: Option<i64>,
    /// Of more changes the oldest may go.
    pub max_rows: Option<i64>,
    /// They go also where a consumer has not confirmed them; it gets an error that names what it lost.
    pub hard: bool,
    /// Notifications that were resolved longer ago may go. They go with the changes, and are not counted.
    pub notifications_max_age_ms: Option<i64>,
}

/// The limits and the time for retention that nobody asked for. `last` is the time of the last command, by its caller's clock, and
/// `i64::MAX` where there was none: then nothing goes for its age. Nor does it where that clock is ahead of the system's.
#[must_use]
pub fn by_clock(limits: Limits, last: Millis) -> (Limits, Millis) {
    let now = last.min(crate::clock::epoch_ms().cast_signed());
    let timed = |age: Option<i64>| age.filter(|_| last != Millis::MAX);
    let (max_age_ms, notifications_max_age_ms) = (timed(limits.max_age_ms), timed(limits.notifications_max_age_ms));
    (Limits { max_age_ms, notifications_max_age_ms, ..limits }, now)
}

/// Removes the oldest changes that the limits let go, at most [`BATCH`]. Only ever the oldest go: what is left has no gaps. Tells how
/// many went; as many as [`BATCH`] means that there may be more.
///
/// # Errors
/// As [`Sql::run`].
pub fn prune(sql: &mut dyn Sql, limits: Limits, now: Millis) -> Result<i64> {
    sql.lock_retention()?;
    let by_rows = match limits.max_rows {
        Some(rows) => changes::head(sql)?.saturating_sub(rows.max(0)),
        None => i64::MIN,
    };
    // A time before the year 0 keeps everything.
    let before = |age: i64| now.saturating_sub(age.max(0)).max(time::MIN);
    let too_old = limits.max_age_ms.map(|age| time::text(before(age))).transpose()?;
    if let Some(age) = limits.notifications_max_age_ms {
        notifications::prune(sql, before(age), BATCH)?;
    }
    let bound = if limits.hard { None } else { slowest(sql)? };
    let mut last = None;
    let oldest = list(
        sql,
        "look for changes to remove",
        "SELECT seq, created_at FROM change_log ORDER BY seq LIMIT ?1",
        &[Value::Int(BATCH)],
        |row| Ok((row.int(0)?, row.text(1)?.to_owned())),
    )?;
    for (seq, created) in oldest {
        let wanted = bound.is_some_and(|bound| seq > bound);
        let may_go = seq <= by_rows || too_old.as_ref().is_some_and(|limit| created < *limit);
        if wanted || !may_go {
            break;
        }
        last = Some(seq);
    }
    let Some(last) = last else { return Ok(0) };
    let removed = sql.run("remove old changes", "DELETE FROM change_log WHERE seq <= ?1", &[Value::Int(last)])?;
    sql.run(
        "note what was removed of the change log",
        "UPDATE change_log_floor SET pruned_seq = ?1 WHERE id = 1 AND pruned_seq < ?1",
        &[Value::Int(last)],
    )?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}

/// How far the slowest consumer has come; `None` without any.
fn slowest(sql: &mut dyn Sql) -> Result<Option<i64>> {
    Ok(first(sql, "look for the slowest consumer", "SELECT min(acked_seq) FROM consumer_offset", &[], |row| {
        row.opt_int(0)
    })?
    .flatten())
}
