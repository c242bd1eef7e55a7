//! A look at a session's runtime and process.

use serde::Deserialize;

use super::policy::{Policy, PolicyInput};
use super::{Outcome, is_of_other_launch, react};
use crate::error::Result;
use crate::lifecycle::check;
use crate::lifecycle::decide::probe::{Decision, ProbeInput, RECENT_ACTIVITY_WINDOW_MS, is_recent, resolve};
use crate::lifecycle::model::{Lifecycle, Millis};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::decisions::{self, Cause};
use crate::lifecycle::tables::sessions::{self, Watched};
use crate::lifecycle::words::{ActivityState, ProbeResult, ReactionKey, SessionState, TerminationReason};

/// The command `observeRuntime`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observe {
    /// The session.
    pub id: String,
    /// `alive`, `dead`, `failed` or `unknown`.
    pub runtime: String,
    /// The same about the agent's process.
    pub process: String,
    /// When it was seen; missing = now.
    pub observed_at: Option<Millis>,
    /// Which start of the runtime this is about; missing = whichever counts.
    pub launch_id: Option<String>,
    /// The time.
    pub now: Millis,
    /// For how long an activity speaks against death. Default: 60 000.
    pub window_ms: Option<Millis>,
    /// How to react, unless the session's project says otherwise.
    pub policy: Option<PolicyInput>,
}

/// Decides about a look and stores what follows. Unknown and ended sessions stay as they are, and
/// so does one that was started anew since.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for an unknown word or a time that cannot be stored, and what the database says.
pub fn observe(sql: &mut dyn Sql, input: &Observe) -> Result<Outcome> {
    let runtime: ProbeResult = check::argument("runtime", &input.runtime)?;
    let process: ProbeResult = check::argument("process", &input.process)?;
    let Some(Watched { session: before, policy, .. }) = sessions::watched(sql, &input.id)? else {
        return Ok(Outcome::default());
    };
    if before.lifecycle.state.is_terminal() || is_of_other_launch(&before, input.launch_id.as_deref()) {
        return Ok(Outcome::default());
    }
    let policy = Policy::of(input.policy.as_ref(), policy.as_deref());
    let seen_at = input.observed_at.unwrap_or(input.now);
    let recent = is_recent(&before.lifecycle.activity, seen_at, input.window_ms.unwrap_or(RECENT_ACTIVITY_WINDOW_MS));
    let probe = ProbeInput::of(runtime, process, recent, before.lifecycle.detecting.clone(), seen_at);
    let mut after = before.clone();
    let verdict = resolve(&probe, policy.limits());
    after.lifecycle = follow(&before.lifecycle, &verdict);
    if after.lifecycle == before.lifecycle {
        return Ok(Outcome::default());
    }
    after.updated_at = input.now;
    sessions::save(sql, &before, &after)?;
    decisions::note(sql, &before, &after, Cause::Probe, || verdict.evidence)?;
    if after.lifecycle.state == SessionState::Terminated {
        sessions::set_runtime_freed(sql, &input.id, input.now)?;
        let notice = is_unexpected(after.lifecycle.termination_reason).then_some(ReactionKey::AgentExited);
        return Ok(Outcome::of(react::end(sql, &after, notice, &policy, input.now)?));
    }
    Ok(Outcome::of(react::run(sql, &after, None, &policy, input.now)?))
}

