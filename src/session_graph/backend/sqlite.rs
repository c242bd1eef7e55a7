//! A session in an embedded SQLite database.

mod chain;
mod job;
pub(in crate::session_graph) mod open;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use serde::Deserialize;

use self::chain::{Collect, Reclaim};
use self::job::Job;
use super::config::{Config, GcPolicy};
use super::{Backend, Done, Profile, Reply, fork};
use crate::durable::pool::{self, Pool};
use crate::durable::turns::Turns;
use crate::error::{HfError, Result};
use crate::session_graph::command::{Read, arguments, name_of};
use crate::session_graph::error::bug;
use crate::session_graph::load::problem;
use crate::session_graph::queue::{self, Claim};
use crate::session_graph::side::Signal;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::sqlite::{Database, Migration, sql_error};

/// Marks the files of this module: "HFSG".
pub const APPLICATION_ID: i32 = 0x4846_5347;

/// The versions of the tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: super::SCHEMA_VERSION,
    name: "session",
    sql: include_str!("../../../migrations/sqlite/session_graph/0003_session.sql"),
}];

/// Where claims look for work. Not among the reads: those may take long, and all writes of a handle wait for its look.
static LOOKS: Pool = Pool::new();
/// Looks that are under way. More than there are threads would have to wait.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// A look under way.
struct Look;

impl Look {
    /// `None` where it could not begin at once.
    fn begin() -> Option<Self> {
        if LOOKING.fetch_add(1, Ordering::AcqRel) < pool::THREADS_MAX {
            return Some(Self);
        }
        LOOKING.fetch_sub(1, Ordering::AcqRel);
        None
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A store in a SQLite database.
#[derive(Clone)]
struct SqliteStore {
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    gate: Arc<Mutex<Gate>>,
}

/// A call that writes.
struct Call {
    command: String,
    bytes: Vec<Vec<u8>>,
    done: Done<String>,
}

/// Keeps writes in the order of their calls while a claim looks for work on a reading connection.
#[derive(Default)]
struct Gate {
    looking: bool,
    waiting: VecDeque<Call>,
}

/// What jobs need besides their connection.
struct Shared {
    database: Database,
    profile: Profile,
    gc: GcPolicy,
    /// Commits of this handle that wrote something.
    commits: AtomicU64,
    /// Writes that were handed in and are not through.
    pending: AtomicUsize,
    /// Tells those who watch.
    signal: Arc<Signal>,
    /// Whether the last that was heard of the queue was that work is there.
    expects_work: AtomicBool,
}

/// Opens file and tables. Blocks.
pub(super) fn open(config: &Config) -> Result<Arc<dyn Backend>> {
    let database = open::database(config, APPLICATION_ID, MIGRATIONS)?;
    let shared = Shared {
        signal: Signal::of(database.path()),
        database,
        profile: config.blob_profile,
        gc: config.gc,
        commits: AtomicU64::new(0),
        pending: AtomicUsize::new(0),
        expects_work: AtomicBool::new(false),
    };
    Ok(Arc::new(SqliteStore {
        shared: Arc::new(shared),
        turns: Arc::new(Turns::new(config.max_readers)),
        gate: Arc::default(),
    }))
}

/// Runs a reading on one snapshot.
pub(super) fn reply_of(read: &Read, db: &Connection) -> Result<Reply> {
    let snapshot = db.unchecked_transaction().map_err(|error| sql_error("read", error))?;
    read.run(&mut Sqlite(&snapshot))
}

/// Adds what only the engine knows.
pub(super) fn completed(
    read: &Read,
    mut reply: Reply,
    check: impl FnOnce() -> Result<Vec<String>>,
    figures: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>) -> Result<()>,
) -> Result<Reply> {
    match read {
        Read::Verify(_) => {
            let own = reply.text.trim_matches(['[', ']']).to_owned();
            let found = check()?.into_iter().map(|what| problem("head", "database", &what));
            let all: Vec<String> = found.chain(Some(own).filter(|own| !own.is_empty())).collect();
            reply.text = format!("[{}]", all.join(","));
        }
        Read::Stats => {
            let mut members = serde_json::from_str(&reply.text).map_err(|_| bug("figures are no object"))?;
            figures(&mut members)?;
            reply.text = serde_json::Value::Object(members).to_string();
        }
        _ => {}
    }
    Ok(reply)
}

impl Shared {
    fn read(&self, command: &str) -> Result<Reply> {
        let read = Read::parse(command)?;
        let reply = self.database.read(|db| reply_of(&read, db))?;
        let figures = |members: &mut serde_json::Map<String, serde_json::Value>| {
            let stats = self.database.stats();
            for (name, value) in [
                ("walBytes", stats.wal_bytes),
                ("commits", stats.commits),
                ("jobs", stats.jobs),
                ("largestBatch", stats.largest_batch),
                ("queued", stats.queued),
                ("checkpointsHeld", stats.checkpoints_held),
            ] {
                members.insert(name.to_owned(), value.into());
            }
            let waited = |percent| stats.waits.percentile(percent).map_or(0.0, |waited| waited.as_secs_f64() * 1000.0);
            let waits = serde_json::json!({ "p50": waited(50), "p95": waited(95), "p99": waited(99) });
            members.insert("lockWaitMs".to_owned(), waits);
            let bytes = self.database.path().map_or(0, |path| std::fs::metadata(path).map_or(0, |file| file.len()));
            members.insert("fileBytes".to_owned(), bytes.into());
            Ok(())
        };
        completed(&read, reply, || self.database.check(), figures)
    }

