//! What callers hand in, and the records that it becomes: defaults filled in, words looked up, rules of the tables told by name.

use serde::Deserialize;

use super::model::{Activity, Detecting, Lifecycle, Metadata, Millis, PrCheck, PrComment, PrRow, Project};
use super::words::{
    ActivitySource, ActivityState, CheckStatus, CiState, Mergeability, PrState, ReviewDecision, SessionKind,
    SessionState, TerminationReason, Word,
};
use crate::error::{Code, HfError, Result};

/// Agents that are known without being named when the store is opened.
pub const HARNESSES: &[&str] = &["", "claude-code", "codex", "aider", "opencode"];

/// The error of a record that breaks a rule; `rule` is `check`, `foreign_key`, `unique` or `not_null`.
#[must_use]
pub fn constraint(table: &str, column: &str, rule: &str, message: impl Into<String>) -> HfError {
    HfError::new(Code::LifecycleConstraint, message)
        .with_field("table", table)
        .with_field("column", column)
        .with_field("constraint", rule)
}

/// Looks a word up that is to be stored.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` that says what is allowed.
pub fn word<W: Word>(table: &str, column: &str, text: &str) -> Result<W> {
    W::parse(text).ok_or_else(|| {
        let message = format!("{table}.{column} must be one of {}; nothing was changed", allowed::<W>());
        constraint(table, column, "check", message)
    })
}

/// Looks a word up that somebody passed as an argument.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` that says what is allowed.
pub fn argument<W: Word>(name: &str, text: &str) -> Result<W> {
    W::parse(text).ok_or_else(|| {
        HfError::new(Code::InvalidArgument, format!("{name} must be one of {}", allowed::<W>()))
            .with_field("field", name)
    })
}

fn allowed<W: Word>() -> String {
    let quoted: Vec<String> = W::ALL.iter().map(|(_, text)| format!("'{text}'")).collect();
    quoted.join(", ")
}

/// Checks the name of an agent; `more` are those that the store was opened with.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` for one that nobody named.
pub fn harness(text: &str, more: &[String]) -> Result<()> {
    if HARNESSES.contains(&text) || more.iter().any(|known| known == text) {
        return Ok(());
    }
    let mut known: Vec<String> = HARNESSES.iter().map(|known| format!("'{known}'")).collect();
    known.extend(more.iter().map(|known| format!("'{known}'")));
    let message = format!(
        "sessions.harness must be one of {}; name further ones with `harnesses` when the store is opened",
        known.join(", ")
    );
    Err(constraint("sessions", "harness", "check", message))
}

/// An empty text and a missing one mean the same.
fn word_or<W: Word>(table: &str, column: &str, text: Option<&str>, default: W) -> Result<W> {
    match text {
        None | Some("") => Ok(default),
        Some(text) => word(table, column, text),
    }
}

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
            return Err(HfError::new(Code::InvalidArgument, "a project needs an id").with_field("field", "id"));
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

fn named(message: &str, field: &str, value: &str) -> Result<()> {
    if value.is_empty() { Err(HfError::new(Code::InvalidArgument, message).with_field("field", field)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_word_names_its_column_and_what_is_allowed() {
        let error = pr(PrInput { url: "u".into(), ci_state: Some("red".into()), ..PrInput::default() }, 0).unwrap_err();
        assert_eq!(error.code(), Code::LifecycleConstraint);
        assert_eq!(error.fields().get("column").unwrap(), "ci_state");
        assert_eq!(error.fields().get("constraint").unwrap(), "check");
        assert!(error.message().contains("'passing'"), "{error}");
        let ok = pr(PrInput { url: "u".into(), ci_state: Some(String::new()), ..PrInput::default() }, 7).unwrap();
        assert_eq!((ok.ci_state, ok.state, ok.updated_at), (CiState::Unknown, PrState::Open, 7));
    }

    #[test]
    fn reasons_and_memories_belong_to_their_states() {
        let reason = LifecycleInput { termination_reason: Some("pr_merged".into()), ..LifecycleInput::default() };
        assert_eq!(reason.record(&[]).unwrap_err().fields().get("column").unwrap(), "termination_reason");
        let memory = Detecting { attempts: 1, started_at: 0, evidence_hash: "x".into() };
        let detecting = LifecycleInput { detecting: Some(memory), ..LifecycleInput::default() };
        assert_eq!(detecting.record(&[]).unwrap_err().fields().get("column").unwrap(), "detecting_attempts");
        let agent = LifecycleInput { harness: "mine".into(), ..LifecycleInput::default() };
        assert!(agent.clone().record(&[]).is_err());
        assert!(agent.record(&["mine".into()]).is_ok());
    }

    #[test]
    fn the_last_of_two_comments_counts_with_the_time_of_the_first() {
        let comment = |id: &str, body: &str, at| CommentInput {
            comment_id: id.into(),
            body: body.into(),
            created_at: at,
            ..CommentInput::default()
        };
        let stored = comments("u", &[comment("b", "old", None)], &[], 5);
        let set = comments(
            "u",
            &[comment("a", "1", Some(3)), comment("b", "2", None), comment("a", "3", Some(9))],
            &stored,
            8,
        );
        let seen: Vec<_> = set.iter().map(|c| (c.comment_id.as_str(), c.body.as_str(), c.created_at)).collect();
        assert_eq!(seen, [("a", "3", 3), ("b", "2", 5)]);
    }
}
