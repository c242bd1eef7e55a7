//! Where sessions are kept: a SQLite file, or a PostgreSQL schema. Commands are the same, and so are their answers.

mod config;
mod hub;
mod postgres;
mod sqlite;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use config::{Config, PostgresConfig, Retention, SqliteConfig};
pub use hub::Watch;
pub use sqlite::{APPLICATION_ID, MIGRATIONS};

use crate::durable::pool::Pool;
use crate::error::{Code, HfError, Result};
use hub::Hub;

/// Called once with the outcome, on a thread of the store, which must not be held up.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Opening and closing wait for other processes, and for servers.
static OPENERS: Pool = Pool::new();

/// One of the places where sessions are kept.
trait Backend: Send + Sync {
    fn write(&self, command: String, done: Done<String>);
    fn read(&self, command: String, done: Done<String>);
    fn hub(&self) -> &Arc<Hub>;
    fn path(&self) -> Option<PathBuf>;
    fn backup(&self, to: PathBuf, done: Done<String>);
    fn close(&self, done: Done<()>);
}

/// A store of sessions; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    config: Config,
    state: Mutex<State>,
}

enum State {
    Idle,
    Opening { waiting: Vec<Done<()>>, closing: Vec<Done<()>> },
    Open(Arc<dyn Backend>),
    Closed,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Describes a store; nothing is opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Handle { config, state: Mutex::new(State::Idle) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Result<Arc<dyn Backend>> {
        match &*self.state() {
            State::Open(backend) => Ok(Arc::clone(backend)),
            State::Closed => Err(closed()),
            State::Opening { closing, .. } if !closing.is_empty() => Err(closed()),
            State::Idle | State::Opening { .. } => {
                Err(HfError::new(Code::Busy, "the session store is not open yet; wait until it is"))
            }
        }
    }

    /// Opens files or connections, and creates or updates the tables. Any number of processes may do that at once. After a
    /// failure it can be tried again.
    ///
    /// `done` gets `HF_INVALID_ARGUMENT`, `HF_FORMAT_TOO_NEW`, `HF_CORRUPT`, `HF_BUSY`, `HF_IO`, `HF_DISK_FULL`, `HF_DATABASE`,
    /// `HF_UNAVAILABLE`; `HF_CLOSED` after [`close`](Self::close).
    pub fn open(&self, done: Done<()>) {
        let mut state = self.state();
        match &mut *state {
            State::Open(_) => {
                drop(state);
                done(Ok(()));
            }
            State::Closed => {
                drop(state);
                done(Err(closed()));
            }
            State::Opening { waiting, .. } => waiting.push(done),
            State::Idle => {
                *state = State::Opening { waiting: vec![done], closing: Vec::new() };
                drop(state);
                let store = self.clone();
                OPENERS.spawn(move || store.open_now());
            }
        }
    }

    fn open_now(&self) {
        let opened: Result<Arc<dyn Backend>> = match &self.0.config {
            Config::Sqlite(config) => sqlite::open(config),
            Config::Postgres(config) => postgres::open(config),
        };
        let outcome = opened.as_ref().map(drop).map_err(Clone::clone);
        let mut state = self.state();
        let State::Opening { waiting, closing } = std::mem::replace(&mut *state, State::Idle) else { return };
        if closing.is_empty() {
            if let Ok(backend) = opened {
                *state = State::Open(backend);
            }
            drop(state);
            waiting.into_iter().for_each(|done| done(outcome.clone()));
            return;
        }
        *state = State::Closed;
        drop(state);
        waiting.into_iter().for_each(|done| done(Err(closed())));
        let told: Done<()> = Box::new(move |outcome| closing.into_iter().for_each(|done| done(outcome.clone())));
        match opened {
            Ok(backend) => backend.close(told),
            Err(_) => told(Ok(())),
        }
    }

    /// Runs a command that may write, in one transaction. `done` gets its answer once that is durable.
    ///
    /// Commands that arrive together share a flush; one that changes nothing costs none. An error with the field
    /// `outcomeUnknown` says that the answer to a commit was lost, so that it may have happened.
    pub fn write(&self, command: String, done: Done<String>) {
        match self.opened() {
            Ok(backend) => backend.write(command, done),
            Err(error) => done(Err(error)),
        }
    }

    /// Runs a command that writes nothing, on one snapshot that has all writes whose `done` was called before.
    pub fn read(&self, command: String, done: Done<String>) {
        match self.opened() {
            Ok(backend) => backend.read(command, done),
            Err(error) => done(Err(error)),
        }
    }

    /// Calls `on` whenever the change log may have grown, by whomever, on threads of the store, until the [`Watch`] is dropped. It
    /// is a hint: it may come once for many changes, or for none; what is there is read from the log.
    ///
    /// # Errors
    /// `HF_BUSY` before the store is open, `HF_CLOSED`.
    pub fn watch(&self, on: impl Fn() + Send + Sync + 'static) -> Result<Watch> {
        let backend = self.opened()?;
        Ok(backend.hub().listen(Arc::new(on)))
    }

    /// Returns where the file is; `None` in memory, and with PostgreSQL.
    ///
    /// # Errors
    /// `HF_BUSY` before the store is open, `HF_CLOSED`.
    pub fn path(&self) -> Result<Option<PathBuf>> {
        Ok(self.opened()?.path())
    }

    /// Copies the store, as it is at one moment, to the file `to`, which appears whole or not at all. `done` gets JSON text:
    /// path, bytes, milliseconds.
    pub fn backup(&self, to: PathBuf, done: Done<String>) {
        match self.opened() {
            Ok(backend) => backend.backup(to, done),
            Err(error) => done(Err(error)),
        }
    }

    /// Ends all watches, finishes what was begun, and lets go of everything. Later calls fail with `HF_CLOSED`; closing again is
    /// fine.
    pub fn close(&self, done: Done<()>) {
        let mut state = self.state();
        match &mut *state {
            State::Opening { closing, .. } => closing.push(done),
            State::Idle | State::Closed => {
                *state = State::Closed;
                drop(state);
                done(Ok(()));
            }
            State::Open(backend) => {
                let backend = Arc::clone(backend);
                *state = State::Closed;
                drop(state);
                OPENERS.spawn(move || {
                    backend.hub().end();
                    backend.close(done);
                });
            }
        }
    }
}

fn closed() -> HfError {
    HfError::new(Code::Closed, "the session store is closed; open it again")
}
