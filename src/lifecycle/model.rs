//! What the session store passes around. As JSON: camelCase, times in milliseconds since the epoch.

use serde::{Deserialize, Serialize};

use super::words::{
    ActivitySource, ActivityState, CheckStatus, CiState, Mergeability, PrState, ReviewDecision, SessionKind,
    SessionState, TerminationReason,
};

/// Milliseconds since the epoch.
pub type Millis = i64;

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Its id, which ids of its sessions begin with.
    pub id: String,
    /// Where its repository is checked out.
    pub path: String,
    /// Where its repository comes from.
    pub repo_origin_url: String,
    /// For people.
    pub display_name: String,
    /// When it was first seen.
    pub registered_at: Millis,
    /// `None` = active.
    pub archived_at: Option<Millis>,
}

/// What the agent was last heard to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// What it does.
    pub state: ActivityState,
    /// When that was heard; `None` = never.
    pub last_activity_at: Option<Millis>,
    /// Who told.
    pub source: ActivitySource,
}

impl Default for Activity {
    fn default() -> Self {
        Self { state: ActivityState::Idle, last_activity_at: None, source: ActivitySource::None }
    }
}

/// The memory of a quarantine: what keeps one bad probe from being taken for death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detecting {
    /// Probes in a row that said the same.
    pub attempts: i64,
    /// When the quarantine began.
    pub started_at: Millis,
    /// Hash of what they said.
    pub evidence_hash: String,
}

/// The truth about a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Where it stands.
    pub state: SessionState,
    /// Why it ended; empty in all other states.
    pub termination_reason: TerminationReason,
    /// Whether its process was last seen alive.
    pub is_alive: bool,
    /// Which agent.
    pub harness: String,
    /// What the agent does.
    pub activity: Activity,
    /// Set in quarantine only.
    pub detecting: Option<Detecting>,
}

/// What is needed to find, tear down and resume a session. Never in the change log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Git branch.
    pub branch: String,
    /// Its folder.
    pub workspace_path: String,
    /// The runtime's name of it.
    pub runtime_handle_id: String,
    /// Which runtime.
    pub runtime_name: String,
    /// The agent's name of its conversation.
    pub agent_session_id: String,
    /// What the agent was told first.
    pub prompt: String,
}

impl Metadata {
    /// Takes over every field of `incoming` that is not empty; tells whether anything changed.
    pub fn merge(&mut self, incoming: Metadata) -> bool {
        let before = self.clone();
        for (field, value) in [
            (&mut self.branch, incoming.branch),
            (&mut self.workspace_path, incoming.workspace_path),
            (&mut self.runtime_handle_id, incoming.runtime_handle_id),
            (&mut self.runtime_name, incoming.runtime_name),
            (&mut self.agent_session_id, incoming.agent_session_id),
            (&mut self.prompt, incoming.prompt),
        ] {
            if !value.is_empty() {
                *field = value;
            }
        }
        *self != before
    }
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRecord {
    /// `<projectId>-<num>`
    pub id: String,
    /// Its project.
    pub project_id: String,
    /// 1, 2, 3 … in its project.
    pub num: i64,
    /// What it works on.
    pub issue_id: String,
    /// What it is for.
    pub kind: SessionKind,
    /// The truth.
    pub lifecycle: Lifecycle,
    /// Handles.
    pub metadata: Metadata,
    /// Grows with every write.
    pub revision: i64,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last written.
    pub updated_at: Millis,
    /// What people call it. No decision looks at it.
    pub display_name: String,
    /// Whether people want it on top. No decision looks at it.
    pub pinned: bool,
    /// Which start of its runtime counts; empty before the first.
    pub launch_id: String,
    /// When that one came up; `None` before the first did.
    pub launched_at: Option<Millis>,
    /// Its runtime is known to be gone: somebody else may have its handle by now.
    #[serde(skip)]
    pub runtime_freed: bool,
    /// It was ended in order to be resumed.
    #[serde(skip)]
    pub stopped: bool,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrRow {
    /// Its address, which names it.
    pub url: String,
    /// The session that it belongs to.
    pub session_id: String,
    /// Its number.
    pub number: i64,
    /// Where it stands.
    pub state: PrState,
    /// What the reviewers say.
    pub review_decision: ReviewDecision,
    /// What the checks say together.
    pub ci_state: CiState,
    /// Whether it can be merged.
    pub mergeability: Mergeability,
    /// When it was last written.
    pub updated_at: Millis,
    /// The branch that it brings; empty = unknown.
    pub head_branch: String,
    /// The branch that it goes to; empty = unknown.
    pub base_branch: String,
}

/// A run of a check on a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrCheck {
    /// The pull request.
    pub pr_url: String,
    /// The check's name.
    pub name: String,
    /// The commit.
    pub commit_hash: String,
    /// How it went.
    pub status: CheckStatus,
    /// Where to read more.
    pub url: String,
    /// The end of its output.
    pub log_tail: String,
    /// When the run was first seen.
    pub created_at: Millis,
}

/// A comment of a reviewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrComment {
    /// The pull request.
    pub pr_url: String,
    /// The comment's name in it.
    pub comment_id: String,
    /// Who wrote it.
    pub author: String,
    /// About which file.
    pub file: String,
    /// About which line.
    pub line: i64,
    /// The text.
    pub body: String,
    /// Whether it is settled.
    pub resolved: bool,
    /// When it was first seen.
    pub created_at: Millis,
}

/// What is known of the pull request that counts for a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrFacts {
    /// Whether there is one.
    pub exists: bool,
    /// Its address.
    pub url: String,
    /// Its number.
    pub number: i64,
    /// Its state is `draft`.
    pub draft: bool,
    /// Its state is `merged`.
    pub merged: bool,
    /// Its state is `closed`.
    pub closed: bool,
    /// What the checks say together.
    pub ci: CiState,
    /// What the reviewers say.
    pub review: ReviewDecision,
    /// Whether it can be merged.
    pub mergeability: Mergeability,
    /// Whether it has a comment that is not settled.
    pub review_comments: bool,
    /// Whether it goes to the branch of another open pull request of the session: until that is merged, conflicts are not its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stacked: bool,
}

impl PrFacts {
    /// The facts of `pr`.
    #[must_use]
    pub fn of(pr: &PrRow, review_comments: bool) -> Self {
        Self {
            exists: true,
            url: pr.url.clone(),
            number: pr.number,
            draft: pr.state == PrState::Draft,
            merged: pr.state == PrState::Merged,
            closed: pr.state == PrState::Closed,
            ci: pr.ci_state,
            review: pr.review_decision,
            mergeability: pr.mergeability,
            review_comments,
            stacked: false,
        }
    }

    /// Whether it is open, or a draft.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.exists && !self.merged && !self.closed
    }
}
