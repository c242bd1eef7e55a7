//! The table `reaction_state`: what was tried about a session, and what still has to be delivered.

use super::{list, word};
use crate::error::Result;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::time;
use crate::lifecycle::words::{ReactionKey, Word};

/// What still has to be delivered of a reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    None,
    /// A message to the agent.
    Nudge,
    /// The call for a person, after nudges that came to nothing.
    Escalate,
    /// A notice to a person.
    Notify,
}

impl Word for Pending {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::None, "none"), (Self::Nudge, "nudge"), (Self::Escalate, "escalate"), (Self::Notify, "notify")];

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nudge => "nudge",
            Self::Escalate => "escalate",
            Self::Notify => "notify",
        }
    }
}

/// What is remembered of one reaction of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReactionRow {
    /// The session.
    pub session_id: String,
    /// The reaction.
    pub reaction: ReactionKey,
    /// How often it was begun since its cause is there.
    pub attempts: i64,
    /// When it was begun first.
    pub first_at: Option<Millis>,
    /// What was said last, in short; for feedback only.
    pub last_signature: Option<String>,
    /// A person was called; nothing more is said.
    pub escalated: bool,
    /// It holds the session's entry slot.
    pub is_current: bool,
    /// What still has to be delivered.
    pub pending: Pending,
    /// Its text, empty if there is nothing.
    pub pending_message: String,
    /// Until when somebody is delivering it.
    pub lease_until: Option<Millis>,
    /// The call for a person is in the inbox.
    pub is_noted: bool,
}

fn read(row: &dyn Row) -> Result<ReactionRow> {
    Ok(ReactionRow {
        session_id: row.text(0)?.to_owned(),
        reaction: word(row, 1)?,
        attempts: row.int(2)?,
        first_at: time::opt_millis(row.opt_text(3)?)?,
        last_signature: row.opt_text(4)?.map(str::to_owned),
        escalated: row.int(5)? != 0,
        is_current: row.int(6)? != 0,
        pending: word(row, 7)?,
        pending_message: row.text(8)?.to_owned(),
        lease_until: time::opt_millis(row.opt_text(9)?)?,
        is_noted: row.int(10)? != 0,
    })
}

/// All of a session.
///
/// # Errors
/// What the database says.
pub fn of(sql: &mut dyn Sql, session_id: &str) -> Result<Vec<ReactionRow>> {
    list(
        sql,
        "read the reactions of a session",
        "SELECT session_id, reaction, attempts, first_at, last_signature, escalated, is_current, pending, pending_message,
           lease_until, is_noted
         FROM reaction_state WHERE session_id = ?1 ORDER BY reaction",
        &[Value::Text(session_id)],
        read,
    )
}

/// Stores a row in place of what was known of its reaction.
///
/// # Errors
/// What the database says; `HF_INVALID_ARGUMENT` for a time that cannot be stored.
pub fn save(sql: &mut dyn Sql, row: &ReactionRow) -> Result<()> {
    let first_at = time::opt_text(row.first_at)?;
    let lease_until = time::opt_text(row.lease_until)?;
    sql.run(
        "store a reaction",
        "INSERT INTO reaction_state (session_id, reaction, attempts, first_at, last_signature, escalated, is_current, pending,
           pending_message, lease_until, is_noted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (session_id, reaction) DO UPDATE SET attempts = excluded.attempts, first_at = excluded.first_at,
           last_signature = excluded.last_signature, escalated = excluded.escalated, is_current = excluded.is_current,
           pending = excluded.pending, pending_message = excluded.pending_message, lease_until = excluded.lease_until,
           is_noted = excluded.is_noted",
        &[
            Value::Text(&row.session_id),
            Value::Text(row.reaction.as_str()),
            Value::Int(row.attempts),
            Value::OptText(first_at.as_deref()),
            Value::OptText(row.last_signature.as_deref()),
            Value::Int(row.escalated.into()),
            Value::Int(row.is_current.into()),
            Value::Text(row.pending.as_str()),
            Value::Text(&row.pending_message),
            Value::OptText(lease_until.as_deref()),
            Value::Int(row.is_noted.into()),
        ],
    )?;
    Ok(())
}

/// Forgets a reaction.
///
/// # Errors
/// What the database says.
pub fn delete(sql: &mut dyn Sql, session_id: &str, reaction: ReactionKey) -> Result<()> {
    sql.run(
        "forget a reaction",
        "DELETE FROM reaction_state WHERE session_id = ?1 AND reaction = ?2",
        &[Value::Text(session_id), Value::Text(reaction.as_str())],
    )?;
    Ok(())
}

/// What to look for in all sessions.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The time: a lease that ends at it, or earlier, is over.
    pub now: Millis,
    /// A lease that ends after this was made by a clock that has been set back since, and is over too.
    pub lease_max: Millis,
    /// Nudges that were begun at this time, or earlier, came to nothing.
    pub nudged_before: Millis,
    /// At most so many are told.
    pub limit: i64,
}

/// A reaction that is due: since when it is there, whose it is, and which.
pub type Found = (Option<String>, String, ReactionKey);

/// What is due, of all sessions or with a condition more. First the very words of reaction_state_due_idx, without which no database
/// takes that index.
macro_rules! select_due {
    ($more:literal) => {
        concat!(
            "SELECT session_id, reaction, first_at FROM reaction_state
             WHERE (pending <> 'none' OR (escalated = 0 AND reaction IN ('merge-conflicts', 'agent-idle')))
               AND ((pending <> 'none' AND (lease_until IS NULL OR lease_until <= ?1 OR lease_until > ?2))
               OR (escalated = 0 AND reaction IN ('merge-conflicts', 'agent-idle') AND first_at <= ?3))",
            $more,
            " ORDER BY first_at, session_id, reaction LIMIT ?4"
        )
    };
}

/// The reactions that have something to deliver or to escalate, oldest first.
///
/// # Errors
/// What the database says; `HF_INVALID_ARGUMENT` for times that cannot be stored.
pub fn due(sql: &mut dyn Sql, what: &Due) -> Result<Vec<Found>> {
    look(sql, select_due!(""), what, &[])
}

/// The same, of sessions whose project has this delay of its own; `None` = those of projects that have none.
///
/// # Errors
/// As [`due`].
pub fn due_with(sql: &mut dyn Sql, what: &Due, delay: Option<Millis>) -> Result<Vec<Found>> {
    let text = select_due!(
        " AND (SELECT p.escalate_after_ms FROM sessions s JOIN reaction_policy p ON p.project_id = s.project_id
               WHERE s.id = reaction_state.session_id) IS NOT DISTINCT FROM ?5"
    );
    look(sql, text, what, &[Value::OptInt(delay)])
}

fn look(sql: &mut dyn Sql, text: &'static str, what: &Due, more: &[Value<'_>]) -> Result<Vec<Found>> {
    let (now, lease_max) = (time::text(what.now)?, time::text(what.lease_max)?);
    let nudged_before = time::text(what.nudged_before)?;
    let all = [Value::Text(&now), Value::Text(&lease_max), Value::Text(&nudged_before), Value::Int(what.limit)];
    let params: Vec<Value<'_>> = all.iter().chain(more).copied().collect();
    list(sql, "look for reactions that are due", text, &params, |row| {
        Ok((row.opt_text(2)?.map(str::to_owned), row.text(0)?.to_owned(), word(row, 1)?))
    })
}
