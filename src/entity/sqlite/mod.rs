//! The transition log in an embedded SQLite database.

mod append;
mod journal;
mod prune;
mod query;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use self::append::AppendChange;

use super::clock::Clock;
use super::log::{Here, Log, Question};
use super::model::{
    Appended, Done, Durability, HistoryQuery, HistoryRow, Kind, Orphans, Outcome, PlainRow, Retention, Staged, Stats,
};
use crate::durable::pool;
use crate::error::{Code, HfError, Result};
use crate::sqlite::owner::{self, Owner};
use crate::sqlite::{Database, Migration, Options, Target, WriteJob};

/// Marks the files of this module: "HFEN".
pub const APPLICATION_ID: i32 = 0x4846_454e;

/// The versions of the tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "transition_log",
    sql: include_str!("../../../migrations/sqlite/entity/0001_transition_log.sql"),
}];

/// A log in a SQLite file, opened on first use.
pub struct SqliteLog {
    target: Target,
    options: Options,
    durability: Durability,
    state: Mutex<State>,
}

enum State {
    Idle,
    Opening(Vec<Done<()>>),
    Open(Arc<Opened>),
    Closing(Vec<Done<()>>),
    Closed,
}

/// What is there while the log is open.
pub struct Opened {
    database: Database,
    shared: Arc<Shared>,
}

/// What jobs need besides their connection.
pub struct Shared {
    durability: Durability,
    path: Option<PathBuf>,
    owner: Owner,
    clock: Clock,
    /// When the last change began, in microseconds.
    begun: AtomicI64,
    /// Ends of intents that are queued.
    forgetting: AtomicUsize,
    counters: Counters,
}

impl Shared {
    /// The time at which a change begins: `now`, or the least one after the last. For the writer's thread.
    fn begun(&self, now: i64) -> i64 {
        let time = now.max(self.begun.load(Ordering::Relaxed).saturating_add(1));
        self.begun.store(time, Ordering::Relaxed);
        time
    }
}

#[derive(Default)]
struct Counters {
    rows: AtomicU64,
    changes: AtomicU64,
    gaps: AtomicU64,
    pruned: AtomicU64,
}

