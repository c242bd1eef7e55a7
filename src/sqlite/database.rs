//! The handle.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::shared::Shared;
use super::{Backup, Closed, Options, Stats, Target, WriteJob, backup, check, connection, guarded, readers, writer};
use crate::error::{Code, HfError, Result};

/// An open database: one thread that writes, and connections for whoever reads. Clones share it.
///
/// When the last clone is dropped, what is queued is still written, and the thread ends. Nothing of it keeps a process alive.
/// After a `fork` the child must not touch it, not even drop it; it opens the database anew.
#[derive(Clone)]
pub struct Database(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.end(None);
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.0.0.name()).finish()
    }
}

impl Database {
    /// Opens or creates a database. Blocks: for syncs, for other processes that are just opening it, for migrations.
    ///
    /// Any number of processes and threads may open one file, also for the first time at once. What a killed process left
    /// behind is recovered on the way.
    ///
    /// # Errors
    /// - [`Code::InvalidArgument`]: a folder, a FIFO, a file system of a network, or another application's database; migrations not
    ///   numbered in a row.
    /// - [`Code::FormatTooNew`]: written by a newer version. Like the above the file was not touched.
    /// - [`Code::Corrupt`]: not a SQLite database, or a damaged one.
    /// - [`Code::Busy`]: others kept it to themselves for longer than `busy_timeout`.
    /// - [`Code::MigrationFailed`]: a migration failed, none was kept. [`Code::Database`]: some are missing and
    ///   [`Migrate::Check`](super::Migrate::Check) forbids to run them.
    /// - [`Code::Io`], [`Code::DiskFull`].
    pub fn open(target: &Target, options: Options) -> Result<Self> {
        if !options.migrations.iter().map(|migration| migration.version).eq(options.first_version()..=options.version())
            || options.first_version() == 0
            || options.application_id == 0
        {
            return Err(HfError::new(
                Code::InvalidArgument,
                "migrations must be numbered in a row, from 1 or more, and the application id must not be 0",
            ));
        }
        let (db, path) = match target {
            Target::File(path) => {
                let (db, path) = connection::open_file(path, &options)?;
                (db, Some(path))
            }
            Target::Memory => (connection::open_memory(&options)?, None),
        };
        let shared = Arc::new(Shared::new(options, path, db)?);
        writer::start(&shared)?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Hands a job in. Never blocks; jobs run in the order of these calls. Jobs that arrive while the disk is busy share the
    /// next transaction, one that is alone does not wait for company.
    ///
    /// The queue has no bound of its own: callers wait for what they handed in.
    pub fn write(&self, job: Box<dyn WriteJob>) {
        self.push(job, true);
    }

    /// Hands in a job that nobody waits for. It goes with the next transaction that [takes it along](WriteJob::takes_along), or
    /// alone 20 ms after the first such job; closing runs it too. It runs after all that was handed in before it, and perhaps
    /// after jobs that were handed in later.
    pub fn write_later(&self, job: Box<dyn WriteJob>) {
        self.push(job, false);
    }

    fn push(&self, job: Box<dyn WriteJob>, waited_for: bool) {
        let shared = &self.0.0;
        if let Err(job) = shared.queue.push(job, waited_for) {
            guarded(|| job.done(Err(shared.closed_error())));
        }
    }

    /// Reads on the calling thread, with a connection that cannot write. Each statement sees the last commit; for several
    /// statements that must see the same one, begin with `unchecked_transaction`. Waits for no writer, except in memory.
    ///
    /// Must not be called from inside a job or another read where the database is in memory: they take turns.
    ///
    /// # Errors
    /// What `f` returns, [`Code::Closed`], [`Code::Poisoned`], or a connection that cannot be opened.
    pub fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        readers::read(&self.0.0, f)
    }

    /// Copies the database, as it is at one moment, to the new file `to`, which appears whole or not at all.
    /// The copy is opened and checked before it gets its name. Writers go on meanwhile. Blocks for as long as it takes.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if `to` exists already, or files of a database in use stand beside it; [`Code::Corrupt`] if the copy
    /// is not sound; [`Code::Closed`] if the database is closed meanwhile; any I/O failure. No half copy is left.
    pub fn backup(&self, to: &Path) -> Result<Backup> {
        backup::run(&self.0.0, to)
    }

    /// Checks the whole file: `PRAGMA integrity_check` and `foreign_key_check`. Returns what is wrong, nothing if it is sound.
    ///
    /// # Errors
    /// As [`Database::read`], and [`Code::Corrupt`] for a file too damaged to be checked.
    pub fn check(&self) -> Result<Vec<String>> {
        self.read(check::everything)
    }

    /// Runs what is queued, writes the log back, closes all connections, then calls `done`, on the writer's thread. Reads
    /// that are under way get `busy_timeout` to finish. Later calls fail with [`Code::Closed`]; closing again is fine.
    ///
    /// `done` gets an error if the log could not be written back, now or after the last job; every job that was told "ok" is
    /// in it all the same. Of a failure that a job was told of, it does not speak again.
    pub fn close(&self, done: Closed) {
        self.0.0.queue.end(Some(done));
    }

    /// Tells whether a write failed in a way that makes the handle useless: close it and open the database again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.0.is_poisoned()
    }

    /// Tells whether a write can succeed now.
    ///
    /// # Errors
    /// [`Code::Poisoned`] after a failed write, [`Code::Closed`].
    pub fn usable(&self) -> Result<()> {
        self.0.0.usable()
    }

    /// Returns where the file is, with links followed; `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.0.path.as_deref()
    }

    /// Returns counters since opening.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.0.stats()
    }
}
