//! PostgreSQL, and what speaks its protocol.
//!
//! A [`Postgres`] is a server and a pool of connections to it. Its work runs on two threads of its own, which never keep the
//! process alive; callers hand in futures with [`Postgres::spawn`] and pass results on from there.
//!
//! What holds whatever happens to server and network:
//! - A commit that was answered is durable as the server's `synchronous_commit` says; one whose answer was lost fails with
//!   the field `outcomeUnknown: true`, and nothing is repeated unless the caller asks with [`Postgres::retry_idempotent`].
//! - A broken connection is never lent again, an abandoned transaction is rolled back, idle connections are closed.
//! - Errors tell names, never bound values, DETAIL lines, passwords or URLs.
//!
//! Statements of modules name their schema; `search_path` is not relied on.

mod address;
mod client;
mod config;
mod connect;
mod exchange;
mod failure;
mod listen;
mod migrate;
mod passfile;
mod pool;
mod presence;
mod retry;
mod settings;
mod tls;
mod transaction;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use client::{Client, Param};
pub use config::{Config, PasswordSource, Ssl, Stats};
pub use exchange::{Ask, Broken, Reply};
pub use failure::{is_connection_error, pg_error};
pub use listen::{Listener, Notice};
pub use migrate::{Migrate, Migration, Needs};
pub use presence::Presence;
pub use retry::is_transient;
/// The driver's types that appear in this engine's signatures.
pub use tokio_postgres::{Row, types};
pub use transaction::{Step, Transaction};

use crate::error::{Code, HfError, Result};
use crate::network;
use connect::Server;
use pool::Pool;

/// Called once with the outcome.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// A server and the connections to it; clones share them.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    pool: Arc<Pool>,
    life: Mutex<Life>,
    /// Wakes the one who closes when the last task has ended.
    ended: Notify,
}

#[derive(Default)]
struct Life {
    phase: Phase,
    running: usize,
    closers: Vec<Done>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// What began before may go on.
    Closing,
    Closed,
}

tokio::task_local! {
    /// The handle that admitted the running task before it was closed.
    static ADMITTED: usize;
}

struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut life = self.0.life();
        life.running -= 1;
        if life.running == 0 {
            self.0.ended.notify_one();
        }
    }
}

impl Inner {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }
}

impl Postgres {
    /// Checks `config` and prepares everything. Connects to nothing and reads no file; that happens on first use.
    ///
    /// # Errors
    /// `HF_INVALID_ARGUMENT` names what is wrong in `config`. `HF_IO` when threads cannot be started.
    pub fn new(config: Config) -> Result<Postgres> {
        let settings = settings::resolve(config, settings::environment)?;
        let pool = Arc::new(Pool::new(Server::new(settings), network::handle()?));
        Ok(Postgres(Arc::new(Inner { pool, life: Mutex::default(), ended: Notify::new() })))
    }

