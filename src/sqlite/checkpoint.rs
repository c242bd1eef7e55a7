//! Moving what is in the write-ahead log into the database file, so that the log stays small.
//!
//! SQLite can do this by itself at commit, but drops the result: a sync that failed there would go unnoticed, and the next
//! one, which says "ok" about pages that were never written, would let the log be overwritten. So its automatic checkpoint is
//! off, ours runs in the writer, and an error other than "busy" and "full" ends the trust in the handle like any failed sync.
//! (A checkpoint that fails loses nothing: the log is kept until one has succeeded.)
//!
//! A caller that comes back at once is not to wait for it: between [`IDLE_FRAMES`] and [`BUSY_FRAMES`] it runs only when nobody has come
//! for a moment.
//!
//! The bound: with readers that finish, the log stays under [`BUSY_FRAMES`] pages (16 MB) plus one batch. A reader that stays
//! holds it open; from [`FORCE_FRAMES`] pages (64 MB) on the writer waits up to [`PATIENCE`] for readers, again after every
//! further 16 MB. It never waits longer: one stuck reader must not stop the writes. `Stats::checkpoints_held` counts how
//! often a reader was in the way and `Stats::wal_bytes` shows the size.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB};

use super::shared::Shared;
use super::{room, sql_error};
use crate::error::{Code, Result};

/// Pages in the log from which a writer checkpoints when it has a quiet moment: 4 MB.
const IDLE_FRAMES: u32 = 1_000;
/// Pages from which it does so at once: 16 MB.
const BUSY_FRAMES: u32 = 4_000;
/// Pages from which it waits for readers: 64 MB.
const FORCE_FRAMES: u32 = 16_000;
/// How long it waits for them.
const PATIENCE: Duration = Duration::from_millis(100);
/// A log that was bigger is cut to this when it starts over, because writing into an existing file is twice as fast.
pub(super) const LOG_BYTES_KEPT: i64 = 16 << 20;

/// When the next checkpoint is due.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Not before the log has this many pages: a reader is in the way of an earlier one.
    not_before: u32,
    /// The size of the log after the last commit.
    last: u32,
    /// Whether a quiet moment should be used for one.
    pub(super) is_one_due: bool,
}

impl Checkpoints {
    /// Runs after each batch; `pieces`: it had pieces of long work.
    ///
    /// # Errors
    /// A failed sync or write.
    pub(super) fn after_batch(&mut self, db: &Connection, shared: &Shared, pieces: bool) -> Result<()> {
        let frames = shared.log_frames.load(Ordering::Relaxed);
        if frames < self.last {
            // The log started over.
            self.not_before = 0;
        }
        self.last = frames;
        self.is_one_due = frames >= IDLE_FRAMES.max(self.not_before);
        let limit = if pieces { IDLE_FRAMES } else { BUSY_FRAMES };
        if frames < limit.max(self.not_before) {
            return Ok(());
        }
        self.now(db, shared, frames)
    }

    /// Runs when nobody has come for a moment.
    ///
    /// # Errors
    /// As [`Checkpoints::after_batch`].
    pub(super) fn when_quiet(&mut self, db: &Connection, shared: &Shared) -> Result<()> {
        self.now(db, shared, shared.log_frames.load(Ordering::Relaxed))
    }

    fn now(&mut self, db: &Connection, shared: &Shared, frames: u32) -> Result<()> {
        self.is_one_due = false;
        let (mode, step) = if frames < FORCE_FRAMES {
            (CheckpointMode::PASSIVE, IDLE_FRAMES)
        } else {
            (CheckpointMode::TRUNCATE, BUSY_FRAMES)
        };
        if !run(db, shared, mode)? {
            self.not_before = frames + step;
        }
        Ok(())
    }
}

/// Runs one checkpoint and tells whether all of the log is now in the database file.
///
/// # Errors
/// A failed sync or write; the log is then still complete.
pub(super) fn run(db: &Connection, shared: &Shared, mode: CheckpointMode) -> Result<bool> {
    let waits = !matches!(mode, CheckpointMode::PASSIVE);
    let patience = |time| db.busy_timeout(time).map_err(|error| sql_error("checkpoint", error));
    if waits {
        patience(PATIENCE.min(shared.options.busy_timeout))?;
    }
    let result = db
        .wal_checkpoint_v2(Some(MAIN_DB), mode)
        .map_err(|error| room::honest(sql_error("checkpoint", error), shared.path.as_deref()));
    if waits {
        patience(shared.options.busy_timeout)?;
    }
    let counters = &shared.counters;
    counters.checkpoints.fetch_add(1, Ordering::Relaxed);
    match result {
        Ok((in_log, moved)) if moved >= in_log => return Ok(true),
        // No room for the database file to grow: the log keeps everything until there is.
        Err(error) if error.code() != Code::Busy && error.code() != Code::DiskFull => return Err(error),
        _ => {}
    }
    counters.checkpoints_held.fetch_add(1, Ordering::Relaxed);
    Ok(false)
}
