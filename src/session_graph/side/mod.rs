//! What stands beside the sessions of a runtime: its processes, the outcomes of its effects, the events of its host. One SQLite file
//! per kind.

mod effects;
mod hash;
mod host_events;
mod job;
mod kind;
mod processes;
mod signal;

use std::path::Path;
use std::sync::Arc;

pub use effects::{Ended, Keeper};
pub use host_events::source_key;
pub use kind::Kind;
pub use signal::Watcher;

use self::job::Job;
pub(super) use self::signal::Signal;
use super::backend::sqlite::open;
use super::backend::{Config, Done, unsupported};
use super::command::name_of;
use super::sql::sqlite::Sqlite;
use crate::durable::turns::Turns;
use crate::error::Result;
use crate::sqlite::{Database, sql_error};

/// A store of one kind; clones share it.
#[derive(Clone)]
pub struct SideStore {
    kind: Kind,
    database: Database,
    turns: Arc<Turns>,
    signal: Arc<Signal>,
}

impl std::fmt::Debug for SideStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideStore").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl SideStore {
    /// Opens a store, and makes its tables when they are missing. Any number of processes may do that at once. Blocks. Of `config`
    /// counts what is not about blobs.
    ///
    /// # Errors
    /// As [`Store::open`](super::backend::Store::open).
    pub fn open(kind: Kind, config: &Config) -> Result<Self> {
        let opened = open::database(config, kind.application_id(), kind.migrations());
        let database = opened.map_err(|error| unsupported(error, kind.word()))?;
        let signal = Signal::of(database.path());
        Ok(Self { kind, database, turns: Arc::new(Turns::new(config.max_readers)), signal })
    }

    /// Runs a command that may write, in one transaction, in the order of these calls. `done` gets its answer once that is durable.
    pub fn write(&self, command: String, done: Done<String>) {
        self.database.write(Box::new(Job::new(self.kind, command, &self.signal, done)));
    }

    /// Runs a command that writes nothing, on one snapshot that has all writes whose `done` was called before.
    pub fn read(&self, command: String, done: Done<String>) {
        let (kind, database) = (self.kind, self.database.clone());
        self.turns.run(Box::new(move || {
            let answer = name_of(&command).and_then(|name| {
                database.read(|db| {
                    let snapshot = db.unchecked_transaction().map_err(|error| sql_error("read", error))?;
                    kind.read(&mut Sqlite(&snapshot), &name, &command)
                })
            });
            done(answer);
        }));
    }

    /// Begins to listen for writes of anybody, in this process or another.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        Watcher::new(&self.signal)
    }

    /// Makes who renews the leases of effects; a command of it is one for [`SideStore::write`].
    #[must_use]
    pub fn lease_keeper(&self) -> Keeper {
        let store = self.clone();
        Keeper::new(Box::new(move |command, done| store.write(command, done)))
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns where the file is; `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.database.path()
    }

    /// Finishes what was handed in, and lets go of the file. Later calls fail with `HF_CLOSED`; closing again is fine.
    pub fn close(&self, done: Done<()>) {
        self.database.close(done);
    }
}
