//! A run of reactions: what a committed change calls for, decided on the state that is being committed.

use std::collections::HashMap;

use super::Delivery;
use super::deliver::hand_out;
use super::memory::{Memory, begun};
use super::policy::Policy;
use crate::error::Result;
use crate::lifecycle::check::CommentInput;
use crate::lifecycle::decide::reaction::{
    Audience, escalation, has_failing_ci, has_review_feedback, is_terminal_notice, reaction, reaction_for,
    takes_feedback,
};
use crate::lifecycle::model::{Millis, PrCheck, PrFacts, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::reactions::{Pending, ReactionRow};
use crate::lifecycle::tables::{checks, prs};
use crate::lifecycle::words::{CheckStatus, ReactionKey};

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

/// What a run is about.
pub struct Run<'a> {
    /// The session as it is being committed.
    pub session: &'a SessionRecord,
    /// The pull request that counts for it, as stored.
    pub facts: &'a PrFacts,
    /// How to react.
    pub policy: &'a Policy,
    /// The time.
    pub now: Millis,
}

/// The last runs of a check, newest first: `(url, name, limit)`.
pub type Recent<'a> = &'a mut dyn FnMut(&str, &str, i64) -> Result<Vec<CheckStatus>>;

/// Runs the reactions of a session that has not ended, and hands out what is to be sent.
pub fn run(
    sql: &mut dyn Sql,
    session: &SessionRecord,
    feedback: Option<&Feedback<'_>>,
    policy: &Policy,
    now: Millis,
) -> Result<Vec<Delivery>> {
    let facts = prs::facts(sql, &session.id)?;
    let mut memory = Memory::load(sql, &session.id)?;
    let run = Run { session, facts: &facts, policy, now };
    run.decide(&mut memory, feedback, &mut |url, name, limit| checks::recent(sql, url, name, limit))?;
    let deliveries = hand_out(&mut memory, session, &facts, now);
    memory.save(sql)?;
    Ok(deliveries)
}

/// Tells of the end of a session, once, and forgets everything else about it.
pub fn end(
    sql: &mut dyn Sql,
    session: &SessionRecord,
    notice: Option<ReactionKey>,
    policy: &Policy,
    now: Millis,
) -> Result<Vec<Delivery>> {
    let mut memory = Memory::load(sql, &session.id)?;
    memory.end();
    silence(&mut memory, policy);
    if let Some(key) = notice.filter(|key| policy.is_on(*key)) {
        memory.put(begun(&session.id, key, Pending::Notify, policy.message(key).to_owned(), now));
    }
    let deliveries = hand_out(&mut memory, session, &PrFacts::default(), now);
    memory.save(sql)?;
    Ok(deliveries)
}

