//! Sessions in a schema of a PostgreSQL database: one store per key, any number of them in one schema.
//!
//! A command is one transaction that holds the lock of its store, run on a thread that waits for the server. Those of one handle run one
//! after the other, in the order of the calls. One that lost its connection before the commit is run again; one whose commit was not
//! answered is not.

mod place;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use self::place::Place;
use super::config::{Config, GcPolicy, PostgresConfig};
use super::{Backend, Done, Profile, Reply, fork};
use crate::durable::pool::Pool;
use crate::error::{Code, HfError, Result};
use crate::postgres::is_transient;
use crate::session_graph::command::{Read, Write, arguments, name_of};
use crate::session_graph::side::Signal;
use crate::session_graph::sql::postgres::Pg;
use crate::session_graph::tables::gc::{self, Progress};

/// Threads that wait for servers.
static WAITERS: Pool = Pool::new();
/// How long a command is tried again.
const RETRY: Duration = Duration::from_secs(5);

struct PgStore(Arc<Inner>);

struct Inner {
    place: Arc<Place>,
    /// Begins a transaction of this store that holds its lock, in one round trip.
    begin: String,
    /// The same for one snapshot, without a lock.
    begin_reading: String,
    profile: Profile,
    gc: GcPolicy,
    line: Mutex<Line>,
    quiet: Condvar,
    /// Tells those who watch of this handle's writes.
    signal: Arc<Signal>,
}

type Job = Box<dyn FnOnce(&Inner) + Send>;

/// Writes in the order of their calls, and what is under way.
#[derive(Default)]
struct Line {
    writes: VecDeque<Job>,
    writing: bool,
    reading: usize,
    closed: bool,
    /// Commits of this handle that wrote something.
    commits: u64,
    left: bool,
}

/// Connects, creates or updates the tables, and makes the store if it is new. Blocks.
pub(super) fn open(config: &Config, postgres: &PostgresConfig) -> Result<Arc<dyn Backend>> {
    let place = Place::at(postgres)?;
    let number = match place.store(&postgres.key, config.migrates) {
        Ok(number) => number,
        Err(error) => {
            place.leave(Box::new(|_| {}));
            return Err(error);
        }
    };
    let settings = place.settings(number, config.busy_timeout_ms);
    Ok(Arc::new(PgStore(Arc::new(Inner {
        begin: format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {settings}; \
             SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' session graph', {number}))"
        ),
        begin_reading: format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {settings}"),
        place,
        profile: config.blob_profile,
        gc: config.gc,
        line: Mutex::default(),
        quiet: Condvar::new(),
        signal: Signal::of(None),
    }))))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gc {
    min_blob_age_ms: Option<i64>,
}

