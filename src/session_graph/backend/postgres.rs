//! Sessions in a schema of a PostgreSQL database: one store per key, any number of them in one schema.
//!
//! Commands of one handle take effect in the order of their calls, on a thread that waits for the server. Those of a kind that wait
//! together go out in one transaction, each undone alone if it fails: see `transact`. There are two kinds:
//!
//! - What changes the session itself (commits, blobs, usage, nodes …) holds the row of the store in `store_info` from its first statement to
//!   the commit. Numbers of nodes and of usage entries follow on each other, links are adopted, a collection compares blobs with the
//!   head: all of that needs one writer per session. It is a row lock, not an advisory one, since nearly all of them change that row
//!   anyway, and the compare-and-set of the head is made under it: who waited sees the other's head, and gets the conflict.
//! - What changes the queue or the attachments holds the rows that it changes, and never waits for a commit: see `queue::postgres`.
//!
//! Sessions share nothing that is held: their rows are their own, and a number of a sequence is taken without waiting.

mod line;
mod place;
mod transact;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::line::{Entry, Line};
use self::place::Place;
use super::config::{Config, GcPolicy, PostgresConfig};
use super::{Backend, Done, Profile, Reply, fork};
use crate::durable::pool::Pool;
use crate::error::{Code, HfError, Result};
use crate::session_graph::side::Signal;

/// Threads that wait for servers.
static WAITERS: Pool = Pool::new();
/// How long closing waits for what is under way, and then for those who wait for a server to notice.
const CLOSE: Duration = Duration::from_secs(5);
const LAST_WORD: Duration = Duration::from_secs(1);

struct PgStore(Arc<Inner>);

struct Inner {
    place: Arc<Place>,
    /// Begins a transaction that holds the row of the store.
    begin: String,
    /// The same without.
    begin_working: String,
    /// The same for one snapshot.
    begin_reading: String,
    profile: Profile,
    gc: GcPolicy,
    line: Line,
    /// Turns true when nobody waits for the server any more.
    cut: watch::Sender<bool>,
    /// Tells those who watch of this handle's writes.
    signal: Arc<Signal>,
}

/// Connects, creates or updates the tables, and makes the store if it is new. Blocks.
pub(super) fn open(config: &Config, postgres: &PostgresConfig) -> Result<Arc<dyn Backend>> {
    let place = Place::at(postgres)?;
    let number = match place.store(&postgres.key, config.migrates) {
        Ok(number) => number,
        Err(error) => {
            place.leave(CLOSE, Box::new(|_| {}));
            return Err(error);
        }
    };
    let settings = place.settings(number, config.busy_timeout_ms);
    let begin_working = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {settings}");
    Ok(Arc::new(PgStore(Arc::new(Inner {
        begin: format!("{begin_working}; SELECT FROM store_info FOR NO KEY UPDATE"),
        begin_working,
        begin_reading: format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {settings}"),
        place,
        profile: config.blob_profile,
        gc: config.gc,
        line: Line::default(),
        cut: watch::Sender::new(false),
        signal: Signal::of(None),
    }))))
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody closed it: the environment ended.
        if self.line.leave() {
            self.place.leave(CLOSE, Box::new(|_| {}));
        }
    }
}

fn closed() -> HfError {
    HfError::new(Code::Closed, "the session store is closed; open it again")
}

impl PgStore {
    /// Runs what only reads; closing waits for it.
    fn look<T: 'static>(&self, done: Done<T>, look: impl FnOnce(&Inner) -> Result<T> + Send + 'static) {
        if !self.0.line.begin_reading() {
            return done(Err(closed()));
        }
        let inner = Arc::clone(&self.0);
        WAITERS.spawn(move || {
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&inner)));
            inner.line.end_reading();
            done(answer.unwrap_or_else(|_| Err(HfError::new(Code::Panic, "a reading panicked; please report it"))));
        });
    }
}

impl Backend for PgStore {
    fn write(&self, command: String, bytes: Vec<Vec<u8>>, done: Done<String>) {
        match self.0.line.push(Entry { command, bytes, since: Instant::now(), done }) {
            Ok(true) => {
                let inner = Arc::clone(&self.0);
                WAITERS.spawn(move || inner.work());
            }
            Ok(false) => {}
            Err(entry) => (entry.done)(Err(closed())),
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
        self.look(done, move |inner| fork::into_file(&to, &command, None, |work| inner.snapshot(&mut |pg| work(pg))));
    }

    fn signal(&self) -> &Arc<Signal> {
        &self.0.signal
    }

    fn close(&self, done: Done<()>) {
        self.0.line.close();
        let inner = Arc::clone(&self.0);
        // Not on a thread that waits for servers: all of those may be waiting.
        self.0.place.runtime.clone().spawn(async move {
            let is_quiet = tokio::time::timeout(CLOSE, inner.line.quiet()).await.is_ok();
            if !is_quiet {
                // What is under way is told that it failed.
                inner.cut.send_replace(true);
                let _ = tokio::time::timeout(LAST_WORD, inner.line.quiet()).await;
            }
            if inner.line.leave() {
                let limit = if is_quiet { CLOSE } else { LAST_WORD };
                inner.place.leave(limit, Box::new(move |_| done(Ok(()))));
            } else {
                done(Ok(()));
            }
        });
    }
}
