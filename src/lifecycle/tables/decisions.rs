//! Decisions: why a session is what it is.

use super::{first, list};
use crate::error::Result;
use crate::lifecycle::model::SessionRecord;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::Word;

/// So many decisions of a session are kept at least.
pub const KEPT: i64 = 256;
/// Old ones are removed so many at a time, so that hardly any decision costs a second statement.
const SLICE: i64 = 64;
/// Characters of an evidence that are kept: addresses in it are as long as callers like.
const EVIDENCE_MAX: usize = 1000;

/// What a decision was about. The column has no check: more of them will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A look at runtime and process.
    Probe,
    /// What the agent does.
    Activity,
    /// A pull request.
    Pr,
    /// It came up.
    Spawn,
    /// It came up again.
    Restore,
    /// Somebody wanted it to end.
    Kill,
    /// Somebody wrote the record.
    Update,
}

impl Word for Cause {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Probe, "probe"),
        (Self::Activity, "activity"),
        (Self::Pr, "pr"),
        (Self::Spawn, "spawn"),
        (Self::Restore, "restore"),
        (Self::Kill, "kill"),
        (Self::Update, "update"),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(cause, _)| *cause == self).map_or("", |(_, text)| text)
    }
}

/// Notes why `before` became `after`, in the transaction that stored it. Nothing, and no statement, where neither state, reason nor
/// liveness differ, and no quarantine began or went on. `evidence` never holds prompts, handles or paths.
///
/// # Errors
/// As [`Sql::rows`].
pub fn note(
    sql: &mut dyn Sql,
    before: &SessionRecord,
    after: &SessionRecord,
    cause: Cause,
    evidence: impl FnOnce() -> String,
) -> Result<()> {
    let (old, new) = (&before.lifecycle, &after.lifecycle);
    let moved = old.state != new.state
        || old.termination_reason != new.termination_reason
        || old.is_alive != new.is_alive
        || (new.detecting.is_some() && old.detecting != new.detecting);
    if !moved {
        return Ok(());
    }
    let at = time::text(after.updated_at)?;
    let mut evidence = evidence();
    if let Some((end, _)) = evidence.char_indices().nth(EVIDENCE_MAX) {
        evidence.truncate(end);
    }
    // On PostgreSQL a trigger sets `log_seq` again at COMMIT, when the change of this transaction gets its number.
    let seq = first(
        sql,
        "note a decision",
        "INSERT INTO session_decision (session_id, seq, log_seq, at, cause, from_state, to_state, termination_reason, is_alive, \
         detecting_attempts, evidence) \
         VALUES (?1, coalesce((SELECT max(d.seq) FROM session_decision d WHERE d.session_id = ?1), 0) + 1, \
         coalesce((SELECT max(c.seq) FROM change_log c), (SELECT f.pruned_seq FROM change_log_floor f)), \
         ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING seq",
        &[
            Value::Text(&after.id),
            Value::Text(&at),
            Value::Text(cause.as_str()),
            Value::Text(old.state.as_str()),
            Value::Text(new.state.as_str()),
            Value::Text(new.termination_reason.as_str()),
            Value::Int(new.is_alive.into()),
            Value::OptInt(new.detecting.as_ref().map(|memory| memory.attempts)),
            Value::Text(&evidence),
        ],
        |row| row.int(0),
    )?;
    match seq {
        Some(seq) if seq > KEPT && seq % SLICE == 0 => {
            sql.run(
                "remove old decisions",
                "DELETE FROM session_decision WHERE session_id = ?1 AND seq <= ?2",
                &[Value::Text(&after.id), Value::Int(seq - KEPT)],
            )?;
        }
        _ => {}
    }
    Ok(())
}

/// Returns the decisions about a session, oldest first: the newest change at the time of each, and its text as an entry of the timeline.
///
/// # Errors
/// As [`Sql::rows`].
pub fn of_session(sql: &mut dyn Sql, project_id: &str, session_id: &str) -> Result<Vec<(i64, String)>> {
    list(
        sql,
        "read the decisions about a session",
        "SELECT log_seq, at, cause, from_state, to_state, termination_reason, is_alive, detecting_attempts, evidence \
         FROM session_decision WHERE session_id = ?1 ORDER BY seq",
        &[Value::Text(session_id)],
        |row| {
            let seq = row.int(0)?;
            let entry = serde_json::json!({
                "seq": seq,
                "projectId": project_id,
                "sessionId": session_id,
                "type": "decision",
                "payload": {
                    "cause": row.text(2)?,
                    "from": row.text(3)?,
                    "to": row.text(4)?,
                    "terminationReason": row.text(5)?,
                    "isAlive": row.int(6)? != 0,
                    "detectingAttempts": row.opt_int(7)?,
                    "evidence": row.text(8)?,
                },
                "createdAt": time::millis(row.text(1)?)?,
            });
            Ok((seq, entry.to_string()))
        },
    )
}
