//! Somebody wants a session to end.

use serde::Deserialize;

use super::Outcome;
use super::memory::Memory;
use crate::error::Result;
use crate::lifecycle::check;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::decisions::{self, Cause};
use crate::lifecycle::tables::{notifications, sessions};
use crate::lifecycle::words::{SessionState, TerminationReason, Word as _};

/// The command `kill`.
#[derive(Debug, Clone, Deserialize)]
pub struct Kill {
    /// The session.
    pub id: String,
    /// Why; empty or missing = by hand.
    pub reason: Option<String>,
    /// It is to be resumed later. Of a session that has ended by itself this says nothing.
    #[serde(default)]
    pub resume: bool,
    /// The time.
    pub now: Millis,
}

/// Ends a session and forgets its reactions, save the notice of an earlier end that nobody got yet. Nobody is told: whoever
/// asked for it knows. Unknown and ended sessions stay as they are.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for an unknown reason, and what the database says.
pub fn kill(sql: &mut dyn Sql, input: &Kill) -> Result<Outcome> {
    let reason = match check::argument("reason", input.reason.as_deref().unwrap_or_default())? {
        TerminationReason::None => TerminationReason::ManuallyKilled,
        reason => reason,
    };
    let mut outcome = Outcome { killed: Some(false), ..Outcome::default() };
    let Some(before) = sessions::get_for_update(sql, &input.id)? else {
        return Ok(outcome);
    };
    if before.lifecycle.state.is_terminal() {
        // Whoever wants the end of what has ended has seen that it did.
        notifications::all_gone(sql, &input.id, input.now)?;
        if before.stopped && !input.resume {
            // Whoever ends what is stopped wants it to stay that way.
            sessions::set_stopped(sql, &input.id, None)?;
        }
    } else {
        let mut after = before.clone();
        after.lifecycle.state = SessionState::Terminated;
        after.lifecycle.termination_reason = reason;
        after.lifecycle.is_alive = false;
        after.lifecycle.detecting = None;
        after.updated_at = input.now;
        sessions::save(sql, &before, &after)?;
        decisions::note(sql, &before, &after, Cause::Kill, || format!("killed: {}", reason.as_str()))?;
        if input.resume {
            sessions::set_stopped(sql, &input.id, Some(input.now))?;
        }
        outcome.killed = Some(true);
    }
    let mut memory = Memory::load(sql, &input.id)?;
    memory.end();
    memory.save(sql, input.now)?;
    Ok(outcome)
}
