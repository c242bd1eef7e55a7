//! What a probe says about a session. A failed probe is never death: what is not clear goes to quarantine.

use serde::{Deserialize, Serialize};

use super::evidence::hash_evidence;
use crate::lifecycle::model::{Activity, Detecting, Millis};
use crate::lifecycle::words::{
    ActivityState, ProbeResult, ProcessLiveness, SessionState, TerminationReason, Word as _,
};

/// So many probes in a row that say the same unclear thing make a session stuck.
pub const DETECTING_MAX_ATTEMPTS: i64 = 3;
/// A quarantine of this many milliseconds makes a session stuck whatever the probes say.
pub const DETECTING_MAX_DURATION_MS: Millis = 300_000;
/// An activity is recent for this many milliseconds. Longer than [`DETECTING_MAX_ATTEMPTS`] probes take: an active agent
/// that dies suddenly is reported stuck before it is reported dead, unless one of the two is changed.
pub const RECENT_ACTIVITY_WINDOW_MS: Millis = 60_000;

/// How long a quarantine lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Equal probes until stuck.
    pub attempts: i64,
    /// Milliseconds until stuck.
    pub duration_ms: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attempts: DETECTING_MAX_ATTEMPTS, duration_ms: DETECTING_MAX_DURATION_MS }
    }
}

/// What a decision is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeInput {
    /// The runtime was seen alive.
    pub runtime_alive: bool,
    /// The runtime could not be probed.
    pub runtime_failed: bool,
    /// What is known of the agent's process.
    pub process: ProcessLiveness,
    /// The process could not be probed.
    pub process_failed: bool,
    /// The agent was heard of lately.
    pub recent_activity: bool,
    /// Somebody wants the end.
    pub kill_requested: bool,
    /// Why; nothing means by hand.
    pub kill_reason: TerminationReason,
    /// The memory of a running quarantine.
    pub prior: Option<Detecting>,
    /// When this was seen.
    pub now: Millis,
}

/// What a session should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Its state.
    pub state: SessionState,
    /// Why it ended.
    pub termination_reason: TerminationReason,
    /// Whether it counts as alive.
    pub is_alive: bool,
    /// The memory of the quarantine.
    pub detecting: Option<Detecting>,
    /// What it was decided on.
    pub evidence: String,
}

impl ProbeInput {
    /// Makes the input out of what the two probes found.
    #[must_use]
    pub fn of(
        runtime: ProbeResult,
        process: ProbeResult,
        recent_activity: bool,
        prior: Option<Detecting>,
        now: Millis,
    ) -> Self {
        Self {
            runtime_alive: runtime == ProbeResult::Alive,
            runtime_failed: matches!(runtime, ProbeResult::Failed | ProbeResult::Unknown),
            process: match process {
                ProbeResult::Alive => ProcessLiveness::Alive,
                ProbeResult::Dead => ProcessLiveness::Dead,
                ProbeResult::Failed | ProbeResult::Unknown => ProcessLiveness::Indeterminate,
            },
            process_failed: process == ProbeResult::Failed,
            recent_activity,
            kill_requested: false,
            kill_reason: TerminationReason::None,
            prior,
            now,
        }
    }
}

/// Whether an activity speaks against death. A question and a blockade do not age, an exit never does speak.
#[must_use]
pub fn is_recent(activity: &Activity, now: Millis, window_ms: Millis) -> bool {
    match activity.state {
        ActivityState::Exited => false,
        ActivityState::WaitingInput | ActivityState::Blocked => true,
        ActivityState::Active | ActivityState::Ready | ActivityState::Idle => {
            activity.last_activity_at.is_some_and(|at| now.saturating_sub(at) <= window_ms)
        }
    }
}

/// Decides about one look at a session.
#[must_use]
pub fn resolve(input: &ProbeInput, limits: Limits) -> Decision {
    let process = input.process.as_str();
    let recent = input.recent_activity;
    let quarantine = |evidence: String| create_detecting(evidence, input.prior.as_ref(), input.now, limits);
    if input.kill_requested {
        let reason = match input.kill_reason {
            TerminationReason::None => TerminationReason::ManuallyKilled,
            reason => reason,
        };
        return ended(reason, "manual kill requested");
    }
    if input.runtime_failed || input.process_failed {
        return quarantine(format!(
            "probe_failed runtimeFailed={} process={process} processFailed={}",
            input.runtime_failed, input.process_failed
        ));
    }
    match (input.runtime_alive, input.process) {
        (true, ProcessLiveness::Dead) => {
            quarantine(format!("disagree runtime=alive process=dead recentActivity={recent}"))
        }
        (true, ProcessLiveness::Alive | ProcessLiveness::Indeterminate) => Decision {
            state: SessionState::Working,
            termination_reason: TerminationReason::None,
            is_alive: true,
            detecting: None,
            evidence: format!("alive runtime=alive process={process}"),
        },
        (false, known) if recent || known == ProcessLiveness::Alive => {
            quarantine(format!("disagree runtime=down process={process} recentActivity={recent}"))
        }
        (false, ProcessLiveness::Dead) => {
            ended(TerminationReason::RuntimeLost, "dead runtime=down process=dead recentActivity=false")
        }
        (false, _) => quarantine("runtime_lost runtime=down process=indeterminate recentActivity=false".to_owned()),
    }
}

fn ended(reason: TerminationReason, evidence: &str) -> Decision {
    Decision {
        state: SessionState::Terminated,
        termination_reason: reason,
        is_alive: false,
        detecting: None,
        evidence: evidence.to_owned(),
    }
}

/// Counts one more unclear look: the same evidence adds up, other evidence starts again, the clock of the quarantine
/// runs on in both cases.
#[must_use]
pub fn create_detecting(evidence: String, prior: Option<&Detecting>, now: Millis, limits: Limits) -> Decision {
    let evidence_hash = hash_evidence(&evidence);
    let (attempts, started_at) = match prior {
        None => (1, now),
        Some(prior) if prior.evidence_hash == evidence_hash => (prior.attempts.saturating_add(1), prior.started_at),
        Some(prior) => (1, prior.started_at),
    };
    let is_stuck = attempts >= limits.attempts || now >= started_at.saturating_add(limits.duration_ms);
    Decision {
        state: if is_stuck { SessionState::Stuck } else { SessionState::Detecting },
        termination_reason: TerminationReason::None,
        is_alive: true,
        detecting: (!is_stuck).then_some(Detecting { attempts, started_at, evidence_hash }),
        evidence,
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
