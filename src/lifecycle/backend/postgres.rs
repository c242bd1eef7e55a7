//! Sessions in a schema of a PostgreSQL database.
//!
//! A command is one transaction, run on a thread that waits for the server. Transactions that lost against another one, or whose
//! connection broke before the commit, are run again; one whose commit was not answered is not.

mod owners;
mod transaction;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::owners::Peers;
use self::transaction::Ended;
use super::config::{PostgresConfig, Retention};
use super::hub::{Foreign, Hub};
use super::{Backend, Done, closed};
use crate::durable::pool::Pool;
use crate::error::{Code, HfError, Result};
use crate::lifecycle::command::{Context, Read, Write};
use crate::lifecycle::tables::prune;
use crate::network;
use crate::postgres::types::Type;
use crate::postgres::{Listener, Migrate, Migration, Notice, Postgres, quote_ident};

/// The versions of the tables.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "sessions",
    sql: include_str!("../../../migrations/postgres/lifecycle/0001_sessions.sql"),
}];

/// Threads that wait for servers.
static WAITERS: Pool = Pool::new();
/// How long closing waits for commands that are under way.
const CLOSE: Duration = Duration::from_secs(5);
/// How long a server may take to hear of the end, at each step.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Transactions with changes after which retention is looked at.
const PRUNE_EVERY: i64 = 500;

struct PgStore(Arc<Inner>);

struct Inner {
    /// Turns to write: one connection is left for those who read.
    writers: Semaphore,
    postgres: Postgres,
    runtime: Handle,
    /// Begins a transaction in our schema, in one round trip.
    begin: String,
    /// The same for one snapshot.
    begin_reading: String,
    hub: Arc<Hub>,
    peers: Peers,
    harnesses: Vec<String>,
    retention: Retention,
    unpruned: AtomicI64,
    /// The time of the last command, by its caller's clock; `i64::MAX` before the first.
    now: AtomicI64,
    /// Commands under way; `None` once the store is closed.
    running: Mutex<Option<usize>>,
    quiet: Condvar,
}

struct Listening(Option<Listener>);

impl Foreign for Listening {
    fn leave(&mut self) {
        drop(self.0.take());
    }

    fn end(self: Box<Self>) {}
}

/// Connects and creates or updates the tables. Blocks.
pub(super) fn open(config: &PostgresConfig) -> Result<Arc<dyn Backend>> {
    let runtime = network::handle()?;
    let connection = &config.connection;
    let postgres = Postgres::new(connection.clone())?;
    let opened = runtime.block_on(async {
        postgres.migrate(&config.schema, true, "lifecycle", MIGRATIONS, Migrate::Auto).await?;
        let client = postgres.client().await?;
        // As the triggers make it.
        let sql = "SELECT 'holdfast_lifecycle_' || left(md5($1), 16)";
        let rows = client.fetch("opening the session store", sql, &[(&config.schema, Type::TEXT)]).await?;
        let channel: String = rows.first().map_or_else(String::new, |row| row.get(0));
        let peers = Peers::new(connection)?;
        peers.appear(&postgres).await?;
        Ok((channel, peers))
    });
    let (channel, peers) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            postgres.close(Box::new(|_| {}));
            return Err(error);
        }
    };
    let listening = postgres.clone();
    let hub = Hub::new(Box::new(move |hub: Weak<Hub>| {
        let listener = listening.listen(&channel, move |notice| {
            if let (Notice::Message(_) | Notice::Reconnected, Some(hub)) = (notice, hub.upgrade()) {
                hub.tell();
            }
        });
        Some(Box::new(Listening(Some(listener))) as Box<dyn Foreign>)
    }));
    let path = quote_ident(&config.schema);
    Ok(Arc::new(PgStore(Arc::new(Inner {
        postgres,
        runtime,
        // 0 would be for ever.
        begin: format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}; SET LOCAL search_path TO {path}",
            config.busy_timeout_ms.max(1)
        ),
        writers: Semaphore::new(config.connection.pool_size.saturating_sub(1).max(1)),
        begin_reading: format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path TO {path}"),
        hub,
        peers,
        harnesses: config.harnesses.clone(),
        retention: config.retention,
        unpruned: AtomicI64::new(PRUNE_EVERY),
        now: AtomicI64::new(i64::MAX),
        running: Mutex::new(Some(0)),
        quiet: Condvar::new(),
    }))))
}

