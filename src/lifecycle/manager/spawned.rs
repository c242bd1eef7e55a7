//! A session has come up, for the first time or again.

use serde::Deserialize;

use super::policy::{Policy, PolicyInput};
use super::{Outcome, activity, react};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::model::{Activity, Metadata, Millis};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::decisions::{self, Cause};
use crate::lifecycle::tables::sessions::{self, Watched};
use crate::lifecycle::tables::{notifications, operations};
use crate::lifecycle::words::{SessionState, TerminationReason};

/// The command `spawned`.
#[derive(Debug, Clone, Deserialize)]
pub struct Spawned {
    /// The session.
    pub id: String,
    /// What it came up with.
    #[serde(default)]
    pub outcome: SpawnOutcome,
    /// What the caller believes that it was: it may have changed while the session came up.
    pub expect: Option<Expect>,
    /// The time.
    pub now: Millis,
    /// How to react to what was heard before a restore was through.
    pub policy: Option<PolicyInput>,
}

/// What a session came up with. Empty and missing fields leave what is stored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpawnOutcome {
    /// Git branch.
    pub branch: Option<String>,
    /// Its folder.
    pub workspace_path: Option<String>,
    /// Its handle.
    pub runtime_handle: Option<Handle>,
    /// The agent's name of its conversation.
    pub agent_session_id: Option<String>,
    /// What the agent was told.
    pub prompt: Option<String>,
    /// Which start this is about; one that nobody has noted, or another one has overtaken, is refused.
    pub launch_id: Option<String>,
    /// The same as [`Spawned::expect`], where the caller's own type has it.
    pub expect: Option<Expect>,
}

/// A handle of a runtime.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handle {
    /// The runtime's name of the session.
    pub id: String,
    /// Which runtime.
    pub runtime_name: String,
}

/// What a session should be when it comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// On its first way up: an end in between wins.
    Spawning,
    /// Ended: one that lives must not be started a second time.
    Terminal,
}

/// Makes a session one that has just started, with its new handles. A hook that was faster is kept; what that calls for in a session
/// that had ended is done now.
///
/// # Errors
/// `HF_LIFECYCLE_SESSION_NOT_FOUND`; `HF_LIFECYCLE_SESSION_TERMINATED` and `HF_LIFECYCLE_SESSION_BUSY` if it is not what was
/// expected. Nothing is written then.
pub fn complete(sql: &mut dyn Sql, input: &Spawned) -> Result<Outcome> {
    let id = input.id.as_str();
    let refused = |code, message: String| Err(HfError::new(code, message).with_field("sessionId", id));
    let Some(Watched { session: before, policy, .. }) = sessions::watched(sql, id)? else {
        let message = format!("lifecycle: onSpawnCompleted for unknown session {id:?}");
        return refused(Code::LifecycleSessionNotFound, message);
    };
    let stored = &before.lifecycle;
    let expect = input.expect.or(input.outcome.expect);
    match expect {
        Some(Expect::Spawning) if stored.state.is_terminal() => {
            return refused(Code::LifecycleSessionTerminated, "session: terminated".to_owned());
        }
        Some(Expect::Terminal) if !stored.state.is_terminal() => {
            let message = "session: another operation is in progress".to_owned();
            return refused(Code::LifecycleSessionBusy, message);
        }
        _ => {}
    }
    // A restore's start counts from now on; until then it stood with the operation, and what was heard of it.
    let mut early = None;
    let launch_id = input.outcome.launch_id.as_deref();
    if let Some(launch_id) = launch_id.filter(|launch_id| *launch_id != before.launch_id) {
        let Some(found) = operations::early(sql, id, launch_id)? else {
            return refused(Code::LifecycleSessionBusy, "session: another operation is in progress".to_owned());
        };
        early = found.0;
    }
    let mut after = before.clone();
    after.metadata.merge(metadata(&input.outcome));
    if stored.state.is_terminal() {
        after.lifecycle.activity = Activity::default();
        after.lifecycle.state = SessionState::NotStarted;
    }
    if let Some(heard) = early {
        after.lifecycle = activity::follow(&after.lifecycle, heard);
    }
    let was_faster = (expect == Some(Expect::Spawning) || early.is_some())
        && matches!(after.lifecycle.state, SessionState::Working | SessionState::Idle | SessionState::NeedsInput);
    if !was_faster {
        after.lifecycle.state = SessionState::NotStarted;
    }
    after.lifecycle.termination_reason = TerminationReason::None;
    after.lifecycle.is_alive = true;
    after.lifecycle.detecting = None;
    after.updated_at = input.now;
    sessions::save_always(sql, &before, &after)?;
    sessions::set_launched(sql, id, launch_id, input.now)?;
    if stored.state.is_terminal() {
        decisions::note(sql, &before, &after, Cause::Restore, || "restore completed".to_owned())?;
        notifications::all_gone(sql, id, input.now)?;
    } else {
        decisions::note(sql, &before, &after, Cause::Spawn, || "spawn completed".to_owned())?;
    }
    if early.is_none() {
        return Ok(Outcome::default());
    }
    let policy = Policy::of(input.policy.as_ref(), policy.as_deref());
    Ok(Outcome::of(react::run(sql, &after, None, &policy, input.now)?))
}

fn metadata(outcome: &SpawnOutcome) -> Metadata {
    let outcome = outcome.clone();
    let handle = outcome.runtime_handle.unwrap_or_default();
    Metadata {
        branch: outcome.branch.unwrap_or_default(),
        workspace_path: outcome.workspace_path.unwrap_or_default(),
        runtime_handle_id: handle.id,
        runtime_name: handle.runtime_name,
        agent_session_id: outcome.agent_session_id.unwrap_or_default(),
        prompt: outcome.prompt.unwrap_or_default(),
    }
}
