//! A run of reactions: what a committed change calls for, decided on the state that is being committed.

use super::Delivery;
use super::deliver::hand_out;
use super::feedback::{Feedback, Recent};
use super::memory::{Memory, begun};
use super::policy::Policy;
use super::signature;
use crate::error::Result;
use crate::lifecycle::decide::reaction::{
    Audience, escalation, has_conflicts, has_failing_ci, has_review_feedback, is_terminal_notice, reaction,
    reaction_for, takes_feedback,
};
use crate::lifecycle::decide::several::Counted;
use crate::lifecycle::model::{Millis, PrFacts, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::reactions::{Pending, ReactionRow};
use crate::lifecycle::tables::{checks, prs};
use crate::lifecycle::words::{ReactionKey, SeveralPrs};

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
    memory.save(sql, now)?;
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
    memory.save(sql, now)?;
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
    pub fn about(&self, key: ReactionKey, prs: &[&PrFacts]) -> String {
        let mut text = self.policy.message(key).to_owned();
        if self.counted.all.len() > 1 {
            prs.iter().for_each(|pr| text.push_str(&format!("\n\nPull request: {}", pr.url)));
        }
        text
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
    row.is_noted = false;
}

/// Takes out what a live terminal would obey: control characters other than tab and newline.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n')).collect()
}

#[cfg(test)]
#[path = "react_tests.rs"]
mod tests;
