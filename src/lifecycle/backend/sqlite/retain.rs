//! Retention of the change log, between other writes: old changes go in batches, then the room that they had.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::Shared;
use crate::error::Result;
use crate::lifecycle::backend::config::Retention;
use crate::lifecycle::sql::sqlite::Sqlite;
use crate::lifecycle::tables::prune;
use crate::sqlite::{WriteJob, give_back};

/// Changes after which retention is looked at.
const PRUNE_EVERY: i64 = 500;
/// Unused pages that stay in the file, 2 MB: some thousand changes need them soon.
const RESERVE: i64 = 512;

impl Shared {
    /// Looks at retention once in a while, now that the log ends with `head`.
    pub(super) fn retain(self: &Arc<Self>, head: i64) {
        let Retention(Some(_)) = self.retention else { return };
        if head.saturating_sub(self.pruned_at.load(Ordering::Relaxed)) >= PRUNE_EVERY {
            self.pruned_at.store(head, Ordering::Relaxed);
            self.prune_later();
        }
    }

    /// Removes a batch of old changes with one of the next transactions, and goes on until nothing is left to remove.
    fn prune_later(self: &Arc<Self>) {
        self.database.write_later(Box::new(Retain { shared: Arc::clone(self), removed: 0 }));
    }

    /// Gives some room back with one of the next transactions, and goes on until nothing is left to give.
    pub(super) fn shrink_later(self: &Arc<Self>) {
        self.database.write_later(Box::new(Shrink { shared: Arc::clone(self), more: false }));
    }
}

/// Retention: one batch.
struct Retain {
    shared: Arc<Shared>,
    removed: i64,
}

impl WriteJob for Retain {
    fn run(&mut self, db: &Connection) -> Result<()> {
        let Retention(Some(limits)) = self.shared.retention else { return Ok(()) };
        let (limits, now) = prune::by_clock(limits, self.shared.now.load(Ordering::Relaxed));
        self.removed = prune::prune(&mut Sqlite(db), limits, now)?;
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        // After a failure it is tried again when the log has grown.
        if outcome.is_err() {
            return;
        }
        if self.removed >= prune::BATCH {
            self.shared.prune_later();
        } else {
            self.shared.shrink_later();
        }
    }
}

/// Giving room back: one slice.
struct Shrink {
    shared: Arc<Shared>,
    more: bool,
}

impl WriteJob for Shrink {
    fn run(&mut self, db: &Connection) -> Result<()> {
        self.more = give_back(db, RESERVE)?;
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        if outcome.is_ok() && self.more {
            self.shared.shrink_later();
        }
    }
}
