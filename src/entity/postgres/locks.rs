//! Locks per entity between processes: session advisory locks, all on one connection that is reserved for them.
//!
//! One connection, however many locks are held: a mutation that holds a lock needs others of the pool to go on, and must not wait
//! for them behind mutations that wait for locks. So nobody waits inside the server, which would block the connection; whoever
//! finds a lock taken asks again. Within the process the server would give a lock twice, so a set keeps those apart.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::entity::log::Unlock;
use crate::error::{Code, HfError, Result};
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Client, Config, Postgres};

/// Longer than any sane mutation: somebody hangs, or waits for himself.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// The locks of one log.
pub struct Locks {
    postgres: Postgres,
    session: tokio::sync::Mutex<Option<Arc<Client>>>,
    held: Mutex<HashSet<i64>>,
    freed: Notify,
}

/// The place of a lock in this process.
struct Place {
    locks: Arc<Locks>,
    key: i64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.locks.held().remove(&self.key);
        self.locks.freed.notify_waiters();
    }
}

impl Locks {
    /// Prepares the connection; nothing is connected yet.
    ///
    /// # Errors
    /// As [`Postgres::new`].
    pub fn new(config: &Config) -> Result<Self> {
        let postgres = Postgres::new(Config { pool_size: 1, ..config.clone() })?;
        Ok(Self { postgres, session: tokio::sync::Mutex::default(), held: Mutex::default(), freed: Notify::new() })
    }

    /// Takes the lock of `schema`, `kind` and `entity_id`; the result gives it back. Where the connection breaks meanwhile, the lock
    /// is lost, and the continuity check of the next append tells of a race.
    ///
    /// # Errors
    /// `HF_BUSY` where somebody has held it for a minute.
    pub async fn take(self: &Arc<Self>, schema: &str, kind: &str, entity_id: &str) -> Result<Unlock> {
        let key = key_of(schema, kind, entity_id);
        let deadline = Instant::now() + PATIENCE;
        let place = self.place(key, deadline).await;
        let mut wait = FIRST_WAIT;
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&key, Type::INT8)];
        if let Some(place) = place {
            loop {
                // A connection that breaks held nothing for this call yet: it asks on the next one.
                let ask = async || {
                    let client = self.session().await?;
                    let asked = client.fetch("locking an entity", "SELECT pg_try_advisory_lock($1)", &params).await?;
                    Ok(asked.first().is_some_and(|row| row.get(0)).then(|| Arc::downgrade(&client)))
                };
                if let Some(client) = self.postgres.retry_idempotent(super::RETRY, ask).await? {
                    return Ok(unlock(client, place));
                }
                if Instant::now() > deadline {
                    break;
                }
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        let message = format!(
            "{kind}:{entity_id} was locked by another mutation for {} s; look for an `apply` that hangs, or that waits for a \
             mutation of the same entity",
            PATIENCE.as_secs()
        );
        Err(HfError::new(Code::Busy, message).with_field("kind", kind).with_field("id", entity_id))
    }

    /// Lets go of everything.
    pub fn end(self: &Arc<Self>, done: crate::postgres::Done) {
        let locks = Arc::clone(self);
        self.postgres.spawn(async move {
            locks.session.lock().await.take();
            locks.postgres.close(done);
        });
    }

    async fn place(self: &Arc<Self>, key: i64, deadline: Instant) -> Option<Place> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before looking, so that a release in between is not missed.
            freed.as_mut().enable();
            if self.held().insert(key) {
                return Some(Place { locks: Arc::clone(self), key });
            }
            timeout_at(deadline, freed).await.ok()?;
        }
    }

    async fn session(&self) -> Result<Arc<Client>> {
        let mut session = self.session.lock().await;
        if let Some(client) = session.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        // The broken one goes back first: the pool has one place.
        session.take();
        let client = Arc::new(self.postgres.client().await?);
        *session = Some(Arc::clone(&client));
        Ok(client)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unlock(client: Weak<Client>, place: Place) -> Unlock {
    Box::new(move || {
        let postgres = place.locks.postgres.clone();
        postgres.spawn(async move {
            let params: [(&(dyn ToSql + Sync), Type); 1] = [(&place.key, Type::INT8)];
            // A connection that is gone has taken the lock with it, and must leave its place in the pool to the next one.
            if let Some(client) = client.upgrade() {
                let _ = client.fetch("unlocking an entity", "SELECT pg_advisory_unlock($1)", &params).await;
            }
            // Only now may the next of this process ask the server.
            drop(place);
        });
    })
}

fn key_of(schema: &str, kind: &str, entity_id: &str) -> i64 {
    let hash = blake3::hash(format!("{schema}\0{kind}\0{entity_id}").as_bytes());
    i64::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}
