//! What the entity store passes around.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::derive::{Change, Derived, derive};
use super::intent::{self, Concealed};
use super::mask::SecretSet;
use crate::error::Result;

/// A continuation: called once, on a thread of an engine, never under a lock.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// What is on disk before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// The history follows the owner's write; a crash in between loses it.
    AfterCommit,
    /// As above, and the event is recorded with the history until somebody took it.
    Outbox,
    /// As above, and an intent is recorded before the owner's write, from which a crash is made good.
    Journal,
}

/// A kind of entity.
#[derive(Debug)]
pub struct Kind {
    /// Its name, as registered.
    pub name: String,
    /// The fields that its schema knows, where the schema drops all others.
    pub known: Option<HashSet<String>>,
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Writes a state.
    Mutate,
    /// Removes the entity.
    Remove,
}

impl Op {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Mutate => "mutate",
            Op::Remove => "remove",
        }
    }
}

/// A change that has begun: what is known before the owner's write. No `Debug`: it holds states and secrets.
pub struct Staged {
    /// A random UUID that names the change for ever.
    pub change_id: String,
    /// What is changed.
    pub kind: Arc<Kind>,
    /// Which one.
    pub id: String,
    /// How.
    pub op: Op,
    /// The state before, as JSON text; `None` if the entity did not exist. Unmasked.
    pub prev: Option<String>,
    /// Who, as JSON text.
    pub actor: String,
    /// The run that the change belongs to.
    pub run_id: Option<String>,
    /// That run's secrets.
    pub secrets: Option<Arc<SecretSet>>,
    /// The run's secrets are unknown by now: everything that changed is masked whole.
    pub mask_all_changed: bool,
    /// Of a change whose process died: what was masked in `prev`, see [`super::intent`].
    pub marks: Option<String>,
    /// An intent is on disk and goes away with the append.
    pub has_intent: bool,
    /// Of a change whose process died: when its intent was recorded, in microseconds by the log's clock. Others may have written the
    /// entity, and recorded it, since.
    pub orphaned_at: Option<i64>,
    /// Milliseconds since the epoch on the caller's clock.
    pub began_ms: f64,
}

impl Staged {
    /// What the journal keeps of the state before; `hidden`: see [`intent::conceal`].
    ///
    /// # Errors
    /// Where the state is no JSON object.
    pub fn concealed(&self, hidden: &[(String, String)]) -> Result<Option<Concealed<'_>>> {
        let conceal = |prev| intent::conceal(&self.change_id, prev, self.secrets.as_deref(), hidden);
        self.prev.as_deref().map(conceal).transpose()
    }

    /// Derives what the change means, unless the facade did; `None` if nothing changed.
    ///
    /// # Errors
    /// Where a state is no JSON object.
    pub fn derive(&self, outcome: &Outcome) -> Result<Option<Arc<Derived>>> {
        if let Some(derived) = &outcome.derived {
            return Ok(Some(Arc::clone(derived)));
        }
        let next = match (&self.prev, &self.marks, outcome.next.as_deref()) {
            (Some(prev), Some(marks), Some(next)) => Some(intent::restore(&self.change_id, prev, marks, next)?),
            (_, _, next) => next.map(Cow::Borrowed),
        };
        let change = Change {
            kind: &self.kind.name,
            id: &self.id,
            prev: self.prev.as_deref(),
            next: next.as_deref(),
            known: self.kind.known.as_ref(),
            secrets: self.secrets.as_deref(),
            mask_all_changed: self.mask_all_changed,
        };
        Ok(derive(&change)?.map(Arc::new))
    }
}

/// What is known after the owner's write. No `Debug`, as above.
#[derive(Clone)]
pub struct Outcome {
    /// The state after, as JSON text; `None` = removed. Unmasked.
    pub next: Option<String>,
    /// ISO time of the event.
    pub occurred_at: String,
    /// Milliseconds since the epoch on the caller's clock.
    pub now_ms: f64,
    /// What the facade derived itself, for states that JSON text cannot carry.
    pub derived: Option<Arc<Derived>>,
    /// A first attempt may have been committed: look before adding.
    pub again: bool,
}

