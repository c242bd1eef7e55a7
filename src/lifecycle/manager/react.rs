//! A run of reactions: what a committed change calls for, decided on the state that is being committed.

use std::collections::HashMap;

use super::Delivery;
use super::deliver::hand_out;
use super::memory::{Memory, begun};
use super::policy::Policy;
use super::signature;
use crate::error::Result;
use crate::lifecycle::check::CommentInput;
use crate::lifecycle::decide::reaction::{
    Audience, escalation, has_conflicts, has_failing_ci, has_review_feedback, is_terminal_notice, reaction,
    reaction_for, takes_feedback,
};
use crate::lifecycle::decide::several::Counted;
use crate::lifecycle::model::{Millis, PrCheck, PrFacts, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::reactions::{Pending, ReactionRow};
use crate::lifecycle::tables::{checks, prs};
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

/// What a run is about.
pub struct Run<'a> {
    /// The session as it is being committed.
    pub session: &'a SessionRecord,
    /// The pull requests that count for it, as stored.
    pub counted: &'a Counted,
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
    let counted = prs::counted(sql, &session.id, policy.several_prs)?;
    let mut memory = Memory::load(sql, &session.id)?;
    let run = Run { session, counted: &counted, policy, now };
    run.decide(&mut memory, feedback, &mut |url, name, limit| checks::recent(sql, url, name, limit))?;
    let deliveries = hand_out(&mut memory, session, &counted.first, now);
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
        let state = self.session.lifecycle.state;
        let of = |feedback: &Feedback<'_>| self.counted.all.iter().find(|pr| pr.url == feedback.url);
        if let Some(feedback) = feedback
            && let Some(pr) = of(feedback).filter(|pr| takes_feedback(state, pr))
        {
            self.tell_checks(memory, pr, feedback, recent)?;
            self.tell_reviews(memory, pr, feedback);
        }
        self.enter(memory);
        Ok(())
    }

    /// Forgets every reaction whose cause is gone from the stored facts. One that comes back begins anew.
    pub fn forget(&self, memory: &mut Memory) {
        let lifecycle = &self.session.lifecycle;
        let entry = if lifecycle.state.is_terminal() { None } else { reaction_for(lifecycle, &self.counted.first) };
        let holds = |pr: &PrFacts, key| match key {
            ReactionKey::CiFailed => has_failing_ci(pr),
            ReactionKey::ReviewComments => has_review_feedback(pr),
            ReactionKey::MergeConflicts => has_conflicts(pr),
            _ => false,
        };
        let all = &self.counted.all;
        memory.retain(|row| match row.reaction {
            key if is_terminal_notice(key) => row.pending != Pending::None,
            _ if lifecycle.state.is_terminal() => false,
            key @ (ReactionKey::CiFailed | ReactionKey::ReviewComments) => all.iter().any(|pr| holds(pr, key)),
            key => entry == Some(key),
        });
        for row in memory.rows_mut() {
            let key = row.reaction;
            signature::keep(&mut row.last_signature, |url| all.iter().any(|pr| pr.url == url && holds(pr, key)));
        }
        silence(memory, self.policy);
    }

    /// What `key` says about `prs`, without details. Where there are several, the agent is told which are meant.
    fn about(&self, key: ReactionKey, prs: &[&PrFacts]) -> String {
        let mut text = self.policy.message(key).to_owned();
        if self.counted.all.len() > 1 {
            prs.iter().for_each(|pr| text.push_str(&format!("\n\nPull request: {}", pr.url)));
        }
        text
    }

    fn tell_checks(
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

    fn tell_reviews(&self, memory: &mut Memory, pr: &PrFacts, feedback: &Feedback<'_>) {
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

    /// Lets the state take the entry slot; only a key that was not there before speaks.
    fn enter(&self, memory: &mut Memory) {
        let Some(key) = reaction_for(&self.session.lifecycle, &self.counted.first) else {
            return;
        };
        if key == ReactionKey::MergeConflicts && self.policy.several_prs == SeveralPrs::Worst {
            return self.enter_conflicts(memory);
        }
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

    /// Conflicts of several pull requests share the slot. Each is told once, and the clock is that of the oldest that is left.
    fn enter_conflicts(&self, memory: &mut Memory) {
        let key = ReactionKey::MergeConflicts;
        let known = memory.get(key).filter(|row| row.is_current).cloned();
        // One from before the pull requests were looked at together is about all that there are.
        let since = known.as_ref().filter(|row| row.last_signature.is_none()).and_then(|row| row.first_at);
        let mut row = known.clone().unwrap_or_else(|| ReactionRow {
            is_current: true,
            ..begun(&self.session.id, key, Pending::None, String::new(), self.now)
        });
        let mut told = signature::told(row.last_signature.as_deref());
        let conflicts = self.counted.all.iter().filter(|pr| has_conflicts(pr));
        let news: Vec<&PrFacts> = conflicts.filter(|pr| !told.contains_key(&pr.url)).collect();
        told.extend(news.iter().map(|pr| (pr.url.clone(), since.unwrap_or(self.now).to_string())));
        row.first_at = told.values().filter_map(|at| at.parse().ok()).min();
        row.last_signature = Some(signature::text(&told));
        if !self.policy.is_on(key) {
            row.escalated = true;
        } else if !row.escalated && !news.is_empty() && since.is_none() {
            let text = clean(&self.about(key, &news));
            row.pending_message = match row.pending {
                Pending::None => text,
                _ => format!("{}\n\n{text}", row.pending_message),
            };
            row.pending = Pending::Nudge;
            row.lease_until = None;
        }
        memory.put(row);
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