impl Run<'_> {
    /// Decides: what no longer holds is forgotten, then feedback about checks, that of reviewers, and the entry reaction.
    pub fn decide(&self, memory: &mut Memory, feedback: Option<&Feedback<'_>>, recent: Recent<'_>) -> Result<()> {
        self.forget(memory);
        let feedback = feedback.filter(|feedback| feedback.url == self.facts.url);
        if let Some(feedback) = feedback.filter(|_| takes_feedback(self.session.lifecycle.state, self.facts)) {
            self.tell_checks(memory, feedback, recent)?;
            self.tell_reviews(memory, feedback);
        }
        self.enter(memory);
        Ok(())
    }

    /// Forgets every reaction whose cause is gone from the stored facts. One that comes back begins anew.
    pub fn forget(&self, memory: &mut Memory) {
        let lifecycle = &self.session.lifecycle;
        let entry = if lifecycle.state.is_terminal() { None } else { reaction_for(lifecycle, self.facts) };
        memory.retain(|row| match row.reaction {
            key if is_terminal_notice(key) => row.pending != Pending::None,
            _ if lifecycle.state.is_terminal() => false,
            ReactionKey::CiFailed => has_failing_ci(self.facts),
            ReactionKey::ReviewComments => has_review_feedback(self.facts),
            key => entry == Some(key),
        });
        silence(memory, self.policy);
    }

    fn tell_checks(&self, memory: &mut Memory, feedback: &Feedback<'_>, recent: Recent<'_>) -> Result<()> {
        let mut failed: Vec<&PrCheck> =
            feedback.checks.iter().filter(|check| check.status == CheckStatus::Failed).collect();
        if !self.policy.all_failed_checks {
            failed.truncate(1);
        }
        let Some(first) = failed.first().filter(|_| has_failing_ci(self.facts)) else {
            return Ok(());
        };
        let base = self.policy.message(ReactionKey::CiFailed);
        let is_all = self.policy.all_failed_checks;
        let signature = if is_all { signature_of_all(&failed) } else { first.commit_hash.clone() };
        let message = || match is_all {
            true => format!("{base}{}", output_of_all(&failed)),
            false => format!("{base}\n\nFailing output:\n{}", first.log_tail),
        };
        let brake_runs = self.policy.ci_brake_runs;
        self.nudge(memory, ReactionKey::CiFailed, signature, message, |_| {
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

    fn tell_reviews(&self, memory: &mut Memory, feedback: &Feedback<'_>) {
        if !has_review_feedback(self.facts) {
            return;
        }
        let open: Vec<&CommentInput> = each_once(feedback.comments).filter(|comment| !comment.resolved).collect();
        let mut ids: Vec<&str> = open.iter().map(|comment| comment.comment_id.as_str()).collect();
        ids.sort_unstable();
        let message = || {
            let base = self.policy.message(ReactionKey::ReviewComments);
            let bodies = open.iter().map(|comment| comment.body.as_str()).filter(|body| !body.is_empty());
            std::iter::once(base).chain(bodies).collect::<Vec<_>>().join("\n\n")
        };
        let max = self.policy.review_max_nudges;
        // Counting cannot fail.
        let _ = self.nudge(memory, ReactionKey::ReviewComments, ids.join(","), message, |attempts| Ok(attempts > max));
    }

    /// Nudges the agent about feedback that it was not told yet, or calls for a person once `is_exhausted` says so of the
    /// number of attempts.
    fn nudge(
        &self,
        memory: &mut Memory,
        key: ReactionKey,
        signature: String,
        message: impl FnOnce() -> String,
        is_exhausted: impl FnOnce(i64) -> Result<bool>,
    ) -> Result<()> {
        if !self.policy.is_on(key) {
            return Ok(());
        }
        let known = memory.get(key);
        if known.is_some_and(|row| row.escalated || row.last_signature.as_ref() == Some(&signature)) {
            return Ok(());
        }
        let mut row = begun(&self.session.id, key, Pending::Nudge, clean(&message()), self.now);
        if let Some(known) = known {
            row.attempts = known.attempts.saturating_add(1);
            row.first_at = known.first_at;
        }
        row.last_signature = Some(signature);
        if is_exhausted(row.attempts)? {
            escalate(&mut row);
        }
        memory.put(row);
        Ok(())
    }

    /// Lets the state take the entry slot; only a key that was not there before speaks.
    fn enter(&self, memory: &mut Memory) {
        let Some(key) = reaction_for(&self.session.lifecycle, self.facts) else {
            return;
        };
        if memory.slot() == Some(key) {
            return;
        }
        let row = reaction(key);
        let (pending, message) = match row.to {
            _ if !self.policy.is_on(key) => (Pending::None, String::new()),
            Audience::Agent => (Pending::Nudge, clean(self.policy.message(key))),
            Audience::Human => (Pending::Notify, self.policy.message(key).to_owned()),
        };
        let begun = begun(&self.session.id, key, pending, message, self.now);
        memory.put(ReactionRow { is_current: true, escalated: pending == Pending::None, ..begun });
    }
}

/// Takes back what waits to be said of reactions that have been switched off since.
fn silence(memory: &mut Memory, policy: &Policy) {
    for row in memory.rows_mut().filter(|row| row.pending != Pending::None && !policy.is_on(row.reaction)) {
        match row.reaction {
            // The agent does not know of it: once they are switched on again, what still holds is news.
            ReactionKey::CiFailed | ReactionKey::ReviewComments if row.pending == Pending::Nudge => {
                row.attempts = row.attempts.saturating_sub(1);
                row.last_signature = None;
            }
            _ => row.escalated = true,
        }
        row.pending = Pending::None;
        row.pending_message = String::new();
        row.lease_until = None;
    }
    memory.retain(|row| row.pending != Pending::None || !is_terminal_notice(row.reaction));
}

/// Calls for a person, and says nothing more after that.
pub fn escalate(row: &mut ReactionRow) {
    row.escalated = true;
    row.pending = Pending::Escalate;
    row.pending_message = escalation(row.reaction);
    row.lease_until = None;
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

/// Takes out what a live terminal would obey: control characters other than tab and newline.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n')).collect()
}

#[cfg(test)]
#[path = "react_tests.rs"]
mod tests;
