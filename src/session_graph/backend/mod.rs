//! Where a session is kept. Commands are the same everywhere, and so are their answers.

mod config;
mod fork;
mod place;
mod postgres;
mod read_only;
pub(super) mod sqlite;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

pub use super::blob::Profile;
pub use super::load::Reply;
pub use config::{Config, GcPolicy, PostgresConfig, Synchronous};
pub use sqlite::{APPLICATION_ID, MIGRATIONS};

use super::side::{Signal, Watcher};
use crate::error::{Code, HfError, Result};

/// The version of the files that this version writes.
pub const SCHEMA_VERSION: u32 = 3;

/// Called once with the outcome, on a thread of the store, which must not be held up.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// One of the places where a session is kept.
trait Backend: Send + Sync {
    fn write(&self, command: String, bytes: Vec<Vec<u8>>, done: Done<String>);
    fn read(&self, command: String, done: Done<Reply>);
    fn path(&self) -> Option<PathBuf>;
    fn backup(&self, to: PathBuf, done: Done<String>);
    fn fork(&self, to: PathBuf, command: String, done: Done<String>);
    fn signal(&self) -> &Arc<Signal>;
    fn close(&self, done: Done<()>);
}

/// A store of one session; clones share it.
#[derive(Clone)]
pub struct Store(Arc<dyn Backend>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a store, and makes its tables when they are missing. Any number of processes may do that at once. Blocks.
    ///
    /// # Errors
    /// `HF_FORMAT_TOO_NEW` and `HF_GRAPH_UNSUPPORTED_SCHEMA` for a file that is not ours to use, `HF_GRAPH_STORE_NOT_FOUND`,
    /// `HF_INVALID_ARGUMENT`, `HF_CORRUPT`, `HF_BUSY`, `HF_IO`, `HF_DISK_FULL`, `HF_DATABASE`.
    pub fn open(config: &Config) -> Result<Self> {
        let opened: Result<Arc<dyn Backend>> = match &config.postgres {
            Some(postgres) => postgres::open(config, postgres),
            None if config.read_only => read_only::open(config),
            None => sqlite::open(config),
        };
        opened.map(Self).map_err(|error| unsupported(error, "session"))
    }

    /// Runs a command that may write, in one transaction. `done` gets its answer once that is durable.
    pub fn write(&self, command: String, bytes: Vec<Vec<u8>>, done: Done<String>) {
        self.0.write(command, bytes, done);
    }

    /// Runs a command that writes nothing, on one snapshot that has all writes whose `done` was called before.
    pub fn read(&self, command: String, done: Done<Reply>) {
        self.0.read(command, done);
    }

    /// Returns where the file is; `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.0.path()
    }

    /// Copies the store, as it is at one moment, to the file `to`, which appears whole or not at all. `done` gets JSON text:
    /// path, bytes, milliseconds.
    pub fn backup(&self, to: PathBuf, done: Done<String>) {
        self.0.backup(to, done);
    }

    /// Makes a new store at `to` that begins where this one is; it appears whole or not at all. `command` says what goes along, `done` gets
    /// JSON text.
    pub fn fork(&self, to: PathBuf, command: String, done: Done<String>) {
        self.0.fork(to, command, done);
    }

    /// Begins to listen for writes: of anybody for a file, of this handle otherwise.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        Watcher::new(self.0.signal())
    }

    /// Finishes what was handed in, and lets go of the files. Later calls fail with `HF_CLOSED`; closing again is fine.
    pub fn close(&self, done: Done<()>) {
        self.0.close(done);
    }
}

/// Says it in the words of the format, where a file is not ours to use; `kind` is what it should be.
pub(super) fn unsupported(error: HfError, kind: &str) -> HfError {
    if !matches!(error.code(), Code::InvalidArgument | Code::FormatTooNew | Code::Database) {
        return error;
    }
    let number = |name: &str| error.fields().get(name).and_then(serde_json::Value::as_u64);
    let (Some(found), Some(expected)) = (number("found"), number("expected")) else { return error };
    let reason = error.fields().get("reason").and_then(serde_json::Value::as_str).unwrap_or("older");
    if reason == "empty" {
        let shown = error.fields().get("path").and_then(serde_json::Value::as_str).unwrap_or("the file");
        let text = format!(
            "There is no holdfast {kind} store in {shown} yet: it is empty. Open it once with `open`, and without `migrate: 'never'`, \
             to make one. The file was not changed."
        );
        return HfError::new(Code::GraphUnsupportedSchema, text)
            .with_field("kind", kind)
            .with_field("reason", reason)
            .with_field("found", found)
            .with_field("expected", expected)
            .with_field("path", shown);
    }
    let (code, advice) = match reason {
        "newer" => (Code::FormatTooNew, "It was written by a newer build.".to_owned()),
        "foreign" => (Code::GraphUnsupportedSchema, format!("It is not a holdfast {kind} database.")),
        _ => (Code::GraphUnsupportedSchema, "There is no migration from that version.".to_owned()),
    };
    let text = format!(
        "Unsupported holdfast {kind} schema: this build supports schema version {expected}, but the database reports \
         version {found}. {advice} The file was not changed."
    );
    let made = HfError::new(code, text)
        .with_field("kind", kind)
        .with_field("reason", reason)
        .with_field("found", found)
        .with_field("expected", expected);
    match error.fields().get("path") {
        Some(path) => made.with_field("path", path.clone()),
        None => made,
    }
}