    /// Runs `future` on the engine's threads; it must not block. A panic in it ends it alone. After [`close`](Self::close) it
    /// still runs, but gets no connection; nor does a task of its own making once the closing has begun.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let inner = Arc::clone(&self.0);
        let admitted = {
            let mut life = inner.life();
            let open = life.phase == Phase::Open;
            life.running += usize::from(open);
            open
        };
        let runtime = inner.pool.runtime.clone();
        if admitted {
            let address = inner.address();
            let running = Running(inner);
            runtime.spawn(ADMITTED.scope(address, async move {
                let _running = running;
                future.await;
            }));
        } else {
            runtime.spawn(future);
        }
    }

    /// Returns a connection of the pool: an idle one, else a new one, else the next that comes back.
    ///
    /// # Errors
    /// `HF_CLOSED` after [`close`](Self::close), except in tasks that were running. `HF_UNAVAILABLE` when the server cannot be
    /// reached or all connections stay in use for `acquireTimeoutMs`; `HF_DATABASE` when it refuses the login;
    /// `HF_INVALID_ARGUMENT` or `HF_IO` for certificates.
    pub async fn client(&self) -> Result<Client> {
        let phase = self.0.life().phase;
        let admitted = || ADMITTED.try_with(|admitted| *admitted == self.0.address()).unwrap_or(false);
        if phase == Phase::Open || (phase == Phase::Closing && admitted()) {
            self.0.pool.checkout().await
        } else {
            Err(failure::closed())
        }
    }

    /// Begins a transaction on a connection of the pool.
    ///
    /// # Errors
    /// As [`client`](Self::client), and `HF_UNAVAILABLE` when the connection breaks.
    pub async fn begin(&self) -> Result<Transaction> {
        Transaction::begin(self.client().await?).await
    }

    /// Begins a transaction on a connection of the pool with `sql`, which starts with `BEGIN` and may go on with what holds for the
    /// transaction (`SET LOCAL`): all in one round trip.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and `HF_DATABASE` when the server refuses `sql`.
    pub async fn begin_with(&self, sql: &str) -> Result<Transaction> {
        Transaction::begin_with(self.client().await?, sql).await
    }

    /// Takes a connection for a transaction that begins with the first [`exchange`](Transaction::exchange) on it.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub async fn unbegun(&self) -> Result<Transaction> {
        self.client().await.map(Transaction::unbegun)
    }

    /// Runs `work` in a transaction: commits when it succeeds, rolls back when it fails or is dropped. Retries nothing.
    ///
    /// # Errors
    /// Those of `work`, [`begin`](Self::begin) and [`Transaction::commit`].
    pub async fn transaction<T>(&self, work: impl AsyncFnOnce(&Transaction) -> Result<T>) -> Result<T> {
        let transaction = self.begin().await?;
        match work(&transaction).await {
            Ok(value) => {
                transaction.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // What failed is what the caller must know; a rollback that fails too means that the connection is gone.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    /// Listens on `channel` with a connection of its own, outside the pool. `on` is called on the engine's threads, one call at
    /// a time, and must return soon. The listening ends with the [`Listener`] or [`close`](Self::close).
    pub fn listen(&self, channel: &str, on: impl Fn(Notice) + Send + Sync + 'static) -> Listener {
        listen::start(&self.0.pool, channel, on)
    }

    /// Closes: refuses new work at once, waits for what is running (at most `closeTimeoutMs`, then it is cut off), ends listeners
    /// and connections, and calls `done` on an engine thread. May be called again; each `done` is called once, after the end.
    ///
    /// `done` gets `HF_UNAVAILABLE` when work had to be cut off.
    pub fn close(&self, done: Done) {
        self.close_within(self.0.pool.server.settings.close_timeout, done);
    }

    /// As [`close`](Self::close), waiting for what is running for at most `limit`, if it is the first call.
    pub fn close_within(&self, limit: Duration, done: Done) {
        let first = {
            let mut life = self.0.life();
            if life.phase == Phase::Closed {
                drop(life);
                self.0.pool.runtime.spawn(async move { done(Ok(())) });
                return;
            }
            life.closers.push(done);
            std::mem::replace(&mut life.phase, Phase::Closing) == Phase::Open
        };
        if first {
            let inner = Arc::clone(&self.0);
            self.0.pool.runtime.spawn(shut_down(inner, limit));
        }
    }

    /// Returns what the pool is doing now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let pool = &self.0.pool;
        let (connections, idle, waiting) = pool.counts();
        let opened = pool.opened.load(Ordering::Relaxed);
        Stats { connections, idle, waiting, opened, running: self.0.life().running }
    }
}

async fn shut_down(inner: Arc<Inner>, limit: Duration) {
    let start = Instant::now();
    let ended = async {
        while inner.life().running > 0 {
            inner.ended.notified().await;
        }
    };
    let in_time = tokio::time::timeout(limit, ended).await.is_ok();
    let in_time = inner.pool.close(limit.saturating_sub(start.elapsed())).await && in_time;
    let closers = {
        let mut life = inner.life();
        life.phase = Phase::Closed;
        std::mem::take(&mut life.closers)
    };
    for done in closers {
        done(if in_time {
            Ok(())
        } else {
            let text = format!("closing PostgreSQL: work still ran after {} ms and was cut off", limit.as_millis());
            Err(HfError::new(Code::Unavailable, text))
        });
    }
}

/// Quotes an identifier: `a"b` becomes `"a""b"`.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