impl Inner {
    fn line(&self) -> MutexGuard<'_, Line> {
        // Nothing that can panic runs under this lock.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in a transaction, again where that can help and harms nobody.
    fn transaction<T>(&self, begin: &str, mut work: impl FnMut(&mut Pg<'_>) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(5);
        loop {
            let error = match self.attempt(begin, &mut work) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.fields().get("sqlState").is_some_and(|state| state == "55P03") {
                return Err(locked(&error));
            }
            let unknown = error.fields().get("outcomeUnknown").is_some_and(|unknown| unknown == true);
            if unknown || !is_transient(&error) || start.elapsed() > RETRY {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    fn attempt<T>(&self, begin: &str, work: &mut impl FnMut(&mut Pg<'_>) -> Result<T>) -> Result<T> {
        let runtime = &self.place.runtime;
        let transaction = runtime.block_on(self.place.postgres.begin_with(begin))?;
        match work(&mut Pg::new(runtime.clone(), &transaction)) {
            Ok(value) => runtime.block_on(transaction.commit()).map(|()| value),
            Err(error) => {
                // What failed is what the caller must know; a rollback that fails too means that the connection is gone.
                let _ = runtime.block_on(transaction.rollback());
                Err(error)
            }
        }
    }

    fn write(&self, command: &str, bytes: Vec<Vec<u8>>) -> Result<String> {
        if name_of(command)? == "gc" {
            let gc: Gc = arguments(command, "gc")?;
            return Ok(self.collect(gc.min_blob_age_ms.unwrap_or(self.gc.min_blob_age_ms))?.report());
        }
        let command = Write::prepare(command, bytes, self.profile)?;
        let answer = self.transaction(&self.begin, |pg| command.run(pg))?;
        self.signal.tell();
        if answer.is_commit {
            let commits = {
                let mut line = self.line();
                line.commits += 1;
                line.commits
            };
            if self.gc.every_commits.is_some_and(|every| every > 0 && commits.is_multiple_of(every)) {
                // What the collection says does not matter: the commit is done.
                let _ = self.collect(self.gc.min_blob_age_ms);
            }
        }
        Ok(answer.text)
    }

    /// Slice after slice: others may write in between.
    fn collect(&self, age_ms: i64) -> Result<Progress> {
        let mut progress = Progress::default();
        while !progress.is_over() {
            progress = self.transaction(&self.begin, |pg| gc::slice(pg, age_ms, progress.clone()))?;
        }
        Ok(progress)
    }

    fn read(&self, command: &str) -> Result<Reply> {
        let command = Read::parse(command)?;
        self.transaction(&self.begin_reading, |pg| command.run(pg))
    }

    /// Runs what waits, until nothing does.
    fn work(&self) {
        loop {
            let job = {
                let mut line = self.line();
                let Some(job) = line.writes.pop_front() else {
                    line.writing = false;
                    self.quiet.notify_all();
                    return;
                };
                job
            };
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(self)));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody closed it: the environment ended.
        if !self.line().left {
            self.place.leave(Box::new(|_| {}));
        }
    }
}

/// The error of a lock that somebody kept for too long.
fn locked(error: &HfError) -> HfError {
    let text = "the session is busy: somebody kept its lock for longer than busyTimeoutMs (another process that stands still, or a \
                transaction that was left open); nothing was changed. Try again, or end that transaction";
    error
        .fields()
        .iter()
        .fold(HfError::new(Code::Busy, text), |made, (name, value)| made.with_field(name, value.clone()))
}

fn closed() -> HfError {
    HfError::new(Code::Closed, "the session store is closed; open it again")
}

impl PgStore {
    /// Runs what only reads; closing waits for it.
    fn look<T: 'static>(&self, done: Done<T>, look: impl FnOnce(&Inner) -> Result<T> + Send + 'static) {
        let mut line = self.0.line();
        if line.closed {
            drop(line);
            return done(Err(closed()));
        }
        line.reading += 1;
        drop(line);
        let inner = Arc::clone(&self.0);
        WAITERS.spawn(move || {
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&inner)));
            inner.line().reading -= 1;
            inner.quiet.notify_all();
            done(answer.unwrap_or_else(|_| Err(HfError::new(Code::Panic, "a reading panicked; please report it"))));
        });
    }
}

impl Backend for PgStore {
    fn write(&self, command: String, bytes: Vec<Vec<u8>>, done: Done<String>) {
        let mut line = self.0.line();
        if line.closed {
            drop(line);
            return done(Err(closed()));
        }
        line.writes.push_back(Box::new(move |inner| done(inner.write(&command, bytes))));
        if !std::mem::replace(&mut line.writing, true) {
            drop(line);
            let inner = Arc::clone(&self.0);
            WAITERS.spawn(move || inner.work());
        }
    }

    fn read(&self, command: String, done: Done<Reply>) {
        self.look(done, move |inner| inner.read(&command));
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }

    fn backup(&self, _to: PathBuf, done: Done<String>) {
        let message =
            "a store in PostgreSQL is not copied to a file; use the server's own backup (pg_dump, pg_basebackup)";
        done(Err(HfError::new(Code::InvalidArgument, message)));
    }

    fn fork(&self, to: PathBuf, command: String, done: Done<String>) {
        self.look(done, move |inner| {
            fork::into_file(&to, &command, None, |work| inner.transaction(&inner.begin_reading, |pg| work(pg)))
        });
    }

    fn signal(&self) -> &Arc<Signal> {
        &self.0.signal
    }

    fn close(&self, done: Done<()>) {
        self.0.line().closed = true;
        let inner = Arc::clone(&self.0);
        WAITERS.spawn(move || {
            let mut line = inner.line();
            while line.writing || line.reading > 0 {
                line = inner.quiet.wait(line).unwrap_or_else(PoisonError::into_inner);
            }
            let left = std::mem::replace(&mut line.left, true);
            drop(line);
            if left { done(Ok(())) } else { inner.place.leave(done) }
        });
    }
}