/// What a verdict makes of a session that has not ended. Only quarantine and death are the probes' own: whether the agent is
/// idle or asks something is known from its activity.
fn follow(stored: &Lifecycle, verdict: &Decision) -> Lifecycle {
    let (state, detecting) = match (verdict.state, stored.state) {
        (SessionState::Terminated, _) => (SessionState::Terminated, None),
        (SessionState::Detecting, SessionState::Stuck) => (SessionState::Stuck, stored.detecting.clone()),
        (SessionState::Detecting, _) => (SessionState::Detecting, verdict.detecting.clone()),
        (SessionState::Stuck, _) => (SessionState::Stuck, None),
        // The question that was asked before the quarantine is still there.
        (_, SessionState::Detecting) => match stored.activity.state {
            ActivityState::WaitingInput => (SessionState::NeedsInput, None),
            ActivityState::Blocked => (SessionState::Stuck, None),
            _ => (SessionState::Working, None),
        },
        (_, state) => (state, None),
    };
    Lifecycle {
        state,
        termination_reason: verdict.termination_reason,
        is_alive: verdict.is_alive,
        detecting,
        ..stored.clone()
    }
}

fn is_unexpected(reason: TerminationReason) -> bool {
    matches!(
        reason,
        TerminationReason::RuntimeLost
            | TerminationReason::AgentProcessExited
            | TerminationReason::ProbeFailure
            | TerminationReason::ErrorInProcess
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::model::{Activity, Detecting};
    use crate::lifecycle::words::ActivitySource;

    fn stored(state: SessionState, activity: ActivityState) -> Lifecycle {
        let memory = Detecting { attempts: 2, started_at: 5, evidence_hash: "old".into() };
        Lifecycle {
            state,
            termination_reason: TerminationReason::None,
            is_alive: false,
            harness: "codex".into(),
            activity: Activity { state: activity, last_activity_at: Some(1), source: ActivitySource::Hook },
            detecting: (state == SessionState::Detecting).then_some(memory),
        }
    }

    fn verdict(state: SessionState) -> Decision {
        let is_dead = state == SessionState::Terminated;
        let memory = Detecting { attempts: 1, started_at: 9, evidence_hash: "new".into() };
        Decision {
            state,
            termination_reason: if is_dead { TerminationReason::RuntimeLost } else { TerminationReason::None },
            is_alive: !is_dead,
            detecting: (state == SessionState::Detecting).then_some(memory),
            evidence: String::new(),
        }
    }

    #[test]
    fn every_cell_of_the_table() {
        use SessionState as S;
        let others = [S::NotStarted, S::Working, S::Idle, S::NeedsInput];
        let live = [S::NotStarted, S::Working, S::Idle, S::NeedsInput, S::Stuck, S::Detecting];
        let after = |said, state| follow(&stored(state, ActivityState::Active), &verdict(said));
        for state in live {
            let dead = after(S::Terminated, state);
            assert_eq!((dead.state, dead.is_alive, dead.detecting), (S::Terminated, false, None));
            assert_eq!(dead.termination_reason, TerminationReason::RuntimeLost);
            let stuck = after(S::Stuck, state);
            assert_eq!((stuck.state, stuck.is_alive, stuck.detecting), (S::Stuck, true, None));
        }
        for state in others {
            assert_eq!(after(S::Working, state).state, state);
            let unclear = after(S::Detecting, state);
            assert_eq!(unclear.state, S::Detecting);
            assert_eq!(unclear.detecting.unwrap().evidence_hash, "new");
        }
        assert_eq!(after(S::Working, S::Stuck).state, S::Stuck);
        let kept = after(S::Detecting, S::Stuck);
        assert_eq!((kept.state, kept.detecting, kept.is_alive), (S::Stuck, None, true));
        assert_eq!(after(S::Detecting, S::Detecting).detecting.unwrap().evidence_hash, "new");
        for (activity, state) in [
            (ActivityState::WaitingInput, S::NeedsInput),
            (ActivityState::Blocked, S::Stuck),
            (ActivityState::Active, S::Working),
            (ActivityState::Ready, S::Working),
            (ActivityState::Idle, S::Working),
            (ActivityState::Exited, S::Working),
        ] {
            let back = follow(&stored(S::Detecting, activity), &verdict(S::Working));
            assert_eq!((back.state, back.detecting, back.is_alive), (state, None, true));
            assert_eq!((back.harness.as_str(), back.activity.state), ("codex", activity));
        }
    }
}
