//! What checks and reviewers say, and how the agent is told.

use std::collections::HashMap;

use super::memory::{Memory, begun};
use super::react::{Run, clean, escalate};
use super::signature;
use crate::error::Result;
use crate::lifecycle::check::CommentInput;
use crate::lifecycle::decide::reaction::{has_failing_ci, has_review_feedback};
use crate::lifecycle::model::{PrCheck, PrFacts};
use crate::lifecycle::tables::reactions::Pending;
use crate::lifecycle::words::{CheckStatus, ReactionKey, SeveralPrs};

/// What an observation of a pull request says to the agent. Nothing else may carry feedback: a signal of the agent's
/// activity would answer a nudge with the same nudge.
#[derive(Clone, Copy)]
pub struct Feedback<'a> {
    /// The pull request that was looked at.
    pub url: &'a str,
    /// Its checks, in the order in which they were told.
    pub checks: &'a [PrCheck],
    /// Its comments; of two with the same id the last counts.
    pub comments: &'a [CommentInput],
}

/// The last runs of a check, newest first: `(url, name, limit)`.
pub type Recent<'a> = &'a mut dyn FnMut(&str, &str, i64) -> Result<Vec<CheckStatus>>;

impl Run<'_> {
    /// Tells of failed checks.
    pub fn tell_checks(
        &self,
        memory: &mut Memory,
        pr: &PrFacts,
        feedback: &Feedback<'_>,
        recent: Recent<'_>,
    ) -> Result<()> {
        let mut failed: Vec<&PrCheck> =
            feedback.checks.iter().filter(|check| check.status == CheckStatus::Failed).collect();
        if !self.policy.all_failed_checks {
            failed.truncate(1);
        }
        let Some(first) = failed.first().filter(|_| has_failing_ci(pr)) else {
            return Ok(());
        };
        let base = self.about(ReactionKey::CiFailed, &[pr]);
        let is_all = self.policy.all_failed_checks;
        let signature = if is_all { signature_of_all(&failed) } else { first.commit_hash.clone() };
        let message = || match is_all {
            true => format!("{base}{}", output_of_all(&failed)),
            false => format!("{base}\n\nFailing output:\n{}", first.log_tail),
        };
        let brake_runs = self.policy.ci_brake_runs;
        self.nudge(memory, ReactionKey::CiFailed, (&pr.url, signature), message, |_| {
            for check in &failed {
                let runs = recent(feedback.url, &check.name, brake_runs)?;
                let is_full = i64::try_from(runs.len()).is_ok_and(|count| count >= brake_runs);
                if is_full && runs.iter().all(|run| *run == CheckStatus::Failed) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Tells of what reviewers want.
    pub fn tell_reviews(&self, memory: &mut Memory, pr: &PrFacts, feedback: &Feedback<'_>) {
        if !has_review_feedback(pr) {
            return;
        }
        let open: Vec<&CommentInput> = each_once(feedback.comments).filter(|comment| !comment.resolved).collect();
        let mut ids: Vec<&str> = open.iter().map(|comment| comment.comment_id.as_str()).collect();
        ids.sort_unstable();
        let message = || {
            let base = self.about(ReactionKey::ReviewComments, &[pr]);
            let bodies = open.iter().map(|comment| comment.body.as_str()).filter(|body| !body.is_empty());
            std::iter::once(base.as_str()).chain(bodies).collect::<Vec<_>>().join("\n\n")
        };
        let max = self.policy.review_max_nudges;
        // Counting cannot fail.
        let said = (pr.url.as_str(), ids.join(","));
        let _ = self.nudge(memory, ReactionKey::ReviewComments, said, message, |attempts| Ok(attempts > max));
    }

    /// Nudges the agent about feedback (of which pull request, and which) that it was not told yet, or calls for a person once `is_exhausted` says so of the
    /// number of attempts.
    fn nudge(
        &self,
        memory: &mut Memory,
        key: ReactionKey,
        (url, signature): (&str, String),
        message: impl FnOnce() -> String,
        is_exhausted: impl FnOnce(i64) -> Result<bool>,
    ) -> Result<()> {
        if !self.policy.is_on(key) {
            return Ok(());
        }
        let known = memory.get(key);
        if known.is_some_and(|row| row.escalated || signature::has(row.last_signature.as_deref(), url, &signature)) {
            return Ok(());
        }
        let mut row = begun(&self.session.id, key, Pending::Nudge, clean(&message()), self.now);
        if let Some(known) = known {
            row.attempts = known.attempts.saturating_add(1);
            row.first_at = known.first_at;
            // What still has to be said of another pull request is not lost on this one.
            if known.pending == Pending::Nudge && signature::is_of_another(known.last_signature.as_deref(), url) {
                row.pending_message = format!("{}\n\n{}", known.pending_message, row.pending_message);
            }
        }
        row.last_signature = Some(match self.policy.several_prs {
            SeveralPrs::Newest => signature,
            SeveralPrs::Worst => signature::with(known.and_then(|row| row.last_signature.as_deref()), url, signature),
        });
        if is_exhausted(row.attempts)? {
            escalate(&mut row);
        }
        memory.put(row);
        Ok(())
    }
}

/// The comments as they are stored: of two with the same id the last, in the place of the first.
fn each_once(comments: &[CommentInput]) -> impl Iterator<Item = &CommentInput> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(comments.len());
    let mut set: Vec<&CommentInput> = Vec::with_capacity(comments.len());
    for comment in comments {
        let place = *places.entry(comment.comment_id.as_str()).or_insert(set.len());
        match set.get_mut(place) {
            Some(first) => *first = comment,
            None => set.push(comment),
        }
    }
    set.into_iter()
}

/// Names all failed runs, whatever order they came in.
fn signature_of_all(failed: &[&PrCheck]) -> String {
    let mut names: Vec<String> = failed.iter().map(|check| format!("{}@{}", check.name, check.commit_hash)).collect();
    names.sort_unstable();
    names.join(",")
}

/// Shows all failed runs, each output between fences that it does not hold itself.
fn output_of_all(failed: &[&PrCheck]) -> String {
    let mut text = String::new();
    for check in failed {
        let longest = check.log_tail.split(|c| c != '`').map(str::len).max().unwrap_or_default();
        let fence = "`".repeat(longest.saturating_add(1).max(3));
        let place = if check.url.is_empty() { String::new() } else { format!(" ({})", check.url) };
        text.push_str(&format!("\n\n{}{place}:\n{fence}\n{}\n{fence}", check.name, check.log_tail));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_are_longer_than_what_they_hold() {
        let check = |log: &str| PrCheck {
            pr_url: "u".into(),
            name: "n".into(),
            commit_hash: "c".into(),
            status: CheckStatus::Failed,
            url: String::new(),
            log_tail: log.into(),
            created_at: 0,
        };
        assert_eq!(output_of_all(&[&check("a `b` c")]), "\n\nn:\n```\na `b` c\n```");
        assert_eq!(output_of_all(&[&check("````")]), "\n\nn:\n`````\n````\n`````");
    }
}