/// What was appended.
#[derive(Debug, Clone, Default)]
pub struct Appended {
    /// The names of the changed fields, sorted, as a JSON array.
    pub changed_fields: String,
    /// How many.
    pub count: usize,
    /// JSON text.
    pub delta: String,
    /// The masked state before, where it differs from what the caller handed in.
    pub prev: Option<String>,
    /// The masked state after, where it differs from what the caller handed in.
    pub next: Option<String>,
    /// Fields whose last recorded value is not the value that this change started from.
    pub gaps: Vec<String>,
}

/// A row that a caller appends directly.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainRow {
    /// Of which kind.
    pub kind: String,
    /// Of which entity.
    pub entity_id: String,
    /// Which field.
    pub field: String,
    /// `None` = the entity did not exist.
    pub from_value: Option<String>,
    /// The new value's text.
    pub to_value: String,
    /// The position within its change.
    pub index: usize,
    /// Which change.
    pub change_id: String,
    /// Whether secrets were masked in the new value.
    #[serde(default)]
    pub masked: bool,
}

/// What a dead process left behind for a kind.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphans {
    /// Changes that had begun.
    pub intents: Vec<OrphanIntent>,
    /// Payloads of events that nobody took, oldest first.
    pub events: Vec<String>,
}

/// A change that had begun when its process died.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrphanIntent {
    /// Names the change.
    pub change_id: String,
    /// Which entity.
    pub entity_id: String,
    /// `mutate` or `remove`.
    pub op: String,
    /// The state before, as JSON text, masked for the run.
    pub prev: Option<String>,
    /// Who, as JSON text.
    pub actor: String,
    /// What was masked in `prev`, see [`intent`].
    pub marks: Option<String>,
    /// The run whose secrets died with the process.
    pub run_id: Option<String>,
    /// When the intent was recorded, in microseconds since the epoch by the log's clock.
    pub created_us: i64,
}

/// A question to the history of one entity.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryQuery {
    /// Of which kind.
    pub kind: String,
    /// Of which entity.
    pub entity_id: String,
    /// Only this field.
    #[serde(default)]
    pub field: Option<String>,
    /// From this time on, milliseconds.
    #[serde(default)]
    pub from_ms: Option<f64>,
    /// Before this time, milliseconds.
    #[serde(default)]
    pub to_ms: Option<f64>,
    /// At most so many rows.
    pub limit: u32,
    /// Where the last page ended: time in microseconds, and sequence.
    #[serde(default)]
    pub after: Option<(i64, i64)>,
    /// Oldest first instead of newest first.
    #[serde(default)]
    pub ascending: bool,
}

/// One row of the history.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRow {
    /// The row's own id.
    pub id: String,
    /// Which field.
    pub field: String,
    /// The text before.
    pub from_value: Option<String>,
    /// The text after.
    pub to_value: String,
    /// Whether secrets were masked in it.
    pub masked: bool,
    /// Which change wrote it.
    pub change_id: Option<String>,
    /// Microseconds since the epoch.
    pub at_us: i64,
    /// Position, for the next page.
    pub seq: i64,
}

/// What is never kept for longer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Age in milliseconds.
    #[serde(default)]
    pub max_age_ms: Option<f64>,
    /// Rows per (kind, entity, field).
    #[serde(default)]
    pub max_rows_per_field: Option<u32>,
}

/// Counters since the store was opened, and what is waiting.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Rows appended.
    pub rows: u64,
    /// Changes appended.
    pub changes: u64,
    /// Transactions that carried them.
    pub batches: u64,
    /// Fields whose history did not continue where it had ended.
    pub gaps: u64,
    /// Rows deleted by retention.
    pub pruned: u64,
    /// Events in the outbox that nobody took yet.
    pub undelivered: u64,
    /// Intents whose change is not finished.
    pub intents: u64,
    /// When the oldest event that nobody took was recorded, in milliseconds since the epoch.
    pub oldest_undelivered_ms: Option<f64>,
    /// How far the server's clock is ahead of ours, in milliseconds; `None` for an embedded log.
    pub clock_skew_ms: Option<f64>,
}
