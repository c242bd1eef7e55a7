//! Blobs in a SQLite file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _};

use super::{BlobStore, Done, closed, damaged, key};
use crate::durable::pool;
use crate::error::Result;
use crate::sqlite::{Database, Migration, Network, Options, Target, WriteJob, sql_error};
use crate::{clock, hash};

/// Marks the files of this module: "HFBL".
pub const APPLICATION_ID: i32 = 0x4846_424c;

/// The versions of the table.
pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "blobs", sql: include_str!("../../migrations/sqlite/blobs/0001_blobs.sql") }];

/// Blobs are large: fewer in one transaction than the engine's default, so that its log stays bounded.
const MAX_BATCH: usize = 32;

/// Blobs in one SQLite file, which any number of processes may share. Puts that arrive together share a sync.
///
/// The file does not shrink when blobs are deleted; their room is used again. SQLite holds at most 1,000,000,000 bytes in one
/// blob.
pub struct SqliteBlobs(Arc<Inner>);

struct Inner {
    target: Target,
    network: Network,
    state: Mutex<State>,
}

enum State {
    Idle,
    Open(Database),
    Closed,
}

impl SqliteBlobs {
    /// Describes a store; nothing is opened yet.
    #[must_use]
    pub fn new(target: Target, network: Network) -> Self {
        Self(Arc::new(Inner { target, network, state: Mutex::new(State::Idle) }))
    }

    /// Runs `work` with the database on a thread of the pool.
    fn with<T: Send + 'static>(&self, done: Done<T>, work: impl FnOnce(&Inner, Database, Done<T>) + Send + 'static) {
        let inner = Arc::clone(&self.0);
        pool::spawn(move || match inner.database() {
            Ok(database) => work(&inner, database, done),
            Err(error) => done(Err(error)),
        });
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> String {
        match &self.target {
            Target::File(path) => path.display().to_string(),
            Target::Memory => "memory".into(),
        }
    }

    /// The database, opened if it is not. A handle that lost its trust is replaced: what a new one reads is the truth.
    fn database(&self) -> Result<Database> {
        let mut state = self.state();
        match &*state {
            State::Closed => return Err(closed(&self.place())),
            State::Open(database) if !database.is_poisoned() => return Ok(database.clone()),
            State::Open(_) | State::Idle => {}
        }
        // The old handle's connections were closed when it was poisoned.
        *state = State::Idle;
        let options =
            Options { max_batch: MAX_BATCH, network: self.network, ..Options::new(APPLICATION_ID, MIGRATIONS) };
        let database = Database::open(&self.target, options)?;
        *state = State::Open(database.clone());
        Ok(database)
    }
}

fn has(db: &Connection, integrity: &str) -> Result<bool> {
    let ask = || db.prepare_cached("SELECT 1 FROM blobs WHERE integrity = ?1")?.exists([integrity]);
    ask().map_err(|error| sql_error("look for a blob", error))
}

struct Put {
    integrity: String,
    bytes: Vec<u8>,
    sha256: String,
    done: Done<()>,
}

impl WriteJob for Put {
    fn run(&mut self, db: &Connection) -> Result<()> {
        let sql = "INSERT INTO blobs (integrity, data, sha256, size_bytes, created_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (integrity) DO NOTHING";
        let size = i64::try_from(self.bytes.len()).unwrap_or(i64::MAX);
        let now = i64::try_from(clock::epoch_ms()).unwrap_or(i64::MAX);
        let put = || db.prepare_cached(sql)?.execute((&self.integrity, &self.bytes, &self.sha256, size, now));
        put().map(drop).map_err(|error| sql_error("store a blob", error))
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        (self.done)(outcome);
    }
}

struct Delete {
    integrity: String,
    done: Done<()>,
}

impl WriteJob for Delete {
    fn run(&mut self, db: &Connection) -> Result<()> {
        let delete = || db.prepare_cached("DELETE FROM blobs WHERE integrity = ?1")?.execute([&self.integrity]);
        delete().map(drop).map_err(|error| sql_error("delete a blob", error))
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        (self.done)(outcome);
    }
}

impl BlobStore for SqliteBlobs {
    fn put(&self, integrity: String, bytes: Vec<u8>, done: Done<()>) {
        self.with(done, move |_, database, done| {
            // What is there was synced before it could be seen. Looking first spares the writer most repeated puts.
            match key::check(&integrity).and_then(|()| database.read(|db| has(db, &integrity))) {
                Ok(true) => done(Ok(())),
                Ok(false) => {
                    let sha256 = hash::sha256_hex(&bytes);
                    database.write(Box::new(Put { integrity, bytes, sha256, done }));
                }
                Err(error) => done(Err(error)),
            }
        });
    }

    fn get(&self, integrity: String, done: Done<Option<Vec<u8>>>) {
        self.with(done, move |inner, database, done| {
            let sql = "SELECT data, sha256 FROM blobs WHERE integrity = ?1";
            let found = key::check(&integrity).and_then(|()| {
                database.read(|db| {
                    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?));
                    let ask = || db.prepare_cached(sql)?.query_row([&integrity], row).optional();
                    ask().map_err(|error| sql_error("read a blob", error))
                })
            });
            done(found.and_then(|found| match found {
                Some((bytes, sha256)) if hash::sha256_hex(&bytes) == sha256 => Ok(Some(bytes)),
                Some(_) => Err(damaged(&integrity, &inner.place())),
                None => Ok(None),
            }));
        });
    }

    fn has(&self, integrity: String, done: Done<bool>) {
        self.with(done, move |_, database, done| {
            done(key::check(&integrity).and_then(|()| database.read(|db| has(db, &integrity))));
        });
    }

    fn delete(&self, integrity: String, done: Done<()>) {
        self.with(done, move |_, database, done| match key::check(&integrity) {
            Ok(()) => database.write(Box::new(Delete { integrity, done })),
            Err(error) => done(Err(error)),
        });
    }

    fn list(&self, done: Done<Vec<String>>) {
        self.with(done, |_, database, done| {
            done(database.read(|db| {
                let all = || {
                    let mut query = db.prepare_cached("SELECT integrity FROM blobs ORDER BY integrity")?;
                    query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
                };
                all().map_err(|error| sql_error("list the blobs", error))
            }));
        });
    }

    fn place(&self) -> String {
        self.0.place()
    }

    fn close(&self, done: Done<()>) {
        let inner = Arc::clone(&self.0);
        // Somebody may be opening it just now, which takes its time.
        pool::spawn(move || {
            let before = std::mem::replace(&mut *inner.state(), State::Closed);
            match before {
                State::Open(database) => database.close(done),
                State::Idle | State::Closed => done(Ok(())),
            }
        });
    }
}
