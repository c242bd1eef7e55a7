//! A connection on loan from the pool.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use super::connect::{Connection, STATEMENTS_MAX};
use super::failure::{is_stale_statement, may_have_happened, pg_error, unknown_outcome};
use super::pool::Pool;
use crate::error::{HfError, Result};

/// A bound value and the type that it is sent as.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long a rollback or a cancellation in the background may take before the connection is just closed.
const GIVE_UP: Duration = Duration::from_secs(5);

/// A connection on loan; dropping it gives it back.
///
/// Derefs to [`tokio_postgres::Client`]. Prefer [`fetch`](Self::fetch) and [`run`](Self::run): they prepare each statement
/// once per connection, or not at all where `statement_cache` is off, and make errors that tell no values. A connection
/// whose transaction was left open is rolled back before anybody else gets it; a call that was abandoned half way is
/// cancelled on the server, and its connection closed.
pub struct Client {
    pub(super) connection: Arc<Connection>,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
    pub(super) in_transaction: AtomicBool,
    unfinished: AtomicUsize,
}

/// A failure of the driver, and whether the statement itself had been sent.
pub(super) struct Failed {
    pub(super) error: tokio_postgres::Error,
    pub(super) sent: bool,
}

impl Client {
    pub(super) fn new(connection: Arc<Connection>, permit: OwnedSemaphorePermit, pool: Arc<Pool>) -> Self {
        Self {
            connection,
            permit: Some(permit),
            pool,
            in_transaction: AtomicBool::new(false),
            unfinished: AtomicUsize::new(0),
        }
    }

    /// Prepares `sql`, or takes the statement that this connection prepared before.
    ///
    /// # Errors
    /// Those of the driver; turn them into an error for callers with [`pg_error`](super::pg_error).
    pub async fn prepare_cached(&self, sql: &str) -> std::result::Result<Statement, tokio_postgres::Error> {
        self.prepare_typed_cached(sql, &[]).await
    }

