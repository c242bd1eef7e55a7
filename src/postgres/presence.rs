//! Who is alive: whoever is present holds an advisory lock, named after itself, on a connection that does nothing else. The server
//! lets go of it when the process ends or the network breaks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::types::{ToSql, Type};
use super::{Client, Config, Done, Postgres};
use crate::error::Result;

/// How long a server may take to hear of the end.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The mark of somebody who is alive.
pub struct Presence {
    postgres: Postgres,
    key: i64,
    held: Mutex<Option<Client>>,
    /// Held by whoever connects: the pool has one place, and a second one would wait for it in vain.
    connecting: tokio::sync::Mutex<()>,
}

impl Presence {
    /// The advisory lock that stands for `mark`. Held by nobody, the one behind it is gone, or was cut off a moment ago: look twice.
    #[must_use]
    pub fn key(mark: &str) -> i64 {
        let hash = blake3::hash(mark.as_bytes());
        i64::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// Prepares `mark`; nothing is connected yet.
    ///
    /// # Errors
    /// As [`Postgres::new`].
    pub fn new(config: &Config, mark: &str) -> Result<Self> {
        let config = Config { pool_size: 1, ..config.clone() };
        Ok(Self {
            postgres: Postgres::new(config)?,
            key: Self::key(mark),
            held: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Sees to it that the lock is held.
    ///
    /// # Errors
    /// Where the server cannot be reached.
    pub async fn ensure(&self) -> Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let _connecting = self.connecting.lock().await;
        if self.is_held() {
            return Ok(());
        }
        // A broken one goes back first.
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).take());
        let client = self.postgres.client().await?;
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&self.key, Type::INT8)];
        // A session of ours that the server still believes in holds it as well; then the next call tries again.
        let rows = client.fetch("marking an owner as alive", "SELECT pg_try_advisory_lock($1)", &params).await?;
        if rows.first().is_some_and(|row| row.get(0)) {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
        }
        Ok(())
    }

    fn is_held(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// Lets go.
    pub fn end(&self, done: Done) {
        self.end_within(LAST_WORD, done);
    }

    /// As [`end`](Self::end), waiting for the server for at most `limit` with each step.
    pub fn end_within(&self, limit: Duration, done: Done) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        match held {
            None => self.postgres.close_within(limit, done),
            Some(client) => {
                let postgres = self.postgres.clone();
                let key = self.key;
                self.postgres.spawn(async move {
                    // The connection goes back to its pool, and is closed with it: unlocked first, it cannot outlive us as a ghost.
                    let params: [(&(dyn ToSql + Sync), Type); 1] = [(&key, Type::INT8)];
                    let unlock = client.fetch("unmarking an owner", "SELECT pg_advisory_unlock($1)", &params);
                    // A server that does not answer will find out by itself.
                    let _ = tokio::time::timeout(limit, unlock).await;
                    drop(client);
                    postgres.close_within(limit, done);
                });
            }
        }
    }
}
