//! Intents and the outbox: written ahead, ended later, taken over from the dead.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::Shared;
use super::append::{hidden, slot};
use crate::entity::clock::micros;
use crate::entity::model::{Done, Kind, OrphanIntent, Orphans, Staged};
use crate::error::Result;
use crate::sqlite::{WriteJob, owner, sql_error};

/// Records the intent of a change.
pub fn begin(shared: &Shared, db: &Connection, staged: &Staged) -> Result<()> {
    let (kind, id) = (&staged.kind.name, &staged.id);
    let hidden = staged.prev.as_deref().map_or(Ok(Vec::new()), |prev| hidden(db, kind, id, prev))?;
    let concealed = staged.concealed(&hidden)?;
    db.prepare_cached(
        "INSERT INTO entity_intents \
         (slot, change_id, kind, entity_id, op, run_id, owner, created_at, marks, actor, prev) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            slot(&staged.change_id),
            staged.change_id,
            kind,
            id,
            staged.op.as_str(),
            staged.run_id,
            shared.owner.name(),
            shared.begun(micros(staged.began_ms)),
            concealed.as_ref().and_then(|concealed| concealed.marks.as_deref()),
            staged.actor,
            concealed.as_ref().map(|concealed| &*concealed.prev),
        ])
    })
    .map_err(|error| sql_error("recording an intent", error))?;
    Ok(())
}

/// Stamps events as taken. Their payload goes, because it holds whole states; who changed what stays.
pub fn delivered(db: &Connection, change_ids: &[String]) -> Result<()> {
    let mut stamp = db
        .prepare_cached(
            "UPDATE entity_changes SET delivered_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER), payload = '{}' \
             WHERE change_id = ? AND delivered_at IS NULL",
        )
        .map_err(|error| sql_error("stamping an event", error))?;
    for change_id in change_ids {
        stamp.execute(params![change_id]).map_err(|error| sql_error("stamping an event", error))?;
    }
    Ok(())
}

/// Takes over what dead owners left of a kind.
pub struct Claim {
    pub shared: Arc<Shared>,
    pub kind: Arc<Kind>,
    pub orphans: Orphans,
    pub done: Option<Done<Orphans>>,
}

impl WriteJob for Claim {
    fn run(&mut self, db: &Connection) -> Result<()> {
        self.orphans = Orphans::default();
        let Some(path) = self.shared.path.as_deref() else { return Ok(()) };
        let me = self.shared.owner.name();
        for dead in owners(db, &self.kind.name, me)? {
            if !owner::is_dead(path, &dead)? {
                continue;
            }
            // Only what is taken over now: what this store itself has under way carries its own name.
            self.orphans.intents.extend(intents(db, &self.kind.name, &dead)?);
            self.orphans.events.extend(events(db, &self.kind.name, &dead)?);
            for (what, sql) in [
                ("an intent", "UPDATE entity_intents SET owner = ?1 WHERE owner = ?2 AND kind = ?3"),
                (
                    "an event",
                    "UPDATE entity_changes INDEXED BY entity_changes_pending_idx SET owner = ?1 \
                     WHERE owner = ?2 AND kind = ?3 AND delivered_at IS NULL",
                ),
            ] {
                db.execute(sql, params![me, dead, self.kind.name])
                    .map_err(|error| sql_error(&format!("taking {what} over"), error))?;
            }
        }
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        let orphans = std::mem::take(&mut self.orphans);
        if let Some(done) = self.done.take() {
            done(outcome.map(|()| orphans));
        }
    }
}

fn owners(db: &Connection, kind: &str, me: &str) -> Result<Vec<String>> {
    db.prepare_cached(
        "SELECT owner FROM entity_intents WHERE kind = ?1 AND owner <> ?2 \
         UNION SELECT owner FROM entity_changes INDEXED BY entity_changes_pending_idx WHERE kind = ?1 AND owner <> ?2 AND delivered_at IS NULL",
    )
    .and_then(|mut select| select.query_map(params![kind, me], |row| row.get(0))?.collect())
    .map_err(|error| sql_error("looking for orphans", error))
}

fn intents(db: &Connection, kind: &str, owner: &str) -> Result<Vec<OrphanIntent>> {
    db.prepare_cached(
        "SELECT change_id, entity_id, op, prev, marks, actor, run_id, created_at FROM entity_intents \
         WHERE kind = ? AND owner = ? ORDER BY created_at, slot",
    )
    .and_then(|mut select| {
        select
            .query_map(params![kind, owner], |row| {
                Ok(OrphanIntent {
                    change_id: row.get(0)?,
                    entity_id: row.get(1)?,
                    op: row.get(2)?,
                    prev: row.get(3)?,
                    marks: row.get(4)?,
                    actor: row.get(5)?,
                    run_id: row.get(6)?,
                    created_us: row.get(7)?,
                })
            })?
            .collect()
    })
    .map_err(|error| sql_error("reading orphaned intents", error))
}

fn events(db: &Connection, kind: &str, owner: &str) -> Result<Vec<String>> {
    db.prepare_cached(
        "SELECT payload FROM entity_changes INDEXED BY entity_changes_pending_idx \
         WHERE kind = ? AND owner = ? AND delivered_at IS NULL ORDER BY seq",
    )
    .and_then(|mut select| select.query_map(params![kind, owner], |row| row.get(0))?.collect())
    .map_err(|error| sql_error("reading orphaned events", error))
}
