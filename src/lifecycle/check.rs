//! What callers hand in, and the records that it becomes: defaults filled in, words looked up, rules of the tables told by name.

mod rules;
#[cfg(test)]
mod tests;

use serde::Deserialize;

pub use rules::{HARNESSES, argument, constraint, harness, word};

use self::rules::{named, word_or};
use super::model::{Activity, Detecting, Lifecycle, Metadata, Millis, PrCheck, PrComment, PrRow, Project};
use super::words::{
    ActivitySource, ActivityState, CheckStatus, CiState, Mergeability, PrState, ReviewDecision, SessionKind,
    SessionState, TerminationReason,
};
use crate::error::{Code, HfError, Result};

/// A project as it is handed in.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are those of `Project`")]
pub struct ProjectInput {
    pub id: String,
    pub path: String,
    #[serde(default)]
    pub repo_origin_url: String,
    #[serde(default)]
    pub display_name: String,
    pub registered_at: Option<Millis>,
    pub archived_at: Option<Millis>,
}

impl ProjectInput {
    /// Makes it a record; an empty id is refused.
    ///
    /// # Errors
    /// `HF_INVALID_ARGUMENT`.
    pub fn record(self, now: Millis) -> Result<Project> {
        if self.id.is_empty() {
            return Err(HfError::new(Code::InvalidArgument, "a project needs an id").with_argument(
                "id",
                "a string that is not empty",
                &"".into(),
            ));
        }
        Ok(Project {
            id: self.id,
            path: self.path,
            repo_origin_url: self.repo_origin_url,
            display_name: self.display_name,
            registered_at: self.registered_at.unwrap_or(now),
            archived_at: self.archived_at,
        })
    }
}

/// What an agent does, as it is handed in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are those of `Activity`")]
pub struct ActivityInput {
    pub state: Option<String>,
    pub last_activity_at: Option<Millis>,
    pub source: Option<String>,
}

/// The truth about a session, as it is handed in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of `Lifecycle`")]
pub struct LifecycleInput {
    pub state: Option<String>,
    pub termination_reason: Option<String>,
    pub is_alive: bool,
    pub harness: String,
    pub activity: Option<ActivityInput>,
    pub detecting: Option<Detecting>,
}

impl LifecycleInput {
    /// Makes it a record and checks the rules of the table.
    ///
    /// # Errors
    /// `HF_LIFECYCLE_CONSTRAINT`.
    pub fn record(self, harnesses: &[String]) -> Result<Lifecycle> {
        let state = match self.state.as_deref() {
            None => SessionState::NotStarted,
            Some(text) => word("sessions", "session_state", text)?,
        };
        let reason: TerminationReason =
            word("sessions", "termination_reason", self.termination_reason.as_deref().unwrap_or_default())?;
        if reason != TerminationReason::None && state != SessionState::Terminated {
            let message = "sessions.termination_reason: only a terminated session has a reason; nothing was changed";
            return Err(constraint("sessions", "termination_reason", "check", message));
        }
        if self.detecting.is_some() && state != SessionState::Detecting {
            let message =
                "sessions.detecting_attempts: only a session in detecting has that memory; nothing was changed";
            return Err(constraint("sessions", "detecting_attempts", "check", message));
        }
        harness(&self.harness, harnesses)?;
        let activity = self.activity.unwrap_or_default();
        Ok(Lifecycle {
            state,
            termination_reason: reason,
            is_alive: self.is_alive,
            harness: self.harness,
            activity: Activity {
                state: match activity.state.as_deref() {
                    None => ActivityState::Idle,
                    Some(text) => word("sessions", "activity_state", text)?,
                },
                last_activity_at: activity.last_activity_at,
                source: match activity.source.as_deref() {
                    None => ActivitySource::None,
                    Some(text) => word("sessions", "activity_source", text)?,
                },
            },
            detecting: self.detecting,
        })
    }
}

/// A session as it is handed in.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are those of `SessionRecord`")]
pub struct SessionInput {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub project_id: String,
    #[serde(default)]
    pub issue_id: String,
    pub kind: Option<String>,
    #[serde(default)]
    pub lifecycle: LifecycleInput,
    #[serde(default)]
    pub metadata: Metadata,
    pub created_at: Option<Millis>,
    pub updated_at: Option<Millis>,
    pub display_name: Option<String>,
    pub pinned: Option<bool>,
}

