//! A small pool: the connection used last is used next, the others grow idle and are closed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::connect::{Connection, Server};
use super::failure::closed;
use crate::error::{Code, HfError, Result};

pub(super) struct Pool {
    pub(super) server: Server,
    pub(super) runtime: Handle,
    permits: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// Turns true when connections must end, whoever uses them.
    pub(super) cut: watch::Sender<bool>,
    live: Arc<AtomicUsize>,
    pub(super) opened: AtomicU64,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Idle {
    /// Oldest first.
    list: Vec<(Instant, Arc<Connection>)>,
    reaping: bool,
    closed: bool,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(super) fn new(server: Server, runtime: Handle) -> Self {
        let size = server.settings.pool_size;
        Self {
            server,
            runtime,
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::default(),
            cut: watch::Sender::new(false),
            live: Arc::default(),
            opened: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns open, idle, and waiting.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.live.load(Ordering::Relaxed), self.idle().list.len(), self.waiting.load(Ordering::Relaxed))
    }

    /// Takes a connection, waiting for one if all are used, opening one if none is idle.
    pub(super) async fn checkout(self: &Arc<Self>) -> Result<Client> {
        let settings = &self.server.settings;
        let permit = {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.waiting);
            match timeout(settings.acquire_timeout, Arc::clone(&self.permits).acquire_owned()).await {
                Ok(permit) => permit.map_err(|_| closed())?,
                Err(_) => {
                    return Err(HfError::new(
                        Code::Unavailable,
                        format!(
                            "all {} connections to PostgreSQL at {} were in use for {} ms (`acquireTimeoutMs`); use a \
                             greater `poolSize` or shorter transactions",
                            settings.pool_size,
                            settings.shown,
                            settings.acquire_timeout.as_millis()
                        ),
                    ));
                }
            }
        };
        while let Some((_, connection)) = self.pop() {
            if !connection.client.is_closed() {
                return Ok(Client::new(connection, permit, Arc::clone(self)));
            }
        }
        let raw = self.server.open().await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::start(raw, &self.runtime, self.cut.subscribe(), &self.live);
        if settings.statement_cache
            && let Some(sql) = &settings.session
        {
            // What went wrong with the connection shows with its first use.
            let _ = timeout(settings.connect_timeout, connection.client.batch_execute(sql)).await;
        }
        Ok(Client::new(Arc::new(connection), permit, Arc::clone(self)))
    }

    fn pop(&self) -> Option<(Instant, Arc<Connection>)> {
        self.idle().list.pop()
    }

    /// Takes a healthy connection back.
    pub(super) fn put_back(self: &Arc<Self>, connection: Arc<Connection>) {
        if connection.client.is_closed() {
            return;
        }
        let mut idle = self.idle();
        if idle.closed {
            return;
        }
        idle.list.push((Instant::now(), connection));
        if let Some(limit) = self.server.settings.idle_timeout
            && !idle.reaping
        {
            idle.reaping = true;
            self.runtime.spawn(reap(Arc::downgrade(self), limit));
        }
    }

    /// Takes what has been idle for `limit`, and tells how long until the next is.
    fn expired(&self, limit: Duration) -> (Vec<Arc<Connection>>, Option<Duration>) {
        let mut idle = self.idle();
        let now = Instant::now();
        let count = idle.list.partition_point(|(since, _)| now.duration_since(*since) >= limit);
        let expired = idle.list.drain(..count).map(|(_, connection)| connection).collect();
        let next = idle.list.first().map(|(since, _)| limit.saturating_sub(now.duration_since(*since)));
        idle.reaping = next.is_some();
        (expired, next)
    }

    /// Waits until every connection is back, at most `limit`, and ends them all. Returns false when some had to be cut off.
    pub(super) async fn close(&self, limit: Duration) -> bool {
        let size = u32::try_from(self.server.settings.pool_size).unwrap_or(u32::MAX);
        let all = timeout(limit, self.permits.acquire_many(size)).await;
        self.permits.close();
        let idle = {
            let mut idle = self.idle();
            idle.closed = true;
            std::mem::take(&mut idle.list)
        };
        futures_util::future::join_all(idle.into_iter().map(|(_, connection)| connection.end())).await;
        self.cut.send_replace(true);
        all.is_ok()
    }
}

async fn reap(pool: Weak<Pool>, limit: Duration) {
    loop {
        let Some((expired, next)) = pool.upgrade().map(|pool| pool.expired(limit)) else { return };
        for connection in expired {
            connection.end().await;
        }
        match next {
            Some(wait) => sleep(wait).await,
            None => return,
        }
    }
}
