//! Another attempt, where the caller says that doing it twice does no harm.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Postgres;
use crate::error::{Code, HfError, Result};

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// SQLSTATEs after which nothing happened and another attempt may succeed: serialization failure and deadlock.
const REPEATABLE: &[&str] = &["40001", "40P01"];

/// Tells whether another attempt may help: the server was away, a transaction lost against another one, or a prepared
/// statement had become stale within one (field `retryable`).
#[must_use]
pub fn is_transient(error: &HfError) -> bool {
    let state = error.fields().get("sqlState").and_then(serde_json::Value::as_str);
    let stale = error.fields().get("retryable").is_some_and(|value| value == true);
    error.code() == Code::Unavailable || stale || state.is_some_and(|state| REPEATABLE.contains(&state))
}

impl Postgres {
    /// Calls `attempt` until it succeeds, fails for good, or `budget` is used up; then its last error is returned.
    ///
    /// `attempt` must be idempotent: it is called again also where the answer to its COMMIT was lost. Waits 20 ms, then
    /// twice as long each time, at most 1 s; an attempt under way is not cut off at the end of the budget.
    ///
    /// # Errors
    /// Those of the last attempt.
    pub async fn retry_idempotent<T, F, A>(&self, budget: Duration, mut attempt: A) -> Result<T>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T>>,
    {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !is_transient(&error) || start.elapsed() + wait > budget {
                return Err(error);
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