impl SqliteLog {
    /// Describes a log; nothing is opened yet.
    #[must_use]
    pub fn new(target: Target, options: Options, durability: Durability) -> Arc<Self> {
        Arc::new(Self { target, options, durability, state: Mutex::new(State::Idle) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Result<Arc<Opened>> {
        match &*self.state() {
            State::Open(opened) => Ok(Arc::clone(opened)),
            State::Closing(_) | State::Closed => Err(closed()),
            State::Idle | State::Opening(_) => {
                Err(HfError::new(Code::Busy, "the entity store is not open yet; await ready() first"))
            }
        }
    }

    /// Opens file and tables. Blocks.
    fn open_now(&self) -> Result<Arc<Opened>> {
        let database = Database::open(&self.target, self.options.clone())?;
        let path = database.path().map(PathBuf::from);
        let owner = Owner::new(path.as_deref())?;
        if let Some(path) = &path {
            owner::sweep(path, &owner);
        }
        let shared = Shared {
            durability: self.durability,
            path,
            owner,
            clock: Clock::default(),
            begun: AtomicI64::new(i64::MIN),
            forgetting: AtomicUsize::new(0),
            counters: Counters::default(),
        };
        Ok(Arc::new(Opened { database, shared: Arc::new(shared) }))
    }

    fn write<T: Send + 'static>(
        &self,
        takes_along: fn(&Shared) -> bool,
        run: impl FnMut(&Shared, &Connection) -> Result<T> + Send + 'static,
        done: Done<T>,
    ) {
        match self.opened() {
            Ok(opened) => {
                let shared = Arc::clone(&opened.shared);
                opened.database.write(Box::new(Job { shared, takes_along, run, result: None, done: Some(done) }));
            }
            Err(error) => done(Err(error)),
        }
    }

    fn write_later(&self, run: impl FnMut(&Shared, &Connection) -> Result<()> + Send + 'static, done: fn(&Shared)) {
        // Nobody waits: a closed log is as good as a crash before this point, from which the log recovers.
        if let Ok(opened) = self.opened() {
            let shared = Arc::clone(&opened.shared);
            let last = Arc::clone(&shared);
            let done: Option<Done<()>> = Some(Box::new(move |_| done(&last)));
            opened.database.write_later(Box::new(Job { shared, takes_along: |_| true, run, result: None, done }));
        }
    }

    fn read<T: Send + 'static>(&self, run: impl FnOnce(&Connection) -> Result<T> + Send + 'static, done: Done<T>) {
        match self.opened() {
            Ok(opened) => pool::spawn(move || done(opened.database.read(run))),
            Err(error) => done(Err(error)),
        }
    }
}

fn closed() -> HfError {
    HfError::new(Code::Closed, "entity store is closed")
}

/// A write that is one closure.
struct Job<T, F> {
    shared: Arc<Shared>,
    takes_along: fn(&Shared) -> bool,
    run: F,
    result: Option<T>,
    done: Option<Done<T>>,
}

impl<T: Send, F: FnMut(&Shared, &Connection) -> Result<T> + Send> WriteJob for Job<T, F> {
    fn takes_along(&self) -> bool {
        (self.takes_along)(&self.shared)
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.result = Some((self.run)(&self.shared, db)?);
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        let (Some(done), result) = (self.done.take(), self.result.take()) else { return };
        done(outcome.and_then(|()| {
            result.ok_or_else(|| HfError::new(Code::Panic, "a write was committed without a result; please report it"))
        }));
    }
}

impl Log for Arc<SqliteLog> {
    fn open(&self, done: Done<()>) {
        let mut state = self.state();
        match &mut *state {
            State::Open(_) => {
                drop(state);
                done(Ok(()));
            }
            State::Opening(waiting) => waiting.push(done),
            State::Closing(_) | State::Closed => {
                drop(state);
                done(Err(closed()));
            }
            State::Idle => {
                *state = State::Opening(vec![done]);
                drop(state);
                let log = Self::clone(self);
                pool::spawn(move || {
                    let opened = log.open_now();
                    let outcome = opened.as_ref().map(|_| ()).map_err(Clone::clone);
                    let next = opened.map_or(State::Idle, State::Open);
                    let before = std::mem::replace(&mut *log.state(), next);
                    if let State::Opening(waiting) = before {
                        waiting.into_iter().for_each(|done| done(outcome.clone()));
                    }
                });
            }
        }
    }

    fn accepts(&self, _kind: &str, _entity_id: &str) -> Result<()> {
        self.opened()?.database.usable()
    }

    fn begin(&self, staged: Arc<Staged>, done: Done<()>) {
        // Stamps go with the append, which touches the same pages. But a change that came to nothing must not stand beside this one:
        // after a crash both would be completed from one write.
        let along = |shared: &Shared| shared.forgetting.load(Ordering::Relaxed) > 0;
        self.write(along, move |shared, db| journal::begin(shared, db, &staged), done);
    }

    fn append(&self, staged: Arc<Staged>, outcome: Outcome, done: Done<Option<Appended>>) {
        match self.opened() {
            Ok(opened) => {
                let shared = Arc::clone(&opened.shared);
                let done = Some(done);
                let job = AppendChange { shared, staged, outcome, derived: None, result: None, rows: 0, done };
                opened.database.write(Box::new(job));
            }
            Err(error) => done(Err(error)),
        }
    }

    fn forget(&self, staged: Arc<Staged>) {
        if let Ok(opened) = self.opened() {
            opened.shared.forgetting.fetch_add(1, Ordering::Relaxed);
        }
        let ended = |shared: &Shared| _ = shared.forgetting.fetch_sub(1, Ordering::Relaxed);
        self.write_later(move |_, db| append::forget(db, &staged.change_id).map(drop), ended);
    }

