//! The words of the format: every enumerated value, and its text.

use serde::{Deserialize, Serialize};

/// An enumerated value of a column.
pub trait Word: Copy + Sized + 'static {
    /// All values with their texts.
    const ALL: &'static [(Self, &'static str)];

    /// The value's text.
    fn as_str(self) -> &'static str;

    /// The value of a text.
    #[must_use]
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == text).map(|(value, _)| *value)
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $value:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $value,)* }

        impl Word for $name {
            const ALL: &'static [(Self, &'static str)] = &[$(($name::$value, $text),)*];

            fn as_str(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }
        }
    )*};
}

words! {
    /// Where a session stands.
    SessionState {
        /// Made, nothing was heard of it yet.
        NotStarted = "not_started",
        /// The agent works.
        Working = "working",
        /// The agent waits for nothing in particular.
        Idle = "idle",
        /// The agent asked something.
        NeedsInput = "needs_input",
        /// The agent, or the evidence about it, is stuck.
        Stuck = "stuck",
        /// In quarantine: the evidence is not clear.
        Detecting = "detecting",
        /// Finished by itself.
        Done = "done",
        /// Ended.
        Terminated = "terminated",
    }
    /// Why a session ended.
    TerminationReason {
        /// It has not.
        None = "",
        /// Somebody wanted it.
        ManuallyKilled = "manually_killed",
        /// Its runtime is gone.
        RuntimeLost = "runtime_lost",
        /// Its process is gone.
        AgentProcessExited = "agent_process_exited",
        /// It cannot be probed.
        ProbeFailure = "probe_failure",
        /// It did not come up.
        ErrorInProcess = "error_in_process",
        /// It was tidied away.
        AutoCleanup = "auto_cleanup",
        /// Its work was merged.
        PrMerged = "pr_merged",
    }
    /// What an agent does.
    ActivityState {
        /// Works.
        Active = "active",
        /// Has finished a turn.
        Ready = "ready",
        /// Has been quiet.
        Idle = "idle",
        /// Asks for something.
        WaitingInput = "waiting_input",
        /// Cannot go on.
        Blocked = "blocked",
        /// Has ended.
        Exited = "exited",
    }
    /// Who told of an activity.
    ActivitySource {
        /// The agent's own interface.
        Native = "native",
        /// What its terminal shows.
        Terminal = "terminal",
        /// A hook that it called.
        Hook = "hook",
        /// The runtime.
        Runtime = "runtime",
        /// Nobody.
        None = "none",
    }
    /// What a session is for.
    SessionKind {
        /// Works on something.
        Worker = "worker",
        /// Directs others.
        Orchestrator = "orchestrator",
    }
    /// What a probe found.
    ProbeResult {
        /// It lives.
        Alive = "alive",
        /// It does not.
        Dead = "dead",
        /// The probe itself failed.
        Failed = "failed",
        /// The probe cannot tell.
        Unknown = "unknown",
    }
    /// What is known of a process.
    ProcessLiveness {
        /// It lives.
        Alive = "alive",
        /// It does not.
        Dead = "dead",
        /// Nobody can tell.
        Indeterminate = "indeterminate",
    }
    /// Where a pull request stands.
    PrState {
        /// Not yet to be reviewed.
        Draft = "draft",
        /// Open.
        Open = "open",
        /// Merged.
        Merged = "merged",
        /// Closed without merging.
        Closed = "closed",
    }
    /// What the checks of a pull request say together.
    CiState {
        /// Nothing known.
        Unknown = "unknown",
        /// Some still run.
        Pending = "pending",
        /// All passed.
        Passing = "passing",
        /// Some failed.
        Failing = "failing",
    }
    /// What the reviewers say.
    ReviewDecision {
        /// Nothing.
        None = "none",
        /// Yes.
        Approved = "approved",
        /// No.
        ChangesRequested = "changes_requested",
        /// They have to say something first.
        ReviewRequired = "review_required",
    }
    /// Whether a pull request can be merged.
    Mergeability {
        /// Nothing known.
        Unknown = "unknown",
        /// Yes.
        Mergeable = "mergeable",
        /// It conflicts with its base.
        Conflicting = "conflicting",
        /// Rules forbid it.
        Blocked = "blocked",
        /// Some checks say no.
        Unstable = "unstable",
    }
    /// How a check went.
    CheckStatus {
        /// Nothing known.
        Unknown = "unknown",
        /// It waits.
        Queued = "queued",
        /// It runs.
        InProgress = "in_progress",
        /// Good.
        Passed = "passed",
        /// Bad.
        Failed = "failed",
        /// It was not run.
        Skipped = "skipped",
        /// It was stopped.
        Cancelled = "cancelled",
    }
    /// What a person is shown; derived, never stored.
    SessionStatus {
        /// It came up, and its agent has not been heard since.
        NoSignal = "no_signal",
        /// Not started yet.
        Spawning = "spawning",
        /// The agent works.
        Working = "working",
        /// In quarantine.
        Detecting = "detecting",
        /// It has a pull request.
        PrOpen = "pr_open",
        /// It has a draft.
        Draft = "draft",
        /// Checks fail.
        CiFailed = "ci_failed",
        /// Reviewers have to say something.
        ReviewPending = "review_pending",
        /// Reviewers want changes.
        ChangesRequested = "changes_requested",
        /// Reviewers agree.
        Approved = "approved",
        /// It can be merged.
        Mergeable = "mergeable",
        /// It was merged.
        Merged = "merged",
        /// It ended because its work is done, or was tidied away.
        Cleanup = "cleanup",
        /// The agent asked something.
        NeedsInput = "needs_input",
        /// Stuck.
        Stuck = "stuck",
        /// It did not come up.
        Errored = "errored",
        /// It was killed, or died.
        Killed = "killed",
        /// The agent is quiet.
        Idle = "idle",
        /// Finished by itself.
        Done = "done",
        /// Ended, nobody knows why.
        Terminated = "terminated",
    }
    /// Which merged pull request ends its session.
    MergeEnds {
        /// Each of them.
        Any = "any",
        /// One that leaves none open.
        Last = "last",
        /// None.
        Never = "never",
    }
    /// Which of several open pull requests counts for its session.
    SeveralPrs {
        /// The one that was written last.
        Newest = "newest",
        /// The one that is furthest from being merged.
        Worst = "worst",
    }
    /// What the engine does by itself about a change.
    ReactionKey {
        /// Tells the agent that checks fail.
        CiFailed = "ci-failed",
        /// Tells the agent what reviewers say.
        ReviewComments = "review-comments",
        /// Tells the agent to rebase.
        MergeConflicts = "merge-conflicts",
        /// Asks the agent to go on.
        AgentIdle = "agent-idle",
        /// Tells a person that it can be merged.
        ApprovedAndGreen = "approved-and-green",
        /// Tells a person that the agent is stuck.
        AgentStuck = "agent-stuck",
        /// Tells a person that the agent asks something.
        AgentNeedsInput = "agent-needs-input",
        /// Tells a person that the agent is gone.
        AgentExited = "agent-exited",
        /// Tells a person that the pull request was closed.
        PrClosed = "pr-closed",
        /// Tells a person that the pull request was merged.
        PrMerged = "pr-merged",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro has no place for the attribute")]
impl Default for CiState {
    fn default() -> Self {
        Self::Unknown
    }
}

#[expect(clippy::derivable_impls, reason = "the macro has no place for the attribute")]
impl Default for ReviewDecision {
    fn default() -> Self {
        Self::None
    }
}

#[expect(clippy::derivable_impls, reason = "the macro has no place for the attribute")]
impl Default for Mergeability {
    fn default() -> Self {
        Self::Unknown
    }
}

#[expect(clippy::derivable_impls, reason = "the macro has no place for the attribute")]
impl Default for MergeEnds {
    fn default() -> Self {
        Self::Any
    }
}

#[expect(clippy::derivable_impls, reason = "the macro has no place for the attribute")]
impl Default for SeveralPrs {
    fn default() -> Self {
        Self::Newest
    }
}

impl SessionState {
    /// Whether nothing but a restore changes it any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Terminated)
    }
}
