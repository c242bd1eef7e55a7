//! What a database is opened with.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

/// Where a database lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file, shared with every other process that opens it. Its folders are made when they are missing. It must lie on a
    /// local file system, for the write-ahead log needs shared memory: see [`Network`].
    File(PathBuf),
    /// Memory of this process, private to one [`Database`](super::Database). Reads and writes take turns.
    Memory,
}

/// What a power cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// The commits since the last checkpoint, never consistency. A killed process loses nothing.
    Normal,
    /// Nothing: every batch is on the disk before its jobs hear of it.
    Full,
}

/// What opening does about a file on a [file system of a network](super::refuse_network).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// Fails, and touches nothing.
    #[default]
    Refuse,
    /// Takes it; the caller knows that no other host opens the file.
    Allow,
}

/// One step of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its number, one more than that of the one before; the file's `user_version` once it is done. A file below the first one's that
    /// is not empty is refused.
    pub version: u32,
    /// What it does, for messages.
    pub name: &'static str,
    /// Its statements, from `migrations/sqlite/<module>/NNNN_name.sql`. They run inside a transaction, with foreign keys on.
    pub sql: &'static str,
}

/// What opening does about a schema that is older than ours, or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrate {
    /// Brings it up to date, all missing steps in one transaction.
    Auto,
    /// Fails with the list of missing steps, and for a file that does not exist.
    Check,
    /// Leaves it alone. A file of another application or a newer version is still refused.
    Off,
}

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Default [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// How long a call waits for another process that holds the database; default 5 s.
    pub busy_timeout: Duration,
    /// Marks the file as ours (`PRAGMA application_id`); not 0.
    pub application_id: i32,
    /// All steps of the schema.
    pub migrations: &'static [Migration],
    /// Most jobs in one transaction; default 256. What waits longer than that goes out with the next.
    pub max_batch: usize,
    /// Makes new files so that they can [give room back](super::give_back); it costs a little on each write. Default `false`.
    pub shrinks: bool,
    /// Makes room in the write-ahead log ahead of the commits, at most a megabyte, so that their syncs cost less. On Linux only, and
    /// not in a log that stays short. Default `false`.
    pub log_ahead: bool,
    /// Default [`Network::Refuse`].
    pub network: Network,
    /// Default [`Migrate::Auto`].
    pub migrate: Migrate,
    /// Runs on every new connection, for functions and the like; by default it does nothing. The schema is not trusted: a
    /// function that triggers, views or indexes are to call must be declared innocuous.
    pub setup: fn(&Connection) -> rusqlite::Result<()>,
}

impl Options {
    /// Returns the defaults for a module's files.
    #[must_use]
    pub fn new(application_id: i32, migrations: &'static [Migration]) -> Self {
        Self {
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            application_id,
            migrations,
            max_batch: 256,
            shrinks: false,
            log_ahead: false,
            network: Network::Refuse,
            migrate: Migrate::Auto,
            setup: |_| Ok(()),
        }
    }

    /// The version that our migrations lead to.
    pub(super) fn version(&self) -> u32 {
        self.migrations.last().map_or(0, |migration| migration.version)
    }

    /// The version that the first of our migrations leads to.
    pub(super) fn first_version(&self) -> u32 {
        self.migrations.first().map_or(1, |migration| migration.version)
    }
}
