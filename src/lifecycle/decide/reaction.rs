//! What the engine does by itself about the state of a session: the table of reactions, and which of them a state calls for.

use serde::Serialize;

use crate::lifecycle::model::{Lifecycle, PrFacts};
use crate::lifecycle::words::{CiState, Mergeability, ReactionKey, ReviewDecision, SessionState, Word as _};

/// So many failed runs of a check in a row end the nudges about it.
pub const CI_BRAKE_RUNS: i64 = 3;
/// So many nudges about reviews are sent, then a person is called.
pub const REVIEW_MAX_NUDGES: i64 = 3;
/// Milliseconds after which an unanswered nudge goes to a person.
pub const ESCALATE_AFTER_MS: i64 = 900_000;

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// The running agent.
    Agent,
    /// A person.
    Human,
}

/// How much it presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// At once.
    Urgent,
    /// Soon.
    Action,
    /// Good to know.
    Info,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaction {
    /// Who is told.
    pub to: Audience,
    /// How much it presses.
    pub priority: Priority,
    /// What is said; feedback adds its details.
    pub message: &'static str,
    /// Whether a person is called when nothing came of it for [`ESCALATE_AFTER_MS`].
    pub by_time: bool,
}

/// Returns the row of `key`.
#[must_use]
pub fn reaction(key: ReactionKey) -> Reaction {
    use Audience::{Agent, Human};
    use Priority::{Action, Info, Urgent};
    let (to, priority, message) = match key {
        ReactionKey::CiFailed => (Agent, Action, "CI is failing on your PR. Review the output below and push a fix."),
        ReactionKey::ReviewComments => (Agent, Action, "A reviewer left feedback on your PR. Address it and push."),
        ReactionKey::MergeConflicts => {
            (Agent, Action, "Your PR has merge conflicts. Rebase onto the base branch and resolve them.")
        }
        ReactionKey::AgentIdle => (Agent, Info, "You appear idle. Continue the task or say what is blocking you."),
        ReactionKey::ApprovedAndGreen => (Human, Action, "PR is approved and green — ready to merge."),
        ReactionKey::AgentStuck => (Human, Urgent, "Agent is stuck and needs attention."),
        ReactionKey::AgentNeedsInput => (Human, Urgent, "Agent needs input to continue."),
        ReactionKey::AgentExited => (Human, Urgent, "Agent process exited unexpectedly."),
        ReactionKey::PrClosed => (Human, Action, "PR was closed without merging."),
        ReactionKey::PrMerged => (Human, Info, "PR merged — work complete."),
    };
    let by_time = matches!(key, ReactionKey::MergeConflicts | ReactionKey::AgentIdle);
    Reaction { to, priority, message, by_time }
}

/// The type of a notice about `key`.
#[must_use]
pub fn event_type(key: ReactionKey) -> String {
    format!("reaction.{}", key.as_str())
}

/// The type of a notice that a person has to take over.
pub const ESCALATED_TYPE: &str = "reaction.escalated";

/// What a person who has to take over is told.
#[must_use]
pub fn escalation(key: ReactionKey) -> String {
    format!("Automatic handling of \"{}\" is exhausted — needs a human.", key.as_str())
}

/// Whether `key` tells of an end, and so outlives everything else that is remembered of a session.
#[must_use]
pub fn is_terminal_notice(key: ReactionKey) -> bool {
    matches!(key, ReactionKey::AgentExited | ReactionKey::PrMerged)
}

/// Whether a reviewer wants something.
#[must_use]
pub fn has_review_feedback(pr: &PrFacts) -> bool {
    pr.exists && (pr.review == ReviewDecision::ChangesRequested || pr.review_comments)
}

/// Whether checks fail.
#[must_use]
pub fn has_failing_ci(pr: &PrFacts) -> bool {
    pr.exists && pr.ci == CiState::Failing
}

/// Whether it has conflicts that are its own: those of one that is stacked on another may go when that is merged.
#[must_use]
pub fn has_conflicts(pr: &PrFacts) -> bool {
    pr.exists && pr.mergeability == Mergeability::Conflicting && !pr.stacked
}

/// Whether nothing keeps it from being merged, as far as anybody told.
#[must_use]
pub fn is_ready(pr: &PrFacts) -> bool {
    let fits = pr.mergeability != Mergeability::Conflicting;
    pr.exists && fits && (pr.mergeability == Mergeability::Mergeable || pr.review == ReviewDecision::Approved)
}

/// Whether the agent may be told what checks and reviewers say: there is something to push to, and nothing waits for a
/// person.
#[must_use]
pub fn takes_feedback(state: SessionState, pr: &PrFacts) -> bool {
    pr.is_open() && !state.is_terminal() && !matches!(state, SessionState::Stuck | SessionState::NeedsInput)
}

/// Returns the reaction to being in this state, once per stay in it. Failing checks and reviews have their own way.
#[must_use]
pub fn reaction_for(lifecycle: &Lifecycle, pr: &PrFacts) -> Option<ReactionKey> {
    match lifecycle.state {
        SessionState::Stuck => return Some(ReactionKey::AgentStuck),
        SessionState::NeedsInput => return Some(ReactionKey::AgentNeedsInput),
        _ => {}
    }
    if pr.exists && pr.closed {
        return Some(ReactionKey::PrClosed);
    }
    if pr.exists && (pr.merged || has_failing_ci(pr) || has_review_feedback(pr)) {
        return None;
    }
    if has_conflicts(pr) {
        return Some(ReactionKey::MergeConflicts);
    }
    if is_ready(pr) {
        return Some(ReactionKey::ApprovedAndGreen);
    }
    (lifecycle.state == SessionState::Idle).then_some(ReactionKey::AgentIdle)
}

#[cfg(test)]
#[path = "reaction_tests.rs"]
mod tests;
