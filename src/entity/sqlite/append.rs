//! Appending to the log inside the writer's transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::Shared;
use crate::entity::clock::micros;
use crate::entity::continuity::{self, Last, hide};
use crate::entity::derive::{Derived, Row};
use crate::entity::event::{event_text, state};
use crate::entity::field_text::plain_key;
use crate::entity::model::{Appended, Done, Durability, Outcome, PlainRow, Staged};
use crate::error::{Code, HfError, Result};
use crate::sqlite::{WriteJob, sql_error};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Appends one change: its rows, its event, the end of its intent.
pub struct AppendChange {
    pub shared: Arc<Shared>,
    pub staged: Arc<Staged>,
    pub outcome: Outcome,
    pub derived: Option<Result<Option<Arc<Derived>>>>,
    pub result: Option<Appended>,
    /// How many rows it added.
    pub rows: u64,
    pub done: Option<Done<Option<Appended>>>,
}

impl WriteJob for AppendChange {
    fn prepare(&mut self) {
        // Here and not in `run`: the write lock is not held, and a batch that is tried again derives only once.
        if self.derived.is_none() {
            self.derived = Some(self.staged.derive(&self.outcome));
        }
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.result = None;
        let staged = &*self.staged;
        let derived = match &self.derived {
            Some(Ok(derived)) => derived.clone(),
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(HfError::new(Code::Panic, "a change was appended before it was derived")),
        };
        // The intent goes in the transaction that records the change: without one, an earlier attempt got through. (A change
        // without an intent is not in doubt either: an attempt whose end is not known poisons the database.)
        let recorded = staged.has_intent && !forget(db, &staged.change_id)? && self.outcome.again;
        let Some(derived) = derived else { return Ok(()) };
        let mut prev = derived.prev.clone();
        let mut gaps = Vec::new();
        let derived = if recorded { Some(derived) } else { self.append(db, derived, &mut prev, &mut gaps)? };
        let Some(derived) = derived else { return Ok(()) };
        self.rows = derived.rows.len() as u64;
        self.result = Some(Appended {
            changed_fields: derived.changed_fields_json.clone(),
            count: derived.changed_fields.len(),
            delta: derived.delta.clone(),
            prev: prev.filter(|text| Some(text) != staged.prev.as_ref()),
            next: derived.next.clone().filter(|text| Some(text) != self.outcome.next.as_ref()),
            gaps,
        });
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        if let Some(result) = self.result.as_ref().filter(|_| outcome.is_ok()) {
            self.shared.counters.changes.fetch_add(1, Ordering::Relaxed);
            self.shared.counters.rows.fetch_add(self.rows, Ordering::Relaxed);
            self.shared.counters.gaps.fetch_add(u64::from(!result.gaps.is_empty()), Ordering::Relaxed);
        }
        if let Some(done) = self.done.take() {
            let result = self.result.take();
            done(outcome.map(|()| result));
        }
    }
}

impl AppendChange {
    /// Returns what was appended; `None` if others had said all of it.
    fn append(
        &self,
        db: &Connection,
        mut derived: Arc<Derived>,
        prev: &mut Option<String>,
        gaps: &mut Vec<String>,
    ) -> Result<Option<Arc<Derived>>> {
        let staged = &*self.staged;
        let kind = staged.kind.name.as_str();
        if let (None, Some(text)) = (&derived.next, prev.as_ref()) {
            // A removal has no rows that would hide what was hidden.
            let hidden = hidden(db, kind, &staged.id, text)?;
            *prev = Some(hide(text, &hidden)?.into_owned());
        }
        let mut lasts =
            derived.rows.iter().map(|row| last(db, kind, &staged.id, &row.field)).collect::<Result<Vec<_>>>()?;
        let known: Vec<bool> = derived
            .rows
            .iter()
            .zip(&lasts)
            .map(|(row, last)| continuity::is_told(staged, row, last.as_ref().map(|(last, _)| last)))
            .collect();
        if known.contains(&true) {
            let Some(left) = derived.without(&known)? else { return Ok(None) };
            derived = Arc::new(left);
            let mut known = known.iter();
            lasts.retain(|_| known.next() == Some(&false));
        }
        let newest = lasts.iter().flatten().map(|(last, _)| last.at).max();
        let at = self.shared.clock.next(kind, &staged.id, micros(self.outcome.now_ms), newest);
        for (index, (row, last)) in derived.rows.iter().zip(&lasts).enumerate() {
            let from = continuity::from_value(Some(staged), row, last.as_ref().map(|(last, _)| last), prev, gaps)?;
            let ordinal = last.as_ref().map_or(1, |(_, ordinal)| ordinal + 1);
            insert(db, &staged.change_id, index, kind, &staged.id, row, from.as_deref(), at, ordinal, false)?;
        }
        if !gaps.is_empty() {
            let reborn = born(db, kind, &staged.id, at)?;
            let at_of = |field: &String| {
                derived.rows.iter().zip(&lasts).find(|(row, _)| row.field == *field).and_then(|(_, last)| last.as_ref())
            };
            // What it was before the entity was removed and made anew is nobody's concern.
            gaps.retain(|field| at_of(field).is_none_or(|(last, _)| reborn.is_none_or(|born| born <= last.at)));
        }
        if self.shared.durability != Durability::AfterCommit {
            let (id, change) = (&staged.id, &staged.change_id);
            let event = Derived { prev: prev.clone(), ..Derived::clone(&derived) };
            let payload = event_text(kind, id, &event, &staged.actor, &self.outcome.occurred_at, change);
            db.prepare_cached(
                "INSERT INTO entity_changes (change_id, kind, entity_id, op, owner, created_at, actor, payload) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .and_then(|mut insert| {
                let op = staged.op.as_str();
                insert.execute(params![change, kind, id, op, self.shared.owner.name(), at, staged.actor, payload])
            })
            .map_err(|error| sql_error("recording a change event", error))?;
        }
        Ok(Some(derived))
    }
}

