//! Group commit: many jobs, one transaction, each with its own fate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use rusqlite::ffi;

use super::error::{loses_trust, primary_code};
use super::shared::Shared;
use super::{WriteJob, guarded, room, sql_error};
use crate::error::{Code, HfError, Result};

/// A job on its way.
pub(super) struct Entry {
    job: Box<dyn WriteJob>,
    outcome: Option<Result<()>>,
}

impl Entry {
    /// Tells the job how it ended.
    pub(super) fn settle(self, shared: &Shared) {
        let outcome = self.outcome.unwrap_or_else(|| Err(bug("a write job was forgotten")));
        let outcome = outcome.map_err(|error| shared.located(error));
        guarded(|| self.job.done(outcome));
    }
}

/// How the database is after a batch.
pub(super) enum Verdict {
    /// As the outcomes say.
    Sound,
    /// Nobody knows what is on the disk.
    Lost(HfError),
}

fn bug(what: &str) -> HfError {
    HfError::new(Code::Panic, format!("{what}; nothing of it was kept, please report this"))
}

/// Lets every job do what needs no transaction.
pub(super) fn prepare(jobs: Vec<Box<dyn WriteJob>>) -> Vec<Entry> {
    let entry = |mut job: Box<dyn WriteJob>| {
        let prepared = catch_unwind(AssertUnwindSafe(|| job.prepare()));
        let outcome = prepared.is_err().then(|| Err(bug("a write job panicked while it was prepared")));
        Entry { job, outcome }
    };
    jobs.into_iter().map(entry).collect()
}

/// Fails all that have no outcome yet.
pub(super) fn refuse(entries: &mut [Entry], error: &HfError) -> Verdict {
    for entry in entries.iter_mut().filter(|entry| entry.outcome.is_none()) {
        entry.outcome = Some(Err(error.clone()));
    }
    Verdict::Sound
}

/// Fails all that have no outcome yet, and the database with them.
pub(super) fn lost(entries: &mut [Entry], error: HfError) -> Verdict {
    refuse(entries, &error);
    Verdict::Lost(error)
}

/// How the jobs of a transaction are kept apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// Not at all: there is but one, or it is hoped that none fails.
    No,
    /// Each in a savepoint of its own.
    Savepoints,
}

/// Runs all jobs in one transaction; if one of them fails, again with a savepoint for each, which costs more; if the transaction as
/// a whole is refused, each in its own.
pub(super) fn run(db: &Connection, entries: &mut [Entry], shared: &Shared) -> Verdict {
    let counters = &shared.counters;
    counters.batches.fetch_add(1, Ordering::Relaxed);
    counters.jobs.fetch_add(entries.len() as u64, Ordering::Relaxed);
    counters.largest_batch.fetch_max(entries.len() as u64, Ordering::Relaxed);
    let mut pending: Vec<&mut Entry> = entries.iter_mut().filter(|entry| entry.outcome.is_none()).collect();
    let mut cause = transaction(db, &mut pending, Apart::No, shared);
    pending.retain(|entry| entry.outcome.is_none());
    if cause.is_none() && pending.len() > 1 {
        cause = transaction(db, &mut pending, Apart::Savepoints, shared);
        pending.retain(|entry| entry.outcome.is_none());
    }
    for entry in pending {
        if cause.is_none() {
            counters.retried.fetch_add(1, Ordering::Relaxed);
            cause = transaction(db, &mut [&mut *entry], Apart::No, shared);
        }
        if let (Some(cause), None) = (&cause, &entry.outcome) {
            entry.outcome = Some(Err(cause.clone()));
        }
    }
    cause.map_or(Verdict::Sound, Verdict::Lost)
}

