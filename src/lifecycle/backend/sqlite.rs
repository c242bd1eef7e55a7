//! Sessions in an embedded SQLite database.

mod job;
mod place;
mod retain;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;

use self::job::Job;
use super::config::{Retention, SqliteConfig, Synchronous};
use super::hub::Hub;
use super::{Backend, Done, watch};
use crate::durable::pool;
use crate::durable::turns::Turns;
use crate::error::{Code, HfError, Result};
use crate::lifecycle::command::{Read, Write};
use crate::lifecycle::owners::Owners;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::sql::sqlite::Sqlite;
use crate::sqlite::owner::{self, Owner};
use crate::sqlite::{Database, Migration, Network, Options, Target, refuse_network};

/// Marks the files of this module: "HFLC".
pub const APPLICATION_ID: i32 = 0x4846_4c43;

/// The versions of the tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "sessions",
    sql: include_str!("../../../migrations/sqlite/lifecycle/0001_sessions.sql"),
}];

/// Statements that a connection keeps prepared: all of this module.
const STATEMENTS: usize = 256;

/// A store in a SQLite database.
struct SqliteStore {
    shared: Arc<Shared>,
    readers: Arc<Turns>,
}

/// What jobs need besides their connection.
struct Shared {
    database: Database,
    owner: Owner,
    hub: Arc<Hub>,
    harnesses: Vec<String>,
    retention: Retention,
    /// The head after the last job that wrote, perhaps not committed yet. For the writer's thread.
    head: AtomicI64,
    /// The head that was last told.
    told: Arc<AtomicI64>,
    /// The head when retention was last looked at.
    pruned_at: AtomicI64,
    /// The time of the last command, by its caller's clock; `i64::MAX` before the first.
    now: AtomicI64,
}

/// Opens file and tables. Blocks.
pub(super) fn open(config: &SqliteConfig) -> Result<Arc<dyn Backend>> {
    let target = match &config.path {
        Some(path) => {
            if config.network_file_system == Network::Refuse {
                refuse_network(path)?;
            }
            place::make(path)?;
            Target::File(path.clone())
        }
        None => Target::Memory,
    };
    let options = Options {
        synchronous: match config.synchronous {
            Synchronous::Full => crate::sqlite::Synchronous::Full,
            Synchronous::Normal => crate::sqlite::Synchronous::Normal,
        },
        busy_timeout: Duration::from_millis(config.busy_timeout_ms),
        network: config.network_file_system,
        shrinks: true,
        setup: |db| {
            db.set_prepared_statement_cache_capacity(STATEMENTS);
            // Otherwise a statement that a partial index might serve is compiled again for each value.
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
        },
        ..Options::new(APPLICATION_ID, MIGRATIONS)
    };
    let database = Database::open(&target, options)?;
    let path = database.path().map(PathBuf::from);
    let owner = Owner::new(path.as_deref())?;
    if let Some(path) = &path {
        owner::sweep(path, &owner);
    }
    let told = Arc::new(AtomicI64::new(0));
    let known = Arc::clone(&told);
    let hub = Hub::new(Box::new(move |hub| watch::begin(path.as_deref()?, hub, &known)));
    let shared = Shared {
        database,
        owner,
        hub,
        harnesses: config.harnesses.clone(),
        retention: config.retention,
        head: AtomicI64::new(0),
        told,
        pruned_at: AtomicI64::new(i64::MIN),
        now: AtomicI64::new(i64::MAX),
    };
    let readers = Turns::new(config.max_readers);
    Ok(Arc::new(SqliteStore { shared: Arc::new(shared), readers: Arc::new(readers) }))
}

impl Shared {
    /// Runs after the commit of a job that wrote: tells that the log has grown, once per batch.
    fn committed(self: &Arc<Self>) {
        let head = self.head.load(Ordering::Relaxed);
        if head > self.told.swap(head, Ordering::Relaxed) {
            self.hub.tell();
        }
        self.retain(head);
    }
}

impl Owners for Shared {
    fn me(&self) -> &str {
        self.owner.name()
    }

    fn is_dead(&self, _sql: &mut dyn Sql, name: &str) -> Result<bool> {
        if name == self.owner.name() {
            return Ok(false);
        }
        self.database.path().map_or(Ok(true), |path| owner::is_dead(path, name))
    }
}

impl Backend for SqliteStore {
    fn write(&self, command: String, done: Done<String>) {
        self.shared.database.write(Box::new(Job::new(&self.shared, Some(command), None, done)));
    }

    fn read(&self, command: String, done: Done<String>) {
        let shared = Arc::clone(&self.shared);
        self.readers.run(Box::new(move || read(&shared, &command, done)));
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    fn path(&self) -> Option<PathBuf> {
        self.shared.database.path().map(PathBuf::from)
    }

    fn backup(&self, to: PathBuf, done: Done<String>) {
        let shared = Arc::clone(&self.shared);
        pool::spawn(move || {
            done(shared.database.backup(&to).map(|made| {
                let (path, bytes, elapsed) =
                    (made.path.to_string_lossy().into_owned(), made.bytes, made.elapsed.as_millis());
                serde_json::json!({ "path": path, "bytes": bytes, "milliseconds": elapsed as u64 }).to_string()
            }));
        });
    }

    fn close(&self, done: Done<()>) {
        let shared = Arc::clone(&self.shared);
        self.shared.database.close(Box::new(move |outcome| {
            shared.owner.end();
            done(outcome);
        }));
    }
}

fn read(shared: &Arc<Shared>, command: &str, done: Done<String>) {
    let parsed = match Read::parse(command) {
        Ok(parsed) => parsed,
        Err(error) => return done(Err(error)),
    };
    let answer = shared.database.read(|db| {
        // One snapshot for all statements of the command; it is given up at the end.
        let snapshot = db.unchecked_transaction().map_err(|error| crate::sqlite::sql_error("read", error))?;
        parsed.run(&mut Sqlite(&snapshot))
    });
    match (answer, parsed) {
        (Ok(Some(text)), Read::Stats(_)) => done(with_engine_figures(&text, &shared.database)),
        (Ok(Some(text)), Read::Check(_)) => done(with_engine_findings(&text, &shared.database)),
        (Ok(Some(text)), _) => done(Ok(text)),
        (Ok(None), Read::Consume(consume)) => {
            let command = Some(Ok(Write::Register(consume)));
            shared.database.write(Box::new(Job::new(shared, None, command, done)));
        }
        (Ok(None), _) => done(Err(HfError::new(Code::Panic, "a reading gave no answer; please report it"))),
        (Err(error), _) => done(Err(error)),
    }
}

/// Adds what the engine counts to the figures of the tables.
fn with_engine_figures(text: &str, database: &Database) -> Result<String> {
    let mut figures: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| HfError::new(Code::Panic, "figures are no object; please report it"))?;
    let stats = database.stats();
    for (name, value) in [
        ("walBytes", stats.wal_bytes),
        ("commits", stats.commits),
        ("jobs", stats.jobs),
        ("largestBatch", stats.largest_batch),
        ("queued", stats.queued),
        ("checkpointsHeld", stats.checkpoints_held),
    ] {
        figures.insert(name.to_owned(), value.into());
    }
    Ok(serde_json::Value::Object(figures).to_string())
}

fn with_engine_findings(text: &str, database: &Database) -> Result<String> {
    let mut findings = database.check()?;
    let more: Vec<String> =
        serde_json::from_str(text).map_err(|_| HfError::new(Code::Panic, "findings are no list; please report it"))?;
    findings.extend(more);
    Ok(serde_json::Value::from(findings).to_string())
}