    /// Counts a commit; tells whether a collection is due after it.
    fn is_gc_due(&self) -> bool {
        let commits = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        self.gc.every_commits.is_some_and(|every| every > 0 && commits.is_multiple_of(every))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gc {
    min_blob_age_ms: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vacuum {
    reclaim_space: bool,
}

impl SqliteStore {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing that can panic runs under this lock.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, command: String, bytes: Vec<Vec<u8>>, done: Done<String>) {
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        self.shared.database.write(Box::new(Job::new(&self.shared, command, bytes, done)));
    }

    /// Hands a call in; tells whether it looks for work first, so that those behind it must wait.
    fn start(&self, Call { command, bytes, done }: Call) -> bool {
        let name = name_of(&command).map(std::borrow::Cow::into_owned);
        match name.as_deref() {
            Ok("claim") => return self.claim(command, done),
            Ok("vacuum") => self.vacuum(command, done),
            Ok("gc") => self.gc(&command, done),
            Ok("enqueue") => {
                self.shared.expects_work.store(true, Ordering::Relaxed);
                self.push(command, bytes, done);
            }
            Ok(_) => self.push(command, bytes, done),
            Err(error) => done(Err(HfError::clone(error))),
        }
        false
    }

    /// Looks without the write lock whether there is something to claim: who asks again and again is in nobody's way. Where writes
    /// are on their way the answer would be stale, and where there was work a moment ago there probably still is. It waits for nobody
    /// either: where it cannot begin at once, the writer looks.
    fn claim(&self, command: String, done: Done<String>) -> bool {
        let shared = Arc::clone(&self.shared);
        let done: Done<String> = Box::new(move |answer| {
            shared.expects_work.store(answer.as_ref().is_ok_and(|answer| answer != "null"), Ordering::Relaxed);
            done(answer);
        });
        let looks = self.shared.pending.load(Ordering::Acquire) == 0
            && !self.shared.expects_work.load(Ordering::Relaxed)
            && self.shared.database.path().is_some();
        let parsed = arguments::<Claim>(&command, "claim");
        let (Some(look), Ok(claim)) = (looks.then(Look::begin).flatten(), parsed) else {
            self.push(command, Vec::new(), done);
            return false;
        };
        let store = self.clone();
        LOOKS.spawn(move || {
            let ready = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                store.shared.database.read(|db| {
                    let snapshot = db.unchecked_transaction().map_err(|error| sql_error("look for work", error))?;
                    queue::is_something_ready(&mut Sqlite(&snapshot), &claim)
                })
            }));
            drop(look);
            match ready {
                Ok(Ok(true)) => store.push(command, Vec::new(), done),
                Ok(Ok(false)) => done(Ok("null".to_owned())),
                Ok(Err(error)) => done(Err(error)),
                Err(_) => done(Err(bug("a claim panicked"))),
            }
            store.go_on();
        });
        true
    }

    /// Hands in what was called while a claim looked for work.
    fn go_on(&self) {
        loop {
            let next = {
                let mut gate = self.gate();
                let Some(next) = gate.waiting.pop_front() else {
                    gate.looking = false;
                    return;
                };
                next
            };
            if self.start(next) {
                return;
            }
        }
    }

    fn vacuum(&self, command: String, done: Done<String>) {
        match arguments::<Vacuum>(&command, "vacuum") {
            Ok(Vacuum { reclaim_space: false }) => self.push(command, Vec::new(), done),
            Ok(_) => {
                let shared = Arc::clone(&self.shared);
                let then: Done<String> = Box::new(move |removed| match removed {
                    Ok(removed) => Reclaim::begin(&shared, Box::new(move |end| done(end.map(|()| removed)))),
                    Err(error) => done(Err(error)),
                });
                self.push(command, Vec::new(), then);
            }
            Err(error) => done(Err(error)),
        }
    }

    fn gc(&self, command: &str, done: Done<String>) {
        match arguments::<Gc>(command, "gc") {
            Ok(gc) => {
                let age = gc.min_blob_age_ms.unwrap_or(self.shared.gc.min_blob_age_ms);
                Collect::begin(&self.shared, age, Box::new(|end| done(end.map(|progress| progress.report()))));
            }
            Err(error) => done(Err(error)),
        }
    }
}

impl Backend for SqliteStore {
    fn write(&self, command: String, bytes: Vec<Vec<u8>>, done: Done<String>) {
        let call = Call { command, bytes, done };
        let mut gate = self.gate();
        if gate.looking {
            gate.waiting.push_back(call);
            return;
        }
        gate.looking = true;
        drop(gate);
        if !self.start(call) {
            self.go_on();
        }
    }

    fn read(&self, command: String, done: Done<Reply>) {
        let shared = Arc::clone(&self.shared);
        self.turns.run(Box::new(move || done(shared.read(&command))));
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

    fn fork(&self, to: PathBuf, command: String, done: Done<String>) {
        let shared = Arc::clone(&self.shared);
        pool::spawn(move || {
            let database = &shared.database;
            done(fork::into_file(&to, &command, database.path(), |work| {
                database.read(|db| {
                    let snapshot = db.unchecked_transaction().map_err(|error| sql_error("read", error))?;
                    work(&mut Sqlite(&snapshot))
                })
            }));
        });
    }

    fn signal(&self) -> &Arc<Signal> {
        &self.shared.signal
    }

    fn close(&self, done: Done<()>) {
        self.shared.database.close(Box::new(done));
    }
}
