//! A transaction of a command, run again where that can help and harms nobody.

use std::time::{Duration, Instant};

use super::Inner;
use crate::error::{Code, HfError, Result};
use crate::lifecycle::sql::postgres::{Pg, told};
use crate::postgres::is_transient;

/// How long a command is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What a transaction came to.
pub(super) struct Ended<T> {
    pub value: T,
    /// Rows that it changed.
    pub changed: u64,
}

/// The error of a lock that somebody kept for too long.
fn locked(error: &HfError) -> HfError {
    let text = "the session store is busy: somebody kept a lock on what is to be written for longer than busyTimeoutMs (another process that \
                stands still, or a transaction that was left open); nothing was changed. Try again, or end that transaction";
    error
        .fields()
        .iter()
        .fold(HfError::new(Code::Busy, text), |made, (name, value)| made.with_field(name, value.clone()))
}

impl Inner {
    /// Runs `work` in a transaction, again where that can help and harms nobody.
    pub(super) fn transaction<T>(
        &self,
        begin: &str,
        mut work: impl FnMut(&mut Pg<'_>) -> Result<T>,
    ) -> Result<Ended<T>> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(5);
        loop {
            let error = match self.attempt(begin, &mut work) {
                Ok(ended) => return Ok(ended),
                Err(error) => error,
            };
            if error.fields().get("sqlState").is_some_and(|state| state == "55P03") {
                return Err(locked(&error));
            }
            let unknown = error.fields().get("outcomeUnknown").is_some_and(|unknown| unknown == true);
            if unknown {
                return Err(explained(&error));
            }
            // Two who make the same session at the same time: the second finds the first's when it looks again.
            let raced = error.code() == Code::LifecycleConstraint
                && error.fields().get("table").is_some_and(|table| table == "session_key");
            if !(raced || is_transient(&error)) || start.elapsed() > RETRY {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    fn attempt<T>(&self, begin: &str, work: &mut impl FnMut(&mut Pg<'_>) -> Result<T>) -> Result<Ended<T>> {
        // Closed never.
        let _turn = if begin == self.begin { self.runtime.block_on(self.writers.acquire()).ok() } else { None };
        let transaction = self.runtime.block_on(self.postgres.begin_with(begin))?;
        let mut pg = Pg::new(self.runtime.clone(), &transaction);
        let worked = work(&mut pg);
        let changed = pg.changed();
        match worked {
            Ok(value) => {
                let committed = self.runtime.block_on(transaction.commit());
                committed.map_err(|error| told("commit", error))?;
                Ok(Ended { value, changed })
            }
            Err(error) => {
                // What failed is what the caller must know; a rollback that fails too means that the connection is gone.
                let _ = self.runtime.block_on(transaction.rollback());
                Err(error)
            }
        }
    }
}

fn explained(error: &HfError) -> HfError {
    let message = format!(
        "{}; the connection broke while the change was being committed, so nobody knows whether it was stored: read it before \
         trying again",
        error.message()
    );
    let made = HfError::new(error.code(), message);
    error.fields().iter().fold(made, |made, (name, value)| made.with_field(name, value.clone()))
}
