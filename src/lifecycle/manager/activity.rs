//! What the agent, or something that watches it, tells of its doing.

use serde::Deserialize;

use super::policy::{Policy, PolicyInput};
use super::{Outcome, is_of_other_launch, react};
use crate::error::Result;
use crate::lifecycle::check;
use crate::lifecycle::model::{Activity, Lifecycle, Millis};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::decisions::{self, Cause};
use crate::lifecycle::tables::operations::{self, Early};
use crate::lifecycle::tables::sessions::{self, Watched};
use crate::lifecycle::words::{ActivitySource, ActivityState, SessionState, TerminationReason, Word as _};

/// A stored time that is further ahead was stored by a clock that has been set back since: it makes no signal old.
const AHEAD_MAX_MS: Millis = 60_000;

/// The command `observeActivity`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observe {
    /// The session.
    pub id: String,
    /// Whether the signal means anything; if not, nothing else of it is looked at.
    pub valid: bool,
    /// `active`, `ready`, `idle`, `waiting_input`, `blocked` or `exited`.
    #[serde(default)]
    pub state: String,
    /// When it was so; missing = now.
    pub timestamp: Option<Millis>,
    /// Which start of the runtime this is about; missing = whichever counts.
    pub launch_id: Option<String>,
    /// Who tells: `native`, `terminal`, `hook`, `runtime` or `none`.
    pub source: Option<String>,
    /// The time.
    pub now: Millis,
    /// How to react, unless the session's project says otherwise.
    pub policy: Option<PolicyInput>,
}

/// Stores an activity and the state that it means. Unknown and ended sessions stay as they are, and so does one that has
/// heard something newer, or was started anew since.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for an unknown word or a time that cannot be stored, and what the database says.
pub fn observe(sql: &mut dyn Sql, input: &Observe) -> Result<Outcome> {
    if !input.valid {
        return Ok(Outcome::default());
    }
    let state: ActivityState = check::argument("state", &input.state)?;
    let source = match input.source.as_deref() {
        Some(text) => check::argument("source", text)?,
        None => ActivitySource::None,
    };
    let Some(Watched { session: before, policy, .. }) = sessions::watched(sql, &input.id)? else {
        return Ok(Outcome::default());
    };
    let at = input.timestamp.map_or(input.now, |at| at.min(input.now));
    if before.lifecycle.state.is_terminal() {
        return before_it_is_up(sql, input, Activity { state, last_activity_at: Some(at), source });
    }
    if is_of_other_launch(&before, input.launch_id.as_deref())
        || is_old(at, before.lifecycle.activity.last_activity_at, input.now)
    {
        return Ok(Outcome::default());
    }
    let mut after = before.clone();
    after.lifecycle = follow(&before.lifecycle, Activity { state, last_activity_at: Some(at), source });
    if after.lifecycle == before.lifecycle {
        return Ok(Outcome::default());
    }
    after.updated_at = input.now;
    sessions::save(sql, &before, &after)?;
    decisions::note(sql, &before, &after, Cause::Activity, || format!("{} {}", source.as_str(), state.as_str()))?;
    if is_same_but_for_time(&before.lifecycle, &after.lifecycle) {
        return Ok(Outcome::default());
    }
    let policy = Policy::of(input.policy.as_ref(), policy.as_deref());
    Ok(Outcome::of(react::run(sql, &after, None, &policy, input.now)?))
}

/// The session is being restored, and its new agent is heard before that is through: kept for when it is. Otherwise it has ended.
fn before_it_is_up(sql: &mut dyn Sql, input: &Observe, heard: Activity) -> Result<Outcome> {
    let Some(launch_id) = input.launch_id.as_deref() else {
        return Ok(Outcome::default());
    };
    if let Some(Early(before)) = operations::early(sql, &input.id, launch_id)?
        && before.is_none_or(|before| heard.last_activity_at >= before.last_activity_at)
    {
        operations::set_early(sql, &input.id, launch_id, &heard)?;
    }
    Ok(Outcome::default())
}

fn is_old(at: Millis, stored: Option<Millis>, now: Millis) -> bool {
    stored.is_some_and(|stored| at < stored && stored <= now.saturating_add(AHEAD_MAX_MS))
}

/// What an activity makes of a session that has not ended. An exit is no death: only probes conclude that.
pub(super) fn follow(stored: &Lifecycle, activity: Activity) -> Lifecycle {
    let state = match activity.state {
        ActivityState::Active => SessionState::Working,
        ActivityState::Ready | ActivityState::Idle => SessionState::Idle,
        ActivityState::WaitingInput => SessionState::NeedsInput,
        ActivityState::Blocked => SessionState::Stuck,
        ActivityState::Exited => return Lifecycle { activity, ..stored.clone() },
    };
    Lifecycle {
        state,
        termination_reason: TerminationReason::None,
        is_alive: true,
        activity,
        detecting: None,
        ..stored.clone()
    }
}

/// A chatty agent must not set off a run of reactions with each sign of life.
fn is_same_but_for_time(before: &Lifecycle, after: &Lifecycle) -> bool {
    let mut retimed = before.clone();
    retimed.activity.last_activity_at = after.activity.last_activity_at;
    retimed == *after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::model::Detecting;

    #[test]
    fn every_activity_means_its_state() {
        use ActivityState as A;
        use SessionState as S;
        for from in [S::NotStarted, S::Working, S::Idle, S::NeedsInput, S::Stuck, S::Detecting] {
            let memory = Detecting { attempts: 2, started_at: 5, evidence_hash: "old".into() };
            let stored = Lifecycle {
                state: from,
                termination_reason: TerminationReason::None,
                is_alive: false,
                harness: String::new(),
                activity: Activity::default(),
                detecting: (from == S::Detecting).then_some(memory),
            };
            for (state, to) in [
                (A::Active, S::Working),
                (A::Ready, S::Idle),
                (A::Idle, S::Idle),
                (A::WaitingInput, S::NeedsInput),
                (A::Blocked, S::Stuck),
            ] {
                let activity = Activity { state, last_activity_at: Some(1), source: ActivitySource::Hook };
                let after = follow(&stored, activity);
                assert_eq!((after.state, after.is_alive, after.detecting, after.activity), (to, true, None, activity));
            }
            let exit = Activity { state: A::Exited, last_activity_at: Some(1), source: ActivitySource::Hook };
            assert_eq!(follow(&stored, exit), Lifecycle { activity: exit, ..stored.clone() });
        }
    }

    #[test]
    fn what_is_older_is_old_unless_the_clock_was_set_back() {
        assert!(!is_old(5, None, 10));
        assert!(!is_old(5, Some(5), 10) && !is_old(6, Some(5), 10));
        assert!(is_old(4, Some(5), 10));
        assert!(is_old(10, Some(60_010), 10));
        assert!(!is_old(10, Some(60_011), 10));
    }
}
