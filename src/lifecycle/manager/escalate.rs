//! What time brings: nudges that came to nothing go to a person, and what was not delivered is tried again.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::deliver::{hand_out, lease_max};
use super::memory::Memory;
use super::policy::{Policy, PolicyInput};
use super::react::{Run, escalate};
use super::{Delivery, Outcome};
use crate::error::Result;
use crate::lifecycle::decide::reaction::reaction;
use crate::lifecycle::model::Millis;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::reactions::{self, Due, ReactionRow};
use crate::lifecycle::tables::sessions::{self, Watched};
use crate::lifecycle::tables::{policies, prs};
use crate::lifecycle::words::ReactionKey;

/// So many reactions one tick looks at; the next one goes on.
const BATCH: i64 = 1000;
/// The times that can be stored: the years 0000 to 9999.
const TIMES: (Millis, Millis) = (-62_167_219_200_000, 253_402_300_799_999);

/// The command `tick`.
#[derive(Debug, Clone, Deserialize)]
pub struct Tick {
    /// The time.
    pub now: Millis,
    /// How to react, unless the session's project says otherwise.
    pub policy: Option<PolicyInput>,
}

/// Escalates each nudge that is old enough, once, and hands out what waits to be delivered; oldest first. The sessions
/// themselves are not written. Nothing is, if nothing is due.
///
/// # Errors
/// What the database says; `HF_INVALID_ARGUMENT` for a time that cannot be stored.
pub fn tick(sql: &mut dyn Sql, input: &Tick) -> Result<Outcome> {
    let own = input.policy.as_ref();
    let now = input.now;
    let due = due(sql, &Policy::of(own, None), now)?;
    let age: HashMap<_, _> = due.iter().enumerate().map(|(at, key)| (key.clone(), at)).collect();
    // In the order of ids: two that tick at once lock the sessions in the same order.
    let ids: BTreeSet<&str> = due.iter().map(|(id, _)| id.as_str()).collect();
    let mut deliveries: Vec<Delivery> = Vec::new();
    for id in ids {
        deliveries.extend(tick_session(sql, id, own, now)?);
    }
    deliveries
        .sort_by_cached_key(|one| age.get(&(one.session_id.clone(), one.reaction)).copied().unwrap_or(usize::MAX));
    Ok(Outcome::of(deliveries))
}

/// What is to be looked at, oldest first. Projects that have a delay of their own are asked about by that: neither do the
/// nudges of a patient one fill the batch before they are due, nor do those of an impatient one wait for the others' delay.
fn due(sql: &mut dyn Sql, policy: &Policy, now: Millis) -> Result<Vec<(String, ReactionKey)>> {
    let storable = |at: Millis| at.clamp(TIMES.0, TIMES.1);
    let after = |delay: Millis| Due {
        now,
        lease_max: storable(lease_max(now)),
        nudged_before: storable(now.saturating_sub(delay)),
        limit: BATCH,
    };
    let own = after(policy.escalate_after_ms);
    let delays = policies::delays(sql)?;
    let mut found = if delays.is_empty() { reactions::due(sql, &own)? } else { reactions::due_with(sql, &own, None)? };
    for delay in delays {
        found.extend(reactions::due_with(sql, &after(delay), Some(delay))?);
    }
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    found.truncate(usize::try_from(BATCH).unwrap_or(usize::MAX));
    Ok(found.into_iter().map(|(_, id, key)| (id, key)).collect())
}

fn tick_session(sql: &mut dyn Sql, id: &str, own: Option<&PolicyInput>, now: Millis) -> Result<Vec<Delivery>> {
    let Some(Watched { session, policy, .. }) = sessions::watched(sql, id)? else {
        return Ok(Vec::new());
    };
    let policy = &Policy::of(own, policy.as_deref());
    let counted = prs::counted(sql, id, policy.several_prs)?;
    let mut memory = Memory::load(sql, id)?;
    // A session that somebody wrote directly may have left what it was nudged for.
    Run { session: &session, counted: &counted, policy, now }.forget(&mut memory);
    for row in memory.rows_mut().filter(|row| is_overdue(row, policy, now)) {
        if policy.is_on(row.reaction) {
            escalate(row);
        } else {
            row.escalated = true;
        }
    }
    let deliveries = hand_out(&mut memory, &session, &counted.first, now);
    memory.save(sql, now)?;
    Ok(deliveries)
}

fn is_overdue(row: &ReactionRow, policy: &Policy, now: Millis) -> bool {
    reaction(row.reaction).by_time
        && !row.escalated
        && row.first_at.is_some_and(|at| now.saturating_sub(at) >= policy.escalate_after_ms)
}
