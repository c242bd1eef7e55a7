//! Leases of effects that are under way: renewed from a thread of the engine, so that a JavaScript thread that is busy with the effect
//! loses none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::durable::timer;
use crate::error::{Code, HfError, Result};
use crate::session_graph::backend::Done;

/// Leases are not renewed more often than that.
const SHORTEST: Duration = Duration::from_millis(5);
/// Nor less often: times that far ahead are no times on every system.
const LONGEST: Duration = Duration::from_hours(24);

/// Runs a command that renews, and calls back.
type Renew = Box<dyn Fn(String, Done<String>) + Send + Sync>;
/// Called once: with an error if the lease is lost, without when it was let go.
pub type Ended = Box<dyn FnOnce(Option<HfError>) + Send>;

/// Renews leases until they are let go, or lost. When it is dropped, all are let go.
pub struct Keeper(Arc<Inner>);

struct Inner {
    renew: Renew,
    held: Mutex<HashMap<String, Lease>>,
}

struct Lease {
    command: String,
    every: Duration,
    timer: timer::Key,
    ended: Ended,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("held", &self.0.held().len()).finish()
    }
}

impl Keeper {
    /// Keeps leases through `renew`.
    pub(in crate::session_graph::side) fn new(renew: Renew) -> Self {
        Self(Arc::new(Inner { renew, held: Mutex::default() }))
    }

    /// Runs `command` every third of `ttl` until `token` is let go.
    pub fn hold(&self, token: String, command: String, ttl: Duration, ended: Ended) {
        let every = (ttl / 3).clamp(SHORTEST, LONGEST);
        // Under the mutex, so that the timer finds the lease.
        let mut held = self.0.held();
        let timer = schedule(&self.0, &token, Instant::now() + every);
        held.insert(token, Lease { command, every, timer, ended });
    }

    /// Renews it no more.
    pub fn let_go(&self, token: &str) {
        if let Some(lease) = self.0.take(token) {
            timer::cancel(lease.timer);
            (lease.ended)(None);
        }
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Lease>> {
        // Nothing that can panic runs under this lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, token: &str) -> Option<Lease> {
        self.held().remove(token)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for (_, lease) in self.held().drain() {
            timer::cancel(lease.timer);
            (lease.ended)(None);
        }
    }
}

fn schedule(inner: &Arc<Inner>, token: &str, at: Instant) -> timer::Key {
    let (inner, token) = (Arc::downgrade(inner), token.to_owned());
    timer::schedule(at, move || renew(&inner, token))
}

fn renew(weak: &Weak<Inner>, token: String) {
    let Some(inner) = weak.upgrade() else { return };
    let Some(command) = inner.held().get(&token).map(|lease| lease.command.clone()) else { return };
    let (begun, weak) = (Instant::now(), Weak::clone(weak));
    let renewed = move |outcome| {
        let Some(inner) = weak.upgrade() else { return };
        after(&inner, &token, begun, outcome);
    };
    (inner.renew)(command, Box::new(renewed));
}

fn after(inner: &Arc<Inner>, token: &str, begun: Instant, outcome: Result<String>) {
    match outcome {
        Err(error) if is_the_end(&error) => {
            if let Some(lease) = inner.take(token) {
                (lease.ended)(Some(error));
            }
        }
        // What else fails may work the next time; until somebody takes over, the lease is ours.
        _ => {
            let mut held = inner.held();
            if let Some(lease) = held.get_mut(token) {
                lease.timer = schedule(inner, token, begun + lease.every);
            }
        }
    }
}

fn is_the_end(error: &HfError) -> bool {
    matches!(error.code(), Code::GraphEffectReplayLeaseLost | Code::Closed | Code::Poisoned)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const TTL: Duration = Duration::from_millis(30);
    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_lease_is_renewed_until_it_is_let_go() {
        let (asked, commands) = channel();
        let renew = move |command: String, done: Done<String>| {
            let _ = asked.send(command);
            // What fails for another reason is tried again.
            done(Err(HfError::new(Code::Busy, "busy")));
        };
        let keeper = Keeper::new(Box::new(renew));
        let (told, ended) = channel();
        keeper.hold("t".to_owned(), "renew t".to_owned(), TTL, Box::new(move |error| told.send(error).unwrap()));
        for _ in 0..3 {
            assert_eq!(commands.recv_timeout(SOON).unwrap(), "renew t");
        }
        assert!(ended.try_recv().is_err());
        keeper.let_go("t");
        assert!(ended.recv_timeout(SOON).unwrap().is_none());
        keeper.let_go("t");
    }

    #[test]
    fn a_lost_lease_is_told_and_not_renewed_again() {
        let (asked, commands) = channel();
        let renew = move |command: String, done: Done<String>| {
            let _ = asked.send(command);
            done(Err(HfError::new(Code::GraphEffectReplayLeaseLost, "lost")));
        };
        let keeper = Keeper::new(Box::new(renew));
        let (told, ended) = channel();
        keeper.hold("t".to_owned(), String::new(), TTL, Box::new(move |error| told.send(error).unwrap()));
        assert_eq!(ended.recv_timeout(SOON).unwrap().unwrap().code(), Code::GraphEffectReplayLeaseLost);
        assert!(commands.recv_timeout(SOON).is_ok());
        assert!(commands.recv_timeout(TTL * 2).is_err());
    }

    #[test]
    fn who_goes_away_holds_nothing() {
        let keeper = Keeper::new(Box::new(|_, _| panic!("it was renewed")));
        let (told, ended) = channel();
        keeper.hold("t".to_owned(), String::new(), SOON, Box::new(move |error| told.send(error).unwrap()));
        drop(keeper);
        assert!(ended.recv_timeout(SOON).unwrap().is_none());
    }
}
