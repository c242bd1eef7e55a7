//! Sessions in an embedded SQLite database.

mod place;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::config::{Retention, SqliteConfig, Synchronous};
use super::hub::Hub;
use super::{Backend, Done, watch};
use crate::durable::pool;
use crate::durable::turns::Turns;
use crate::error::{Code, HfError, Result};
use crate::lifecycle::command::{Context, Read, Write};
use crate::lifecycle::owners::Owners;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::sql::sqlite::Sqlite;
use crate::lifecycle::tables::{changes, prune};
use crate::sqlite::owner::{self, Owner};
use crate::sqlite::{Database, Migration, Options, Target, WriteJob};

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
/// Changes after which retention is looked at.
const PRUNE_EVERY: i64 = 500;

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
        let Retention(Some(_)) = self.retention else { return };
        if head.saturating_sub(self.pruned_at.load(Ordering::Relaxed)) >= PRUNE_EVERY {
            self.pruned_at.store(head, Ordering::Relaxed);
            self.prune_later();
        }
    }

    /// Removes a batch of old changes with one of the next transactions, and goes on until nothing is left to remove.
    fn prune_later(self: &Arc<Self>) {
        self.database.write_later(Box::new(Retain { shared: Arc::clone(self), removed: 0 }));
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

/// A command on its way.
struct Job {
    shared: Arc<Shared>,
    text: Option<String>,
    command: Option<Result<Write>>,
    answer: Option<Result<String>>,
    wrote: bool,
    /// Changes that earlier batches of a `prune` removed.
    removed: i64,
    done: Option<Done<String>>,
}

impl Job {
    fn new(shared: &Arc<Shared>, text: Option<String>, command: Option<Result<Write>>, done: Done<String>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, text, command, answer: None, wrote: false, removed: 0, done: Some(done) }
    }

    /// A `prune` that was asked for goes on batch after batch: others may write in between. Otherwise returns the answer.
    fn go_on(mut self: Box<Self>, answer: String, done: Done<String>) {
        if !matches!(self.command, Some(Ok(Write::Prune(_)))) {
            return done(Ok(answer));
        }
        let removed = answer.parse().unwrap_or(0);
        self.removed += removed;
        if removed < prune::BATCH {
            return done(Ok(self.removed.to_string()));
        }
        self.done = Some(done);
        let database = self.shared.database.clone();
        database.write(self);
    }
}

impl WriteJob for Job {
    fn prepare(&mut self) {
        if let Some(text) = self.text.take() {
            self.command = Some(Write::parse(&text));
        }
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.answer = None;
        self.wrote = false;
        let command = match &self.command {
            Some(Ok(command)) => command,
            Some(Err(error)) => {
                self.answer = Some(Err(error.clone()));
                return Ok(());
            }
            None => return Err(HfError::new(Code::Panic, "a command was not read; please report it")),
        };
        let before = db.total_changes();
        let context = Context { owners: &*self.shared, harnesses: &self.shared.harnesses };
        let mut sql = Sqlite(db);
        match command.run(&mut sql, &context) {
            Ok(text) => self.answer = Some(Ok(text)),
            // A refusal that changed nothing need not undo what others did in the same transaction.
            Err(error) if db.total_changes() == before && is_refusal(&error) => {
                self.answer = Some(Err(error));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if let Some(now) = command.now() {
            self.shared.now.store(now, Ordering::Relaxed);
        }
        self.wrote = db.total_changes() != before;
        if self.wrote {
            self.shared.head.store(changes::head(&mut sql)?, Ordering::Relaxed);
        }
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        match &outcome {
            Ok(()) if self.wrote => self.shared.committed(),
            // The head that was noted may not have come to be: what comes next is told whatever its number.
            Err(_) => self.shared.told.store(0, Ordering::Relaxed),
            Ok(()) => {}
        }
        let answer = self.answer.take();
        let Some(done) = self.done.take() else { return };
        let answer = outcome.and_then(|()| {
            answer.unwrap_or_else(|| {
                Err(HfError::new(Code::Panic, "a command was committed without an answer; please report it"))
            })
        });
        match answer {
            Ok(answer) => self.go_on(answer, done),
            Err(error) => done(Err(error)),
        }
    }
}

/// An error that the tables' contents caused, not the database.
fn is_refusal(error: &HfError) -> bool {
    let from_sqlite = error.fields().contains_key("sqliteCode");
    let broken = matches!(error.code(), Code::Io | Code::DiskFull | Code::Corrupt | Code::Panic | Code::Poisoned);
    !from_sqlite && !broken
}

/// Retention: one batch.
struct Retain {
    shared: Arc<Shared>,
    removed: i64,
}

impl WriteJob for Retain {
    fn run(&mut self, db: &Connection) -> Result<()> {
        let Retention(Some(limits)) = self.shared.retention else { return Ok(()) };
        let (limits, now) = prune::by_clock(limits, self.shared.now.load(Ordering::Relaxed));
        self.removed = prune::prune(&mut Sqlite(db), limits, now)?;
        Ok(())
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        // After a failure it is tried again when the log has grown.
        if outcome.is_ok() && self.removed >= prune::BATCH {
            self.shared.prune_later();
        }
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