    fn delivered(&self, change_ids: Vec<String>) {
        self.write_later(move |_, db| journal::delivered(db, &change_ids), |_| {});
    }

    fn append_rows(&self, rows: Vec<PlainRow>, now_ms: f64, done: Done<()>) {
        let (count, shared) = (rows.len() as u64, self.opened().map(|opened| Arc::clone(&opened.shared)));
        let counted: Done<()> = Box::new(move |outcome| {
            if let (Ok(()), Ok(shared)) = (&outcome, shared) {
                shared.counters.rows.fetch_add(count, Ordering::Relaxed);
            }
            done(outcome);
        });
        self.write(|_| true, move |shared, db| append::append_plain(shared, db, &rows, now_ms), counted);
    }

    fn claim(&self, kind: Arc<Kind>, done: Done<Orphans>) {
        match self.opened() {
            Ok(opened) => {
                let shared = Arc::clone(&opened.shared);
                let claim = journal::Claim { shared, kind, orphans: Orphans::default(), done: Some(done) };
                opened.database.write(Box::new(claim));
            }
            Err(error) => done(Err(error)),
        }
    }

    fn in_state_since(&self, question: Question, value: String, done: Done<Option<i64>>) {
        self.read(move |db| query::in_state_since(db, &question, &value), done);
    }

    fn transition_count(&self, question: Question, since_us: i64, done: Done<i64>) {
        self.read(move |db| query::transition_count(db, &question, since_us), done);
    }

    fn history(&self, query: HistoryQuery, done: Done<Vec<HistoryRow>>) {
        self.read(move |db| query::history(db, &query), done);
    }

    fn prune(&self, retention: Retention, now_ms: f64, done: Done<u64>) {
        match self.opened() {
            Ok(opened) => prune::start(opened, retention, now_ms, done),
            Err(error) => done(Err(error)),
        }
    }

    fn stats(&self, done: Done<Stats>) {
        let opened = match self.opened() {
            Ok(opened) => opened,
            Err(error) => return done(Err(error)),
        };
        pool::spawn(move || {
            let counters = &opened.shared.counters;
            done(opened.database.read(query::waiting).map(|waiting| Stats {
                rows: counters.rows.load(Ordering::Relaxed),
                changes: counters.changes.load(Ordering::Relaxed),
                batches: opened.database.stats().batches,
                gaps: counters.gaps.load(Ordering::Relaxed),
                pruned: counters.pruned.load(Ordering::Relaxed),
                ..waiting
            }));
        });
    }

    fn close(&self, done: Done<()>) {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Idle | State::Closed => {
                drop(state);
                done(Ok(()));
            }
            State::Opening(mut waiting) => {
                // It will be closed right after it was opened.
                let log = Self::clone(self);
                waiting.push(Box::new(move |_| log.close(done)));
                *state = State::Opening(waiting);
            }
            State::Closing(mut waiting) => {
                waiting.push(done);
                *state = State::Closing(waiting);
            }
            State::Open(opened) => {
                *state = State::Closing(vec![done]);
                drop(state);
                let log = Self::clone(self);
                let database = opened.database.clone();
                database.close(Box::new(move |outcome| {
                    // After the last write: from here on others may take over what is left. Jobs that are being dropped may
                    // still hold on to the owner.
                    opened.shared.owner.end();
                    let before = std::mem::replace(&mut *log.state(), State::Closed);
                    if let State::Closing(waiting) = before {
                        waiting.into_iter().for_each(|done| done(outcome.clone()));
                    }
                }));
            }
        }
    }

    fn here(&self) -> Option<&dyn Here> {
        Some(&**self)
    }
}

impl Here for SqliteLog {
    fn in_state_since(&self, question: &Question, value: &str) -> Result<Option<i64>> {
        self.opened()?.database.read(|db| query::in_state_since(db, question, value))
    }

    fn transition_count(&self, question: &Question, since_us: i64) -> Result<i64> {
        self.opened()?.database.read(|db| query::transition_count(db, question, since_us))
    }
}