impl SessionInput {
    /// What it is for.
    ///
    /// # Errors
    /// `HF_LIFECYCLE_CONSTRAINT`.
    pub fn kind(&self) -> Result<SessionKind> {
        word_or("sessions", "kind", self.kind.as_deref(), SessionKind::Worker)
    }
}

/// A pull request as it is handed in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of `PrRow`")]
pub struct PrInput {
    pub url: String,
    pub session_id: String,
    pub number: i64,
    pub state: Option<String>,
    pub review_decision: Option<String>,
    pub ci_state: Option<String>,
    pub mergeability: Option<String>,
    pub updated_at: Option<Millis>,
    pub head_branch: String,
    pub base_branch: String,
}

/// Makes a record of a pull request.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT`; `HF_INVALID_ARGUMENT` without an address.
pub fn pr(input: PrInput, now: Millis) -> Result<PrRow> {
    named("a pull request needs a url", "url", &input.url)?;
    Ok(PrRow {
        state: word_or("pr", "pr_state", input.state.as_deref(), PrState::Open)?,
        review_decision: word_or("pr", "review_decision", input.review_decision.as_deref(), ReviewDecision::None)?,
        ci_state: word_or("pr", "ci_state", input.ci_state.as_deref(), CiState::Unknown)?,
        mergeability: word_or("pr", "mergeability", input.mergeability.as_deref(), Mergeability::Unknown)?,
        url: input.url,
        session_id: input.session_id,
        number: input.number,
        updated_at: input.updated_at.unwrap_or(now),
        head_branch: input.head_branch,
        base_branch: input.base_branch,
    })
}

/// A run of a check as it is handed in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of `PrCheck`")]
pub struct CheckInput {
    pub pr_url: String,
    pub name: String,
    pub commit_hash: String,
    pub status: Option<String>,
    pub url: String,
    pub log_tail: String,
    pub created_at: Option<Millis>,
}

/// Makes a record of a check.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT`.
pub fn check(input: CheckInput, now: Millis) -> Result<PrCheck> {
    Ok(PrCheck {
        status: word_or("pr_checks", "status", input.status.as_deref(), CheckStatus::Unknown)?,
        pr_url: input.pr_url,
        name: input.name,
        commit_hash: input.commit_hash,
        url: input.url,
        log_tail: input.log_tail,
        created_at: input.created_at.unwrap_or(now),
    })
}

/// A comment as it is handed in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of `PrComment`")]
pub struct CommentInput {
    pub comment_id: String,
    pub author: String,
    pub file: String,
    pub line: i64,
    pub body: String,
    pub resolved: bool,
    /// Missing = that of the stored comment of the same id, else now.
    pub created_at: Option<Millis>,
}

/// Makes the set of comments that is to be stored in place of `stored`. Of two with the same id the last counts, with the time of the
/// first.
#[must_use]
pub fn comments(url: &str, inputs: &[CommentInput], stored: &[PrComment], now: Millis) -> Vec<PrComment> {
    let mut set: Vec<PrComment> = Vec::with_capacity(inputs.len());
    let mut places = std::collections::HashMap::with_capacity(inputs.len());
    let known: std::collections::HashMap<&str, Millis> =
        stored.iter().map(|comment| (comment.comment_id.as_str(), comment.created_at)).collect();
    for input in inputs {
        let id = input.comment_id.as_str();
        let first = places.get(id).and_then(|place: &usize| set.get(*place)).map(|comment| comment.created_at);
        let seen = first.or(input.created_at).or_else(|| known.get(id).copied()).unwrap_or(now);
        let comment = PrComment {
            pr_url: url.to_owned(),
            comment_id: input.comment_id.clone(),
            author: input.author.clone(),
            file: input.file.clone(),
            line: input.line,
            body: input.body.clone(),
            resolved: input.resolved,
            created_at: seen,
        };
        match places.get(id).and_then(|place| set.get_mut(*place)) {
            Some(place) => *place = comment,
            None => {
                places.insert(id, set.len());
                set.push(comment);
            }
        }
    }
    set
}