#[expect(clippy::too_many_arguments, reason = "one per column")]
fn insert(
    db: &Connection,
    change_id: &str,
    index: usize,
    kind: &str,
    entity_id: &str,
    row: &Row,
    from: Option<&str>,
    at: i64,
    ordinal: i64,
    plain: bool,
) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO entity_transitions \
         (change_id, position, kind, entity_id, field, to_key, masked, transitioned_at, ordinal, plain, to_value, \
          from_value) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (change_id, position) WHERE plain = 1 DO NOTHING",
    )
    .and_then(|mut insert| {
        let (position, key, to) = (index as i64, &row.to_key[..], &row.to_value);
        insert.execute(params![
            change_id, position, kind, entity_id, row.field, key, row.masked, at, ordinal, plain, to, from
        ])
    })
    .map_err(|error| sql_error("appending a transition", error))?;
    Ok(())
}

/// The latest row of a field, and its position.
fn last(db: &Connection, kind: &str, entity_id: &str, field: &str) -> Result<Option<(Last, i64)>> {
    db.prepare_cached(
        "SELECT to_value, to_key, masked, transitioned_at, ordinal FROM entity_transitions \
         WHERE kind = ? AND entity_id = ? AND field = ? ORDER BY transitioned_at DESC LIMIT 1",
    )
    .and_then(|mut select| {
        select
            .query_row(params![kind, entity_id, field], |row| {
                let last = Last { to_value: row.get(0)?, to_key: row.get(1)?, masked: row.get(2)?, at: row.get(3)? };
                Ok((last, row.get(4)?))
            })
            .optional()
    })
    .map_err(|error| sql_error("reading the latest transition", error))
}

/// The fields of `prev` (JSON text) whose history ends with a masked value, with the text of that.
pub fn hidden(db: &Connection, kind: &str, entity_id: &str, prev: &str) -> Result<Vec<(String, String)>> {
    let any: bool = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM entity_transitions WHERE kind = ? AND entity_id = ? AND masked = 1)",
        )
        .and_then(|mut select| select.query_row(params![kind, entity_id], |row| row.get(0)))
        .map_err(|error| sql_error("looking for masked transitions", error))?;
    if !any {
        return Ok(Vec::new());
    }
    let mut hidden = Vec::new();
    for member in state(prev)?.members() {
        if let Some((last, _)) = last(db, kind, entity_id, &member.key)?
            && last.masked
        {
            hidden.push((member.key.to_string(), last.to_value));
        }
    }
    Ok(hidden)
}

/// When an entity came to be for the last time before `at`, as its history tells.
fn born(db: &Connection, kind: &str, entity_id: &str, at: i64) -> Result<Option<i64>> {
    db.prepare_cached(
        "SELECT max(transitioned_at) FROM entity_transitions \
         WHERE kind = ? AND entity_id = ? AND from_value IS NULL AND transitioned_at < ?",
    )
    .and_then(|mut select| select.query_row(params![kind, entity_id, at], |row| row.get(0)))
    .map_err(|error| sql_error("reading when an entity came to be", error))
}

/// The place of a change's intent in its table. Two that are under way at once do not share one: 64 bits of a hash.
pub fn slot(change_id: &str) -> i64 {
    let mut slot = [0; 8];
    blake3::Hasher::new().update(change_id.as_bytes()).finalize_xof().fill(&mut slot);
    i64::from_le_bytes(slot)
}

/// Ends an intent; tells whether there was one.
pub fn forget(db: &Connection, change_id: &str) -> Result<bool> {
    db.prepare_cached("DELETE FROM entity_intents WHERE slot = ? AND change_id = ?")
        .and_then(|mut delete| delete.execute(params![slot(change_id), change_id]))
        .map(|ended| ended > 0)
        .map_err(|error| sql_error("ending an intent", error))
}

/// Appends rows that a caller made himself, in one transaction.
pub fn append_plain(shared: &Shared, db: &Connection, rows: &[PlainRow], now_ms: f64) -> Result<()> {
    let mut at = i64::MIN;
    for row in rows {
        let last = last(db, &row.kind, &row.entity_id, &row.field)?;
        let newest = last.as_ref().map(|(last, _)| last.at);
        // One time for all rows, as far as the history of each field allows it.
        if at == i64::MIN || newest.is_some_and(|newest| newest >= at) {
            at = shared.clock.next(&row.kind, &row.entity_id, micros(now_ms), newest);
        }
        let ordinal = last.map_or(1, |(_, ordinal)| ordinal + 1);
        let made = Row {
            field: row.field.clone(),
            from_value: row.from_value.clone(),
            to_value: row.to_value.clone(),
            to_key: plain_key(&row.to_value),
            from_key: None,
            masked: row.masked,
        };
        let from = row.from_value.as_deref();
        insert(db, &row.change_id, row.index, &row.kind, &row.entity_id, &made, from, at, ordinal, true)?;
    }
    Ok(())
}
