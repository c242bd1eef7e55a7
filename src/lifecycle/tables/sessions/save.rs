//! Writing a session over what is stored of it: only what differs.

use super::stale;
use crate::error::Result;
use crate::lifecycle::model::SessionRecord;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::Word as _;

/// Writes what differs between `before` and `after`, besides revision and `updated_at`; tells whether anything did. The revision
/// becomes that of `before` and one.
///
/// # Errors
/// As [`save_always`].
pub fn save(sql: &mut dyn Sql, before: &SessionRecord, after: &SessionRecord) -> Result<bool> {
    let differs = Part::of(before, after);
    if differs == Part::Nothing {
        return Ok(false);
    }
    write(sql, differs, before, after)?;
    Ok(true)
}

/// Writes `after` over `before`, whether they differ or not.
///
/// # Errors
/// `HF_LIFECYCLE_STALE_RECORD` where the stored row is no longer `before`. As [`Sql::run`].
pub fn save_always(sql: &mut dyn Sql, before: &SessionRecord, after: &SessionRecord) -> Result<()> {
    write(sql, Part::of(before, after), before, after)
}

/// Which columns differ: what is not named in an UPDATE costs no work in the indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    /// Liveness, activity, quarantine: what most observations change.
    Signs,
    /// Also the state and its reason.
    State,
    Everything,
}

impl Part {
    fn of(before: &SessionRecord, after: &SessionRecord) -> Self {
        let (old, new) = (&before.lifecycle, &after.lifecycle);
        if before.issue_id != after.issue_id
            || before.kind != after.kind
            || old.harness != new.harness
            || before.metadata != after.metadata
            || before.display_name != after.display_name
            || before.pinned != after.pinned
        {
            Part::Everything
        } else if old.state != new.state || old.termination_reason != new.termination_reason {
            Part::State
        } else if old != new {
            Part::Signs
        } else {
            Part::Nothing
        }
    }
}

/// The times of a record as they are stored.
pub(super) struct Times {
    pub last_activity: Option<String>,
    pub detecting: Option<String>,
    pub updated: String,
}

impl Times {
    pub fn of(record: &SessionRecord) -> Result<Self> {
        Ok(Self {
            last_activity: time::opt_text(record.lifecycle.activity.last_activity_at)?,
            detecting: time::opt_text(record.lifecycle.detecting.as_ref().map(|memory| memory.started_at))?,
            updated: time::text(record.updated_at)?,
        })
    }
}

fn write(sql: &mut dyn Sql, part: Part, before: &SessionRecord, after: &SessionRecord) -> Result<()> {
    const DOING: &str = "store a session";
    let times = Times::of(after)?;
    let (lifecycle, metadata) = (&after.lifecycle, &after.metadata);
    let values = [
        Value::Text(&before.id),
        Value::Int(before.revision),
        Value::Text(&times.updated),
        Value::Int(lifecycle.is_alive.into()),
        Value::Text(lifecycle.activity.state.as_str()),
        Value::OptText(times.last_activity.as_deref()),
        Value::Text(lifecycle.activity.source.as_str()),
        Value::OptInt(lifecycle.detecting.as_ref().map(|memory| memory.attempts)),
        Value::OptText(times.detecting.as_deref()),
        Value::OptText(lifecycle.detecting.as_ref().map(|memory| memory.evidence_hash.as_str())),
        Value::Text(lifecycle.state.as_str()),
        Value::Text(lifecycle.termination_reason.as_str()),
        Value::Text(&after.issue_id),
        Value::Text(after.kind.as_str()),
        Value::Text(&lifecycle.harness),
        Value::Text(&metadata.branch),
        Value::Text(&metadata.workspace_path),
        Value::Text(&metadata.runtime_handle_id),
        Value::Text(&metadata.runtime_name),
        Value::Text(&metadata.agent_session_id),
        Value::Text(&metadata.prompt),
        Value::Text(&after.display_name),
        Value::Int(after.pinned.into()),
    ];
    macro_rules! update {
        ($more:literal) => {
            concat!(
                "UPDATE sessions SET revision = ?2 + 1, updated_at = ?3, is_alive = ?4, activity_state = ?5, \
                 activity_last_at = ?6, activity_source = ?7, detecting_attempts = ?8, detecting_started_at = ?9, \
                 detecting_evidence_hash = ?10",
                $more,
                " WHERE id = ?1 AND revision = ?2"
            )
        };
    }
    let (text, count) = match part {
        Part::Nothing | Part::Signs => (update!(""), 10),
        Part::State => (update!(", session_state = ?11, termination_reason = ?12"), 12),
        Part::Everything => (
            update!(
                ", session_state = ?11, termination_reason = ?12, issue_id = ?13, kind = ?14, harness = ?15, branch = ?16, \
                 workspace_path = ?17, runtime_handle_id = ?18, runtime_name = ?19, agent_session_id = ?20, prompt = ?21, \
                 display_name = ?22, pinned = ?23, \
                 runtime_freed_at = CASE WHEN runtime_handle_id = ?18 AND runtime_name = ?19 THEN runtime_freed_at END"
            ),
            values.len(),
        ),
    };
    let changed = sql.run(DOING, text, values.get(..count).unwrap_or(&values))?;
    if changed == 0 {
        return Err(stale(&before.id, before.revision, None));
    }
    Ok(())
}
