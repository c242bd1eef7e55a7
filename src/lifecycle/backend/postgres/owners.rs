//! Who is alive: each open store holds an advisory lock, named after itself, on a connection that does nothing else.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::ids;
use crate::lifecycle::owners::Owners;
use crate::lifecycle::sql::{Sql, Value};
use crate::lifecycle::tables::first;
use crate::postgres::{Config, Done, Postgres, Presence};

/// How often a store sees to it that its lock is held.
const PRESENT_EVERY: Duration = Duration::from_secs(1);
/// Who lost his connection alone has his lock again after that time: longer than [`PRESENT_EVERY`].
const SECOND_LOOK: Duration = Duration::from_millis(1600);
/// After a restart of the server nobody holds a lock until he has connected again.
const GRACE: Duration = Duration::from_secs(5);

/// This store, and those beside it.
pub(super) struct Peers {
    me: String,
    presence: Arc<Presence>,
    /// Stores whose lock was free, since when.
    suspects: Mutex<HashMap<String, Instant>>,
    ended: Arc<tokio::sync::Notify>,
}

fn mark_of(owner: &str) -> String {
    format!("holdfast lifecycle owner {owner}")
}

impl Peers {
    pub(super) fn new(connection: &Config) -> Result<Self> {
        let me = ids::uuid();
        let presence = Arc::new(Presence::new(connection, &mark_of(&me))?);
        Ok(Self { me, presence, suspects: Mutex::default(), ended: Arc::default() })
    }

    /// Takes the lock, and from then on sees to it that it is held.
    pub(super) async fn appear(&self, postgres: &Postgres) -> Result<()> {
        self.presence.ensure().await?;
        let (presence, ended) = (Arc::downgrade(&self.presence), Arc::clone(&self.ended));
        postgres.spawn(async move {
            let staying = async {
                loop {
                    tokio::time::sleep(PRESENT_EVERY).await;
                    let Some(presence) = presence.upgrade() else { return };
                    // Where the server is away the next round tries again, before this store would count as dead.
                    let _ = presence.ensure().await;
                }
            };
            tokio::select! {
                () = staying => {}
                () = ended.notified() => {}
            }
        });
        Ok(())
    }

    /// Ends the task that keeps the lock; before the connections are closed, which wait for it.
    pub(super) fn stop(&self) {
        self.ended.notify_one();
    }

    /// Lets go of the lock; the server has at most `limit` to hear of it.
    pub(super) fn leave(&self, limit: Duration, done: Done) {
        self.presence.end_within(limit, done);
    }

    /// What one transaction finds out.
    pub(super) fn looking(&self) -> Looking<'_> {
        Looking { peers: self, patience: Cell::new(None), known: RefCell::default() }
    }

    /// Whether somebody whose lock is free now has had the time to take it again; otherwise how long that takes.
    fn is_gone(&self, owner: &str, server_up: Duration) -> std::result::Result<(), Duration> {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let suspected = suspects.entry(owner.to_owned()).or_insert_with(Instant::now).elapsed();
        let wait = SECOND_LOOK.saturating_sub(suspected).max(GRACE.saturating_sub(server_up));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    fn is_there(&self, owner: &str) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

/// Looks at others for one transaction.
pub(super) struct Looking<'a> {
    peers: &'a Peers,
    /// How long to wait until all is certain.
    patience: Cell<Option<Duration>>,
    known: RefCell<HashMap<String, bool>>,
}

impl Looking<'_> {
    /// Whether somebody's fate was not certain.
    pub(super) fn is_unsure(&self) -> bool {
        self.patience.get().is_some()
    }

    /// How long until it is.
    pub(super) fn patience(&self) -> Duration {
        self.patience.get().unwrap_or_default() + Duration::from_millis(20)
    }
}

impl Owners for Looking<'_> {
    fn me(&self) -> &str {
        &self.peers.me
    }

    fn is_dead(&self, sql: &mut dyn Sql, owner: &str) -> Result<bool> {
        if owner == self.peers.me {
            return Ok(false);
        }
        if let Some(dead) = self.known.borrow().get(owner) {
            return Ok(*dead);
        }
        // Held until the end of the transaction: of two who look only one takes over.
        let text = "SELECT CASE WHEN pg_try_advisory_xact_lock(?1) THEN 1 ELSE 0 END, \
                    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::int8";
        let key = Presence::key(&mark_of(owner));
        let found = first(sql, "ask whether a store is alive", text, &[Value::Int(key)], |row| {
            Ok((row.int(0)? != 0, row.int(1)?))
        })?;
        let Some((true, up)) = found else {
            self.peers.is_there(owner);
            self.known.borrow_mut().insert(owner.to_owned(), false);
            return Ok(false);
        };
        let up = Duration::from_secs(up.max(0).cast_unsigned());
        let dead = match self.peers.is_gone(owner, up) {
            Ok(()) => true,
            Err(wait) => {
                self.patience.set(Some(self.patience.get().map_or(wait, |known| known.max(wait))));
                false
            }
        };
        self.known.borrow_mut().insert(owner.to_owned(), dead);
        Ok(dead)
    }
}