/// Runs jobs in one transaction and gives each its outcome. Those left without one were rolled back through no fault of their
/// own and are to be run again, in savepoints or singly; of a single job that never happens. Returns the cause if the database is
/// lost.
fn transaction(db: &Connection, jobs: &mut [&mut Entry], apart: Apart, shared: &Shared) -> Option<HfError> {
    let single = jobs.len() == 1;
    if jobs.is_empty() {
        return None;
    }
    if let Err(error) = shared.begin(db).map_err(|error| honest(error, shared)) {
        for entry in jobs.iter_mut() {
            entry.outcome = Some(Err(error.clone()));
        }
        return loses_trust(&error).then_some(error);
    }
    let mut kept = 0;
    for index in 0..jobs.len() {
        let Some(entry) = jobs.get_mut(index) else { break };
        let (result, alive) = match apart {
            Apart::No => alone(db, entry, shared),
            Apart::Savepoints => in_savepoint(db, entry, shared),
        };
        match result {
            // Its outcome is known only after the commit.
            Ok(()) if alive => kept += 1,
            Ok(()) => {}
            Err(error) => {
                let lost = loses_trust(&error);
                // A disk that filled up while many wrote may have room for one; without savepoints nobody knows yet whether a job
                // failed by itself.
                let counts = alive || (apart == Apart::Savepoints && primary_code(&error) != Some(ffi::SQLITE_FULL));
                if single || lost || counts {
                    entry.outcome = Some(Err(error.clone()));
                }
                if lost {
                    rollback(db, shared);
                    return Some(error);
                }
            }
        }
        if !alive {
            return rollback(db, shared);
        }
    }
    if kept == 0 {
        return rollback(db, shared);
    }
    let Err(error) = execute(db, "COMMIT", shared) else {
        shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        for entry in jobs.iter_mut().filter(|entry| entry.outcome.is_none()) {
            entry.outcome = Some(Ok(()));
        }
        return None;
    };
    let rolled_back = rollback(db, shared);
    match primary_code(&error) {
        // One of them is too big, or breaks a deferred constraint: find out which.
        Some(ffi::SQLITE_FULL | ffi::SQLITE_CONSTRAINT) if rolled_back.is_none() && !single => None,
        Some(ffi::SQLITE_FULL | ffi::SQLITE_CONSTRAINT | ffi::SQLITE_BUSY) if rolled_back.is_none() => {
            for entry in jobs.iter_mut().filter(|entry| entry.outcome.is_none()) {
                entry.outcome = Some(Err(error.clone()));
            }
            None
        }
        _ => {
            for entry in jobs.iter_mut().filter(|entry| entry.outcome.is_none()) {
                entry.outcome = Some(Err(error.clone()));
            }
            Some(error)
        }
    }
}

fn execute(db: &Connection, sql: &str, shared: &Shared) -> Result<()> {
    let run = || db.prepare_cached(sql)?.execute([]).map(drop);
    run().map_err(|error| honest(error, shared))
}

fn honest(error: rusqlite::Error, shared: &Shared) -> HfError {
    room::honest(sql_error("write to the database", error), shared.path.as_deref())
}

/// Undoes the transaction, if it is still open. An error here is the end.
fn rollback(db: &Connection, shared: &Shared) -> Option<HfError> {
    if db.is_autocommit() { None } else { execute(db, "ROLLBACK", shared).err() }
}

/// Runs a job; a panic is an error.
fn attempt(db: &Connection, entry: &mut Entry, shared: &Shared) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| entry.job.run(db)))
        .unwrap_or_else(|_| Err(bug("a write job panicked")))
        .map_err(|error| room::honest(error, shared.path.as_deref()))
}

/// Runs the only job of a transaction. Returns whether the transaction is still there to be committed.
fn alone(db: &Connection, entry: &mut Entry, shared: &Shared) -> (Result<()>, bool) {
    let result = attempt(db, entry, shared);
    match (result, db.is_autocommit()) {
        (Ok(()), true) => (Err(bug("a write job ended the transaction that it was given")), false),
        (Ok(()), false) => (Ok(()), true),
        (Err(error), _) => (Err(error), false),
    }
}

/// Runs one job among others. A job that fails is undone alone, unless SQLite itself gave the whole transaction up.
fn in_savepoint(db: &Connection, entry: &mut Entry, shared: &Shared) -> (Result<()>, bool) {
    if let Err(error) = execute(db, "SAVEPOINT job", shared) {
        return (Err(error), false);
    }
    let result = attempt(db, entry, shared);
    if db.is_autocommit() {
        return match result {
            Ok(()) => (Err(bug("a write job ended the transaction that it was given")), false),
            Err(error) => (Err(error), false),
        };
    }
    match result {
        Ok(()) => match execute(db, "RELEASE job", shared) {
            Ok(()) => (Ok(()), true),
            Err(error) => (Err(error), false),
        },
        Err(error) => {
            let undone = execute(db, "ROLLBACK TO job", shared).and_then(|()| execute(db, "RELEASE job", shared));
            (Err(error), undone.is_ok())
        }
    }
}