impl Inner {
    fn write(&self, command: &str) -> Result<String> {
        let command = Write::parse(command)?;
        if let Some(now) = command.now() {
            self.now.store(now, Ordering::Relaxed);
        }
        if !matches!(command, Write::Prune(_)) {
            return self.write_parsed(&command);
        }
        // Batch after batch: others may write in between.
        let mut total = 0;
        loop {
            let removed: i64 = self.write_parsed(&command)?.parse().unwrap_or(0);
            total += removed;
            if removed < prune::BATCH {
                return Ok(total.to_string());
            }
        }
    }

    fn write_parsed(&self, command: &Write) -> Result<String> {
        let mut look_again = true;
        loop {
            let owners = self.peers.looking();
            let context = Context { owners: &owners, harnesses: &self.harnesses };
            let mut unsure = false;
            let ended = self.transaction(&self.begin, |pg| {
                let answer = command.run(pg, &context);
                unsure = look_again && owners.is_unsure();
                // Nothing is kept of what was decided without knowing who is alive.
                if unsure { Err(HfError::new(Code::LifecycleSessionBusy, "")) } else { answer }
            });
            if unsure {
                look_again = false;
                std::thread::sleep(owners.patience());
                continue;
            }
            let ended = ended?;
            if ended.changed > 0 {
                self.hub.tell();
                self.unpruned.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(ended.value);
        }
    }

    fn read(&self, command: &str) -> Result<String> {
        let command = Read::parse(command)?;
        match (self.transaction(&self.begin_reading, |pg| command.run(pg))?.value, command) {
            (Some(text), _) => Ok(text),
            (None, Read::Consume(consume)) => self.write_parsed(&Write::Register(consume)),
            (None, _) => Err(HfError::new(Code::Panic, "a reading gave no answer; please report it")),
        }
    }

    /// Removes old changes, after every so many transactions.
    fn retain(&self) {
        let Retention(Some(limits)) = self.retention else { return };
        if self.unpruned.load(Ordering::Relaxed) < PRUNE_EVERY {
            return;
        }
        self.unpruned.store(0, Ordering::Relaxed);
        let (limits, now) = prune::by_clock(limits, self.now.load(Ordering::Relaxed));
        // What fails is tried again later; the log is only longer until then.
        while let Ok(Ended { value: prune::BATCH.., .. }) =
            self.transaction(&self.begin, |pg| prune::prune(pg, limits, now))
        {}
    }

    /// Notes that a command begins, unless the store is closed.
    fn enter(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.as_mut() {
            Some(count) => {
                *count += 1;
                true
            }
            None => false,
        }
    }

    fn leave(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.as_mut() {
            *count -= 1;
        }
        self.quiet.notify_all();
    }

    /// Waits until nothing is under way, and lets nothing begin any more. Returns whether all of it ended in time.
    fn shut(&self) -> bool {
        let end = Instant::now() + CLOSE;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.is_some_and(|count| count > 0) && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            running = self.quiet.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        running.take() == Some(0)
    }
}

/// A command under way.
struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl PgStore {
    fn run(&self, done: Done<String>, writes: bool, work: impl FnOnce(&Inner) -> Result<String> + Send + 'static) {
        let inner = Arc::clone(&self.0);
        if !inner.enter() {
            return done(Err(closed()));
        }
        let running = Running(inner);
        WAITERS.spawn(move || {
            let outcome = work(&running.0);
            let retains = writes && outcome.is_ok();
            done(outcome);
            if retains {
                running.0.retain();
            }
        });
    }
}

impl Backend for PgStore {
    fn write(&self, command: String, done: Done<String>) {
        self.run(done, true, move |inner| inner.write(&command));
    }

    fn read(&self, command: String, done: Done<String>) {
        self.run(done, false, move |inner| inner.read(&command));
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }

    fn backup(&self, _to: PathBuf, done: Done<String>) {
        let message =
            "a store in PostgreSQL is not copied to a file; use the server's own backup (pg_dump, pg_basebackup)";
        done(Err(HfError::new(Code::InvalidArgument, message)));
    }

    fn close(&self, done: Done<()>) {
        // A server that kept silent for all that time is not waited for again.
        let patience = if self.0.shut() { LAST_WORD } else { Duration::ZERO };
        self.0.peers.stop();
        let inner = Arc::clone(&self.0);
        self.0.postgres.close_within(
            patience,
            // What was cut off has heard of it by an error of its own, and a lock that was not given back ends with its connection.
            Box::new(move |_| inner.peers.leave(patience, Box::new(move |_| done(Ok(()))))),
        );
    }
}
