//! Retention: deletes what is too old or too many, in slices that let other writers in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::Opened;
use crate::entity::clock::micros;
use crate::entity::model::{Done, Retention};
use crate::error::Result;
use crate::sqlite::{WriteJob, sql_error};

/// Rows looked at in one transaction.
const SLICE: i64 = 1000;

/// Where a pass stands.
enum Stage {
    /// Rows that are too old, in the order in which they were written, from this sequence on.
    Age {
        after: i64,
    },
    /// Fields with too many rows, in the order of their names, after this one.
    Count {
        after: (String, String, String),
    },
    Finished,
}

/// One slice of a pass; the next one is queued behind the writes that arrived meanwhile.
pub struct Prune {
    opened: Arc<Opened>,
    retention: Retention,
    now_ms: f64,
    stage: Stage,
    next: Option<Stage>,
    deleted: u64,
    slice: u64,
    done: Option<Done<u64>>,
}

/// Starts a pass.
pub fn start(opened: Arc<Opened>, retention: Retention, now_ms: f64, done: Done<u64>) {
    let database = opened.database.clone();
    let stage = Stage::Age { after: i64::MIN };
    let done = Some(done);
    database.write(Box::new(Prune { opened, retention, now_ms, stage, next: None, deleted: 0, slice: 0, done }));
}

impl WriteJob for Prune {
    fn run(&mut self, db: &Connection) -> Result<()> {
        self.slice = 0;
        let next = match &self.stage {
            Stage::Age { after } => self.by_age(db, *after)?,
            Stage::Count { after } => self.by_count(db, after.clone())?,
            Stage::Finished => Stage::Finished,
        };
        self.next = Some(next);
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        if let Err(error) = outcome {
            if let Some(done) = self.done.take() {
                done(Err(error));
            }
            return;
        }
        self.deleted += self.slice;
        self.opened.shared.counters.pruned.fetch_add(self.slice, Ordering::Relaxed);
        match self.next.take() {
            Some(Stage::Finished) | None => {
                if let Some(done) = self.done.take() {
                    done(Ok(self.deleted));
                }
            }
            Some(stage) => {
                self.stage = stage;
                let database = self.opened.database.clone();
                database.write(self);
            }
        }
    }
}

impl Prune {
    fn by_age(&mut self, db: &Connection, after: i64) -> Result<Stage> {
        let by_count = Stage::Count { after: Default::default() };
        let Some(max_age_ms) = self.retention.max_age_ms else { return Ok(by_count) };
        let before = micros(self.now_ms - max_age_ms);
        let failed = |error| sql_error("deleting old transitions", error);
        // The slice ends at its last row, or before the first young one: rows are written in the order of time, or nearly.
        let (end, oldest): (Option<i64>, Option<i64>) = db
            .query_row(
                "SELECT max(seq), min(transitioned_at) FROM \
                 (SELECT seq, transitioned_at FROM entity_transitions WHERE seq > ? ORDER BY seq LIMIT ?)",
                params![after, SLICE],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(failed)?;
        let (Some(end), Some(oldest)) = (end, oldest) else { return Ok(by_count) };
        if oldest >= before {
            return Ok(by_count);
        }
        let deleted = db
            .execute(
                "DELETE FROM entity_transitions AS old WHERE seq > ?1 AND seq <= ?2 AND transitioned_at < ?3 \
                 AND EXISTS (SELECT 1 FROM entity_transitions AS newer WHERE newer.kind = old.kind \
                   AND newer.entity_id = old.entity_id AND newer.field = old.field \
                   AND newer.transitioned_at > old.transitioned_at)",
                params![after, end, before],
            )
            .map_err(failed)?;
        db.execute(
            "DELETE FROM entity_changes WHERE seq IN (SELECT seq FROM entity_changes \
             WHERE created_at < ?1 AND delivered_at IS NOT NULL ORDER BY seq LIMIT ?2)",
            params![before, SLICE],
        )
        .map_err(failed)?;
        self.slice = deleted as u64;
        Ok(Stage::Age { after: end })
    }

    fn by_count(&mut self, db: &Connection, after: (String, String, String)) -> Result<Stage> {
        let Some(most) = self.retention.max_rows_per_field else { return Ok(Stage::Finished) };
        let failed = |error| sql_error("deleting surplus transitions", error);
        let mut at = after;
        for _ in 0..SLICE {
            let next = db
                .prepare_cached(
                    "SELECT kind, entity_id, field FROM entity_transitions WHERE (kind, entity_id, field) > (?, ?, ?) \
                     ORDER BY kind, entity_id, field LIMIT 1",
                )
                .and_then(|mut select| {
                    let mut rows = select.query(params![at.0, at.1, at.2])?;
                    rows.next()?.map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).transpose()
                })
                .map_err(failed)?;
            let Some(field) = next else { return Ok(Stage::Finished) };
            let deleted = db
                .prepare_cached(
                    "DELETE FROM entity_transitions WHERE seq IN (SELECT seq FROM entity_transitions \
                     WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 AND ordinal <= \
                       (SELECT ordinal FROM entity_transitions WHERE kind = ?1 AND entity_id = ?2 AND field = ?3 \
                        ORDER BY transitioned_at DESC LIMIT 1) - ?4 \
                     ORDER BY transitioned_at LIMIT ?5)",
                )
                .and_then(|mut delete| delete.execute(params![field.0, field.1, field.2, most.max(1), SLICE]))
                .map_err(failed)?;
            self.slice += deleted as u64;
            if deleted as i64 == SLICE {
                // More of the same field may be left: look at it again.
                return Ok(Stage::Count { after: at });
            }
            at = field;
            if self.slice >= SLICE as u64 {
                break;
            }
        }
        Ok(Stage::Count { after: at })
    }
}
