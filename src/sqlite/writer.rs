//! The one thread that writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;

use super::ahead::Ahead;
use super::batch::{self, Verdict};
use super::checkpoint::{self, Checkpoints};
use super::queue::{Awake, Next};
use super::shared::Shared;
use super::{Synchronous, WriteJob, guarded, sql_error};
use crate::error::{Code, HfError, Result};

/// Starts the writer. It ends when the queue does, and keeps nothing alive.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::clone(shared);
    let ahead = Ahead::new(&shared);
    std::thread::Builder::new().name("holdfast-sqlite".into()).spawn(move || run(&shared, ahead)).map(drop).map_err(
        |error| {
            HfError::new(
                Code::Io,
                format!("cannot start a thread for the database: {error}; too many threads are running"),
            )
        },
    )
}

fn run(shared: &Shared, mut ahead: Ahead) {
    let mut checkpoints = Checkpoints::default();
    loop {
        match shared.queue.next(shared.options.max_batch, checkpoints.is_one_due) {
            Next::Batch(jobs) => {
                let _awake = Awake::new();
                work(shared, jobs, &mut checkpoints, &mut ahead);
            }
            Next::Quiet => look_after_log(shared, |db| checkpoints.when_quiet(db, shared)),
            Next::End(waiting) => {
                let result = close(shared);
                let late = shared.queue.ended();
                for done in waiting.into_iter().chain(late) {
                    let result = result.clone();
                    guarded(|| done(result));
                }
                return;
            }
        }
    }
}

/// Runs one batch, tells its jobs, and keeps the log small.
fn work(shared: &Shared, jobs: Vec<Box<dyn WriteJob>>, checkpoints: &mut Checkpoints, ahead: &mut Ahead) {
    let pieces = jobs.iter().any(|job| job.is_a_piece());
    let mut entries = batch::prepare(jobs);
    let mut connection = shared.connection();
    let verdict = match connection.as_ref() {
        Some(db) => match moved(db, shared) {
            Ok(()) => batch::run(db, &mut entries, shared),
            Err(error) => batch::lost(&mut entries, error),
        },
        None => batch::refuse(&mut entries, &shared.poisoned_error()),
    };
    if let Verdict::Lost(cause) = &verdict {
        shared.poison(cause, true);
        abandon(shared, connection.take());
    }
    drop(connection);
    for entry in entries {
        entry.settle(shared);
    }
    look_after_log(shared, |db| {
        checkpoints.after_batch(db, shared, pieces)?;
        ahead.after_batch(db, shared)
    });
}

/// Does what the log needs. An error ends the trust in the database.
fn look_after_log(shared: &Shared, run: impl FnOnce(&Connection) -> Result<()>) {
    let mut connection = shared.connection();
    if let Some(db) = connection.as_ref()
        && shared.path.is_some()
        && let Err(error) = run(db)
    {
        shared.poison(&error, false);
        abandon(shared, connection.take());
    }
}

/// A file that was deleted or replaced under us still takes writes, and nobody will ever read them.
pub(super) fn moved(db: &Connection, shared: &Shared) -> Result<()> {
    #[cfg(unix)]
    if shared.path.is_some() {
        let mut moved = 0;
        let asked = db.file_control(Some(rusqlite::MAIN_DB), rusqlite::FileControl::HasMoved(&mut moved));
        asked.map_err(|error| sql_error("look for the database file", error))?;
        if moved != 0 {
            return Err(HfError::new(
                Code::Io,
                format!("{} was moved or deleted while it was open; nothing more was written", shared.name()),
            ));
        }
    }
    #[cfg(not(unix))]
    let _ = (db, shared);
    Ok(())
}

/// Lets go of a database that is no longer trusted. SQLite would write the log back when its last connection closes. In
/// full mode that is right: every commit in it was synced by itself, and a write that failed lies behind the end that SQLite
/// knows, and goes with the log. In normal mode the commits may be what failed to sync; and where the file was replaced, the
/// log at that name belongs to somebody else.
fn abandon(shared: &Shared, connection: Option<Connection>) {
    shared.readers.shut(std::time::Duration::ZERO);
    if let Some(db) = connection {
        if !db.is_autocommit() {
            let _ = db.execute_batch("ROLLBACK");
        }
        if shared.options.synchronous == Synchronous::Normal || moved(&db, shared).is_err() {
            let _ = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
        drop(db);
    }
}

/// Writes the log back and closes every connection.
fn close(shared: &Shared) -> Result<()> {
    shared.readers.shut(shared.options.busy_timeout);
    let Some(db) = shared.connection().take() else {
        return if shared.poisoned_in_silence() { Err(shared.poisoned_error()) } else { Ok(()) };
    };
    let mut result = moved(&db, shared);
    if result.is_ok() && shared.path.is_some() {
        result = checkpoint::run(&db, shared, CheckpointMode::TRUNCATE).map(drop);
    }
    if result.is_err() {
        // SQLite would try again and believe a second sync, or remove the log of the file that took our place.
        let _ = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
    shared.log_frames.store(0, Ordering::Relaxed);
    let closed = db.close().map_err(|(_, error)| sql_error("close the database", error));
    result.and(closed).map_err(|error| shared.located(error))
}