    /// Like [`prepare_cached`](Self::prepare_cached), with the types of the parameters.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn prepare_typed_cached(
        &self,
        sql: &str,
        types: &[Type],
    ) -> std::result::Result<Statement, tokio_postgres::Error> {
        if self.caches() {
            let known = self.connection.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
            if let Some(statement) = known.filter(|statement| types.is_empty() || statement.params() == types) {
                return Ok(statement);
            }
        }
        let statement = self.connection.client.prepare_typed(sql, types).await?;
        if self.caches() {
            let mut statements = self.connection.statements.lock().unwrap_or_else(PoisonError::into_inner);
            if statements.len() < STATEMENTS_MAX || statements.contains_key(sql) {
                statements.insert(sql.to_owned(), statement.clone());
            }
        }
        Ok(statement)
    }

    pub(super) fn caches(&self) -> bool {
        self.pool.server.settings.statement_cache
    }

    pub(super) fn forget_statement(&self, sql: &str) {
        self.connection.statements.lock().unwrap_or_else(PoisonError::into_inner).remove(sql);
    }

    /// Prepares `sql` for `params` on this connection, so that the call that follows sends its message when it is first polled. Does
    /// nothing where statements are not prepared.
    ///
    /// # Errors
    /// [`pg_error`](super::pg_error)'s.
    pub async fn prepare(&self, doing: &str, sql: &str, params: &[Param<'_>]) -> Result<()> {
        if !self.caches() {
            return Ok(());
        }
        let call = Call::begin(self);
        let prepared = self.prepared(sql, params).await;
        call.end();
        prepared.map(drop).map_err(|failed| pg_error(doing, &failed.error))
    }

    /// Runs a query and returns its rows. `doing` says for the error message what it is good for (`reading the history`).
    ///
    /// # Errors
    /// [`pg_error`](super::pg_error)'s. Outside a transaction, `outcomeUnknown: true` marks a statement other than a
    /// `SELECT` whose answer was lost.
    pub async fn fetch(&self, doing: &str, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let call = Call::begin(self);
        let mut result = self.fetch_once(sql, params).await;
        if self.may_repeat(sql, &result) {
            result = self.fetch_once(sql, params).await;
        }
        call.end();
        result.map_err(|failed| self.told(doing, sql, &failed))
    }

    /// Runs a statement and returns the number of rows that it changed. `doing` as in [`fetch`](Self::fetch).
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn run(&self, doing: &str, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let call = Call::begin(self);
        let mut result = self.run_once(sql, params).await;
        if self.may_repeat(sql, &result) {
            result = self.run_once(sql, params).await;
        }
        call.end();
        result.map_err(|failed| self.told(doing, sql, &failed))
    }

    /// Runs several statements without parameters, separated by semicolons: DDL, `SET LOCAL`.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn script(&self, doing: &str, sql: &str) -> Result<()> {
        let call = Call::begin(self);
        let result = self.connection.client.batch_execute(sql).await;
        call.end();
        result.map_err(|error| self.told(doing, sql, &Failed { error, sent: true }))
    }

    async fn fetch_once(&self, sql: &str, params: &[Param<'_>]) -> std::result::Result<Vec<Row>, Failed> {
        if !self.caches() {
            return self.connection.client.query_typed(sql, params).await.map_err(|error| Failed { error, sent: true });
        }
        let statement = self.prepared(sql, params).await?;
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        self.connection.client.query(&statement, &values).await.map_err(|error| Failed { error, sent: true })
    }

    async fn run_once(&self, sql: &str, params: &[Param<'_>]) -> std::result::Result<u64, Failed> {
        if !self.caches() {
            return self
                .connection
                .client
                .execute_typed(sql, params)
                .await
                .map_err(|error| Failed { error, sent: true });
        }
        let statement = self.prepared(sql, params).await?;
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        self.connection.client.execute(&statement, &values).await.map_err(|error| Failed { error, sent: true })
    }

    pub(super) async fn prepared(&self, sql: &str, params: &[Param<'_>]) -> std::result::Result<Statement, Failed> {
        let types: Vec<Type> = params.iter().map(|(_, kind)| kind.clone()).collect();
        self.prepare_typed_cached(sql, &types).await.map_err(|error| Failed { error, sent: false })
    }

    /// A statement that was prepared before the table changed is prepared again, unless its failure ended a transaction.
    fn may_repeat<T>(&self, sql: &str, result: &std::result::Result<T, Failed>) -> bool {
        let Err(failed) = result else { return false };
        if !is_stale_statement(&failed.error) {
            return false;
        }
        self.forget_statement(sql);
        !self.in_transaction.load(Ordering::Relaxed)
    }

    fn told(&self, doing: &str, sql: &str, failed: &Failed) -> HfError {
        let mut error = pg_error(doing, &failed.error);
        if is_stale_statement(&failed.error) {
            error = error.with_field("retryable", true);
        }
        let reads = sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"));
        let alone = !self.in_transaction.load(Ordering::Relaxed);
        if alone && failed.sent && !reads && may_have_happened(&failed.error) { unknown_outcome(error) } else { error }
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.connection.client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let connection = Arc::clone(&self.connection);
        let Some(permit) = self.permit.take() else { return };
        if *self.unfinished.get_mut() > 0 {
            // Nobody waits for the answer any more, and the next user must not wait for it either. The connection is not used
            // again: a late cancellation could hit somebody else's statement.
            if let Some(tls) = self.pool.server.connector() {
                let token = connection.client.cancel_token();
                self.pool.runtime.spawn(async move {
                    // At best: the server may also be gone.
                    let _ = timeout(GIVE_UP, token.cancel_query(tls)).await;
                });
            }
            return;
        }
        if *self.in_transaction.get_mut() {
            let pool = Arc::clone(&self.pool);
            self.pool.runtime.spawn(async move {
                if let Ok(Ok(())) = timeout(GIVE_UP, connection.client.batch_execute("ROLLBACK")).await {
                    pool.put_back(connection);
                }
                drop(permit);
            });
        } else {
            self.pool.put_back(connection);
            drop(permit);
        }
    }
}

/// Marks a call that has begun; one that is dropped before its end leaves the mark.
pub(super) struct Call<'a>(&'a Client);

impl<'a> Call<'a> {
    pub(super) fn begin(client: &'a Client) -> Self {
        client.unfinished.fetch_add(1, Ordering::Relaxed);
        Self(client)
    }

    pub(super) fn end(self) {
        self.0.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}
