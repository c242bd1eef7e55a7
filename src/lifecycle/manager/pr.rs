//! A look at a pull request.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Outcome;
use super::feedback::Feedback;
use super::policy::{Policy, PolicyInput};
use super::react;
use crate::error::Result;
use crate::lifecycle::check::{self, CheckInput, CommentInput, PrInput};
use crate::lifecycle::decide::call::from_text;
use crate::lifecycle::model::{Millis, PrCheck};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::decisions::{self, Cause};
use crate::lifecycle::tables::sessions::{self, Watched};
use crate::lifecycle::tables::{self, comments, prs, reactions};
use crate::lifecycle::words::{
    MergeEnds, PrState, ReactionKey, SessionState, SeveralPrs, TerminationReason, Word as _,
};

/// The command `observePr`.
#[derive(Debug, Clone, Deserialize)]
pub struct Observe {
    /// The session.
    pub id: String,
    /// What was seen; nothing of it is looked at unless its `fetched` is true.
    pub observation: Box<RawValue>,
    /// The time.
    pub now: Millis,
    /// How to react, unless the session's project says otherwise.
    pub policy: Option<PolicyInput>,
}

/// Whether anything was seen.
#[derive(Deserialize)]
struct Fetched {
    #[serde(default)]
    fetched: Value,
}

/// What was seen.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Observation {
    url: String,
    #[serde(default)]
    number: i64,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    merged: bool,
    #[serde(default)]
    closed: bool,
    ci: Option<String>,
    review: Option<String>,
    mergeability: Option<String>,
    #[serde(default)]
    checks: Vec<CheckInput>,
    #[serde(default)]
    comments: Vec<CommentInput>,
    #[serde(default)]
    head_branch: String,
    #[serde(default)]
    base_branch: String,
}

impl Observation {
    fn state(&self) -> PrState {
        if self.merged {
            PrState::Merged
        } else if self.closed {
            PrState::Closed
        } else if self.draft {
            PrState::Draft
        } else {
            PrState::Open
        }
    }
}

/// Stores a pull request with its checks and comments, ends the session if it was merged, and reacts. What failed to be
/// fetched says nothing, and unknown sessions are left alone. Of an ended session the rows are stored, and nothing else
/// happens.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for an observation that is none, `HF_LIFECYCLE_CONSTRAINT` for an unknown word in it, and what the
/// database says. The caller rolls back then.
pub fn observe(sql: &mut dyn Sql, input: &Observe) -> Result<Outcome> {
    let text = input.observation.get();
    if !serde_json::from_str::<Fetched>(text).is_ok_and(|seen| seen.fetched == Value::Bool(true)) {
        return Ok(Outcome::default());
    }
    let mut observation: Observation = from_text("observation", text)?;
    let now = input.now;
    let Some(Watched { session: before, policy, merge_ends }) = sessions::watched(sql, &input.id)? else {
        return Ok(Outcome::default());
    };
    let runs = std::mem::take(&mut observation.checks);
    let policy = Policy::of(input.policy.as_ref(), policy.as_deref());
    let runs = record(sql, &input.id, &observation, runs, policy.several_prs, now)?;
    let ended = observation.merged && ends(sql, &input.id, merge_ends.unwrap_or(policy.merge_ends))?;
    if before.lifecycle.state.is_terminal() {
        if before.stopped && ended {
            // There is nothing left to resume it for.
            sessions::set_stopped(sql, &input.id, None)?;
        }
        return Ok(Outcome::default());
    }
    if ended {
        let mut after = before.clone();
        after.lifecycle.state = SessionState::Terminated;
        after.lifecycle.termination_reason = TerminationReason::PrMerged;
        after.lifecycle.is_alive = false;
        after.lifecycle.detecting = None;
        after.updated_at = now;
        sessions::save(sql, &before, &after)?;
        decisions::note(sql, &before, &after, Cause::Pr, || format!("pr merged {}", observation.url))?;
        return Ok(Outcome::of(react::end(sql, &after, Some(ReactionKey::PrMerged), &policy, now)?));
    }
    let feedback = Feedback { url: &observation.url, checks: &runs, comments: &observation.comments };
    Ok(Outcome::of(react::run(sql, &before, Some(&feedback), &policy, now)?))
}

/// Stores what was seen: the pull request, its checks in their order, its comments. Rows that say the same already are not
/// written.
fn record(
    sql: &mut dyn Sql,
    id: &str,
    seen: &Observation,
    checks: Vec<CheckInput>,
    several: SeveralPrs,
    now: Millis,
) -> Result<Vec<PrCheck>> {
    let row = check::pr(
        PrInput {
            url: seen.url.clone(),
            session_id: id.to_owned(),
            number: seen.number,
            state: Some(seen.state().as_str().to_owned()),
            review_decision: seen.review.clone(),
            ci_state: seen.ci.clone(),
            mergeability: seen.mergeability.clone(),
            updated_at: None,
            head_branch: seen.head_branch.clone(),
            base_branch: seen.base_branch.clone(),
        },
        now,
    )?;
    let runs = tables::checks::seen(&seen.url, checks, now)?;
    // Most looks find what is stored: then this is all that is read.
    sql.ahead(&mut |sql| {
        _ = sql.lock_pr(&seen.url);
        _ = prs::get(sql, &seen.url);
        _ = tables::checks::are_same(sql, &seen.url, &runs);
        _ = comments::of(sql, &seen.url);
        _ = prs::counted(sql, id, several);
        _ = reactions::of(sql, id);
    })?;
    prs::upsert(sql, &row)?;
    tables::checks::store(sql, &seen.url, &runs, now)?;
    comments::replace(sql, &seen.url, &seen.comments, now)?;
    Ok(runs)
}

/// Whether a merge ends the session.
fn ends(sql: &mut dyn Sql, id: &str, which: MergeEnds) -> Result<bool> {
    Ok(match which {
        MergeEnds::Any => true,
        MergeEnds::Last => !prs::facts(sql, id, SeveralPrs::Newest)?.is_open(),
        MergeEnds::Never => false,
    })
}
