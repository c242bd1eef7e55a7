//! What is remembered of the reactions of one session, from loading it to storing what differs.

use super::deliver::kind;
use crate::error::Result;
use crate::lifecycle::decide::reaction::is_terminal_notice;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::notifications::{self, Post};
use crate::lifecycle::tables::reactions::{self, Pending, ReactionRow};
use crate::lifecycle::words::{ReactionKey, Word as _};

/// The reactions of one session, in the order in which they are delivered.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    stored: Vec<ReactionRow>,
    rows: Vec<ReactionRow>,
}

/// Feedback about checks goes out first, then that of reviewers, then the rest.
fn rank(key: ReactionKey) -> usize {
    ReactionKey::ALL.iter().position(|(known, _)| *known == key).unwrap_or(usize::MAX)
}

impl Memory {
    /// Loads it.
    pub fn load(sql: &mut dyn Sql, session_id: &str) -> Result<Self> {
        Ok(Self::of(reactions::of(sql, session_id)?))
    }

    /// Begins with `rows`.
    pub fn of(mut rows: Vec<ReactionRow>) -> Self {
        rows.sort_by_key(|row| rank(row.reaction));
        Self { stored: rows.clone(), rows }
    }

    /// All of it.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut ReactionRow> {
        self.rows.iter_mut()
    }

    /// What is remembered of `key`.
    pub fn get(&self, key: ReactionKey) -> Option<&ReactionRow> {
        self.rows.iter().find(|row| row.reaction == key)
    }

    /// The key that holds the entry slot.
    pub fn slot(&self) -> Option<ReactionKey> {
        self.rows.iter().find(|row| row.is_current).map(|row| row.reaction)
    }

    /// Remembers `row` in place of what was known of its key.
    pub fn put(&mut self, row: ReactionRow) {
        self.rows.retain(|other| other.reaction != row.reaction);
        let at = self.rows.partition_point(|other| rank(other.reaction) < rank(row.reaction));
        self.rows.insert(at, row);
    }

    /// Forgets what `wanted` says no to.
    pub fn retain(&mut self, wanted: impl FnMut(&ReactionRow) -> bool) {
        self.rows.retain(wanted);
    }

    /// Forgets all but the notice of an end that nobody got yet.
    pub fn end(&mut self) {
        self.retain(|row| is_terminal_notice(row.reaction) && row.pending != Pending::None);
    }

    /// Stores what differs, in the inbox too; no statement if nothing does.
    pub fn save(&mut self, sql: &mut dyn Sql, now: Millis) -> Result<()> {
        for row in &self.stored {
            let kept = self.get(row.reaction);
            // What tells of an end is forgotten once it was said: the session is as dead as before.
            let is_over = kept.is_none_or(|kept| !kept.is_noted && !calls_person(kept));
            if row.is_noted && is_over && !is_terminal_notice(row.reaction) {
                notifications::cause_gone(sql, &row.session_id, row.reaction, now)?;
            }
            if kept.is_none() {
                reactions::delete(sql, &row.session_id, row.reaction)?;
            }
        }
        for row in self.rows.iter_mut().filter(|row| calls_person(row) && !row.is_noted) {
            let (_, event_type, priority) = kind(row);
            let post = Post {
                session_id: &row.session_id,
                reaction: row.reaction,
                event_type: &event_type,
                priority,
                message: &row.pending_message,
            };
            notifications::post(sql, &post, now)?;
            row.is_noted = true;
        }
        for row in &self.rows {
            if !self.stored.contains(row) {
                reactions::save(sql, row)?;
            }
        }
        Ok(())
    }
}

fn calls_person(row: &ReactionRow) -> bool {
    matches!(row.pending, Pending::Notify | Pending::Escalate)
}

/// A reaction that begins now, with a message on its way.
pub fn begun(session_id: &str, reaction: ReactionKey, pending: Pending, message: String, now: Millis) -> ReactionRow {
    ReactionRow {
        session_id: session_id.to_owned(),
        reaction,
        attempts: 1,
        first_at: Some(now),
        last_signature: None,
        escalated: false,
        is_current: false,
        pending,
        pending_message: message,
        lease_until: None,
        is_noted: false,
    }
}
