//! Delivery, at least once: what is to be said is stored by the transaction that chose it, handed out to one caller at a
//! time, and forgotten when that one tells that it was said.

use serde::Deserialize;

use super::Delivery;
use super::memory::Memory;
use crate::error::{Code, HfError, Result};
use crate::hash::sha256_hex;
use crate::lifecycle::decide::reaction::{
    Audience, ESCALATED_TYPE, Priority, event_type, is_terminal_notice, reaction, takes_feedback,
};
use crate::lifecycle::model::{Millis, PrFacts, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::reactions::{Pending, ReactionRow};
use crate::lifecycle::words::{ReactionKey, Word};

/// So many milliseconds nobody else delivers what was handed out.
pub const LEASE_MS: Millis = 30_000;

/// How far the clocks of those who share a store may differ. A caller also reads his clock some time before his transaction runs.
const SKEW_MS: Millis = 300_000;

/// The latest end of a lease that is believed at `now`.
pub fn lease_max(now: Millis) -> Millis {
    now.saturating_add(LEASE_MS + SKEW_MS)
}

/// The command `settle`: how a delivery went.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settle {
    /// The session that it was about.
    pub session_id: String,
    /// Its reaction.
    pub reaction: String,
    /// Its token.
    pub token: String,
    /// Whether it arrived, or there was nobody to deliver to.
    pub ok: bool,
    /// The time.
    pub now: Millis,
}

/// Forgets a message that arrived, or frees one that did not for the next try. A token that is not (or no longer) that of
/// the last hand-out changes nothing: meanwhile there is something newer to say.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for an unknown reaction, and what the database says.
pub fn settle(sql: &mut dyn Sql, input: &Settle) -> Result<()> {
    let key = ReactionKey::parse(&input.reaction).ok_or_else(|| {
        HfError::new(Code::InvalidArgument, format!("there is no reaction {:?}", input.reaction))
            .with_field("field", "reaction")
    })?;
    sql.lock_session(&input.session_id)?;
    let mut memory = Memory::load(sql, &input.session_id)?;
    if memory.get(key).is_none_or(|row| row.pending == Pending::None || token(row) != input.token) {
        return Ok(());
    }
    for row in memory.rows_mut().filter(|row| row.reaction == key) {
        row.lease_until = None;
        if input.ok {
            row.pending = Pending::None;
            row.pending_message = String::new();
        }
    }
    memory.retain(|row| row.pending != Pending::None || !is_terminal_notice(row.reaction));
    memory.save(sql, input.now)
}

/// Hands out everything that waits and that nobody delivers already. What checks and reviewers say stays until the agent may
/// be told.
pub fn hand_out(memory: &mut Memory, session: &SessionRecord, facts: &PrFacts, now: Millis) -> Vec<Delivery> {
    let tells = takes_feedback(session.lifecycle.state, facts);
    let mut deliveries = Vec::new();
    for row in memory.rows_mut() {
        let is_feedback = matches!(row.reaction, ReactionKey::CiFailed | ReactionKey::ReviewComments);
        if row.pending == Pending::None
            || is_leased(row.lease_until, now)
            || (row.pending == Pending::Nudge && is_feedback && !tells)
        {
            continue;
        }
        row.lease_until = Some(now.saturating_add(LEASE_MS));
        deliveries.push(delivery(row, session));
    }
    deliveries
}

/// Whether somebody delivers. A lease that ends much later than any that is given now was given by a clock that has been set
/// back since.
fn is_leased(lease_until: Option<Millis>, now: Millis) -> bool {
    lease_until.is_some_and(|until| until > now && until <= lease_max(now))
}

/// Who gets what is to be said, as which type, and how much it presses.
pub fn kind(row: &ReactionRow) -> (Audience, String, Priority) {
    let entry = reaction(row.reaction);
    match row.pending {
        Pending::Escalate => (Audience::Human, ESCALATED_TYPE.to_owned(), Priority::Urgent),
        _ => (entry.to, event_type(row.reaction), entry.priority),
    }
}

fn delivery(row: &ReactionRow, session: &SessionRecord) -> Delivery {
    let (to, event_type, priority) = kind(row);
    Delivery {
        session_id: session.id.clone(),
        project_id: session.project_id.clone(),
        reaction: row.reaction,
        token: token(row),
        to,
        event_type,
        priority,
        message: row.pending_message.clone(),
    }
}

/// Names a hand-out by all that makes it: two that have the same token say the same, since the same time.
fn token(row: &ReactionRow) -> String {
    let made_of = format!(
        "{}\n{}\n{}\n{:?}\n{:?}\n{:?}\n{}",
        row.reaction.as_str(),
        row.pending.as_str(),
        row.attempts,
        row.first_at,
        row.lease_until,
        row.last_signature,
        row.pending_message
    );
    sha256_hex(made_of.as_bytes()).chars().take(32).collect()
}
