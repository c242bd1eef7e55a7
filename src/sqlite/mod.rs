//! SQLite, embedded: one thread writes, in batches; everybody reads.
//!
//! A [`Database`] owns one writing thread. Jobs ([`WriteJob`]) that arrive while it is busy share the next transaction, in
//! savepoints once one of them has failed, and hear of their end only after the commit. Readers use connections of their own on their own
//! threads. What is promised:
//!
//! - **killed process**: every job that was told "ok" is there once, no other is there in part;
//! - **power cut**: the same with [`Synchronous::Full`]; with [`Synchronous::Normal`] the last commits may be missing;
//! - **full disk**: the jobs concerned fail with [`Code::DiskFull`], the database stays usable and works again when there is
//!   room;
//! - **failed sync or write**: the job fails, the handle is poisoned, and a new opening tells the truth: such a job is there
//!   whole or not at all. A second sync is never believed: [`log`] says why, [`checkpoint`] what that means for the log;
//! - **other processes**: one order of writes, in which all get their [turn] soon, waiting up to `busy_timeout`, then [`Code::Busy`];
//! - **file deleted or replaced under us**: noticed before the next batch (not on Windows), which fails.
//!
//! [`Code::DiskFull`]: crate::error::Code::DiskFull
//! [`Code::Busy`]: crate::error::Code::Busy

mod ahead;
mod backup;
mod batch;
mod check;
mod checkpoint;
mod connection;
mod database;
mod error;
mod fresh;
mod log;
mod migrate;
mod network;
mod options;
pub mod owner;
mod queue;
mod read_only;
mod readers;
mod room;
mod shared;
mod shrink;
mod turn;
mod waits;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use backup::Backup;
pub use database::Database;
pub use error::sql_error;
pub use fresh::NewFile;
pub use network::refuse_network;
pub use options::{Migrate, Migration, Network, Options, Synchronous, Target};
pub use read_only::ReadOnly;
pub use shrink::give_back;
pub use waits::Waits;
pub use watch::Watch;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;

use crate::error::Result;

/// What [`Database::close`] calls at the end.
pub type Closed = Box<dyn FnOnce(Result<()>) + Send>;

/// Something to be written. Owns all it needs. Its methods run on the writer's thread and must not wait for other jobs.
pub trait WriteJob: Send {
    /// Whether jobs that nobody waits for go along in its transaction. Not where another job follows soon that touches the
    /// same pages as they do, so that the log need not hold those twice.
    fn takes_along(&self) -> bool {
        true
    }

    /// Whether it is a piece of long work, with jobs of others in between: the log is then written back in smaller pieces too, so that
    /// nobody waits for much of it.
    fn is_a_piece(&self) -> bool {
        false
    }

    /// Runs first, outside of the transaction, for work that needs no database: nobody else is held up by it but those
    /// behind it in the queue.
    fn prepare(&mut self) {}

    /// Runs inside the transaction. Must not end it. May be called again after a rollback, when another job of its batch has
    /// failed, and must then do the same.
    ///
    /// # Errors
    /// Whatever it likes: its own statements are undone and `done` gets the error, other jobs are not concerned. Errors of
    /// SQLite should come through [`sql_error`], so that a failed write to the disk is recognised.
    fn run(&mut self, db: &Connection) -> Result<()>;

    /// Runs last, once, outside of any lock: after the commit, or with the error. In the order of the jobs.
    fn done(self: Box<Self>, outcome: Result<()>);
}

/// Counters of one [`Database`], since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Jobs taken out of the queue.
    pub jobs: u64,
    /// Batches they came in.
    pub batches: u64,
    /// Transactions that were committed.
    pub commits: u64,
    /// Jobs in the largest batch.
    pub largest_batch: u64,
    /// Jobs that were run again by themselves because their batch was refused.
    pub retried: u64,
    /// Jobs that wait now.
    pub queued: u64,
    /// Checkpoints that were tried.
    pub checkpoints: u64,
    /// Checkpoints that could not move all of the log, because of a reader, another process, or a full disk.
    pub checkpoints_held: u64,
    /// Size of the write-ahead log now.
    pub wal_bytes: u64,
    /// Reading connections that are kept open.
    pub readers_idle: u64,
    /// How long transactions waited for other processes.
    pub waits: Waits,
}

/// Calls somebody else's function; its panic ends nothing of ours.
fn guarded(call: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}
