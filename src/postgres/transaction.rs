//! Transactions: one that is held open for several steps, and one that goes out whole in a single round trip.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

use futures_util::future::{MaybeDone, try_join_all};
use tokio_postgres::error::SqlState;

use super::client::{Call, Client, Failed, Param};
use super::failure::{is_stale_statement, may_have_happened, pg_error, unknown_outcome};
use crate::error::{Code, HfError, Result};

type Answer = std::result::Result<u64, tokio_postgres::Error>;
type Sent<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// An open transaction. Dropping it rolls it back in the background.
pub struct Transaction {
    client: Client,
}

impl Transaction {
    pub(super) async fn begin(client: Client) -> Result<Self> {
        Self::begin_with(client, "BEGIN").await
    }

    pub(super) fn unbegun(client: Client) -> Self {
        // Whoever drops this half way gets a rollback.
        client.in_transaction.store(true, Ordering::Relaxed);
        Self { client }
    }

    pub(super) async fn begin_with(client: Client, sql: &str) -> Result<Self> {
        // Set before BEGIN is sent: whoever drops this half way gets a rollback.
        client.in_transaction.store(true, Ordering::Relaxed);
        client.script("beginning a transaction", sql).await?;
        Ok(Self { client })
    }

    /// Commits.
    ///
    /// # Errors
    /// Nothing was committed, except where the field `outcomeUnknown` is true: then the answer was lost. `HF_DATABASE` with
    /// `sqlState` 25P02 when a statement had failed before, whatever became of its error.
    pub async fn commit(self) -> Result<()> {
        // The server answers COMMIT of a failed transaction with success and rolls back. SELECT fails then, and keeps
        // COMMIT from being run.
        let call = Call::begin(&self.client);
        let result = self.client.connection.client.batch_execute("SELECT; COMMIT").await;
        call.end();
        match result {
            Ok(()) => {
                self.client.in_transaction.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => Err(HfError::new(
                Code::Database,
                "committing failed: a statement of the transaction had failed, so all of it is rolled back",
            )
            .with_field("sqlState", "25P02")),
            Err(error) => Err(commit_error("committing", &error)),
        }
    }

    /// Rolls back and waits for it.
    ///
    /// # Errors
    /// `HF_UNAVAILABLE` when the connection broke; the server rolls back then.
    pub async fn rollback(self) -> Result<()> {
        self.client.script("rolling back", "ROLLBACK").await?;
        self.client.in_transaction.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

fn commit_error(doing: &str, error: &tokio_postgres::Error) -> HfError {
    let made = pg_error(doing, error);
    if may_have_happened(error) { unknown_outcome(made) } else { made }
}

/// A statement of a [`pipelined_transaction`](Client::pipelined_transaction).
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// SQL with `$1` …
    pub sql: &'a str,
    /// Its values and their types.
    pub params: &'a [Param<'a>],
}

impl Client {
    /// Sends `BEGIN`, all `steps` and `COMMIT` at once and waits for the answers together: one round trip, once the
    /// statements are prepared (unnamed ones need no preparation). Returns the number of rows that each step changed.
    ///
    /// # Errors
    /// All or nothing. The error is the one of the first step that failed, its index in the field `step`. Where
    /// `outcomeUnknown` is true, the answer was lost and the transaction may be committed. `HF_INVALID_ARGUMENT` within an open
    /// transaction, and on a connection that a failed one broke.
    pub async fn pipelined_transaction(&self, doing: &str, steps: &[Step<'_>]) -> Result<Vec<u64>> {
        if self.in_transaction.load(Ordering::Relaxed) {
            // Its COMMIT would be the outer one's.
            let text = format!("{doing} failed: a pipelined transaction cannot be sent within another transaction");
            return Err(HfError::new(Code::InvalidArgument, text));
        }
        let call = Call::begin(self);
        let mut result = self.pipelined_once(doing, steps).await;
        if matches!(result, Err(Pipeline { stale: true, .. })) {
            steps.iter().for_each(|step| self.forget_statement(step.sql));
            result = self.pipelined_once(doing, steps).await;
        }
        call.end();
        result.map_err(|failed| failed.error)
    }

    async fn pipelined_once(&self, doing: &str, steps: &[Step<'_>]) -> std::result::Result<Vec<u64>, Pipeline> {
        // Together as well: what is not prepared yet costs one round trip more, not one each.
        let statements = try_join_all(steps.iter().enumerate().map(async |(index, step)| {
            if !self.caches() {
                return Ok(None);
            }
            let told = |failed: Failed| pg_error(doing, &failed.error).with_field("step", index);
            let prepared = self.prepared(step.sql, step.params).await;
            prepared.map(Some).map_err(|failed| Pipeline { error: told(failed), stale: false })
        }))
        .await?;
        let client = &self.connection.client;
        let mut sent: Vec<MaybeDone<Sent<'_>>> = Vec::with_capacity(steps.len() + 2);
        sent.push(MaybeDone::Future(Box::pin(async { client.batch_execute("BEGIN").await.map(|()| 0) })));
        for (step, statement) in steps.iter().zip(statements) {
            sent.push(MaybeDone::Future(Box::pin(async move {
                match statement {
                    Some(statement) => {
                        client.execute_raw(&statement, step.params.iter().map(|(value, _)| *value)).await
                    }
                    None => client.execute_typed(step.sql, step.params).await,
                }
            })));
        }
        self.in_transaction.store(true, Ordering::Relaxed);
        let end = |refused: bool| -> Sent<'_> {
            let end = if refused { "ROLLBACK" } else { "COMMIT" };
            Box::pin(async move { client.batch_execute(end).await.map(|()| 0) })
        };
        let mut answers = in_order(sent, end).await.into_iter();
        let (begin, commit) = (answers.next(), answers.next_back());
        let outcome = outcome(doing, begin, answers.collect(), commit);
        if outcome.ended {
            self.in_transaction.store(false, Ordering::Relaxed);
        }
        outcome.result
    }
}

struct Pipeline {
    error: HfError,
    /// Nothing happened, and preparing the statements again may help.
    stale: bool,
}

struct Outcome {
    result: std::result::Result<Vec<u64>, Pipeline>,
    /// The server has left the transaction.
    ended: bool,
}

/// Judges the answers of a pipelined transaction. Each message is followed by a synchronisation point, so that a failed
/// step does not keep the later messages from being run: after it they fail, and COMMIT rolls back.
fn outcome(doing: &str, begin: Option<Answer>, steps: Vec<Answer>, commit: Option<Answer>) -> Outcome {
    let ended = matches!(commit, Some(Ok(_)));
    let any_step = steps.iter().any(Answer::is_ok);
    // Without its BEGIN (cancelled at that very moment) each step was a transaction of its own.
    let unguarded = matches!(begin, Some(Err(_))) && any_step;
    let mut rows = Vec::with_capacity(steps.len());
    let mut failure = begin.and_then(Answer::err).map(|error| (error, None));
    for (index, answer) in steps.into_iter().enumerate() {
        match answer {
            Ok(count) => rows.push(count),
            Err(error) => failure = failure.or(Some((error, Some(index)))),
        }
    }
    let before_commit = failure.is_some();
    let failure = failure.or(commit.and_then(Answer::err).map(|error| (error, None)));
    let Some((error, index)) = failure else { return Outcome { result: Ok(rows), ended } };
    // What the server itself refuses before COMMIT, be it by ending the session, keeps COMMIT from committing.
    let lost = may_have_happened(&error) && !(before_commit && error.as_db_error().is_some());
    let mut made = pg_error(doing, &error);
    if let Some(index) = index {
        made = made.with_field("step", index);
    }
    let unknown = lost || unguarded;
    let stale = !unknown && is_stale_statement(&error);
    Outcome { result: Err(Pipeline { error: if unknown { unknown_outcome(made) } else { made }, stale }), ended }
}

/// Polls all at once, always in order: the first poll of each is what queues its message. A step whose values cannot be sent
/// fails in its first poll; `end` is told so, because committing the others would tear the transaction.
async fn in_order<'a>(mut sent: Vec<MaybeDone<Sent<'a>>>, end: impl FnOnce(bool) -> Sent<'a>) -> Vec<Answer> {
    let mut end = Some(end);
    poll_fn(|context| {
        let mut pending = false;
        for future in &mut sent {
            pending |= Pin::new(future).poll(context).is_pending();
        }
        if let Some(end) = end.take() {
            let refused = sent.iter().any(|done| matches!(done, MaybeDone::Done(Err(_))));
            let mut last = MaybeDone::Future(end(refused));
            pending |= Pin::new(&mut last).poll(context).is_pending();
            sent.push(last);
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    sent.iter_mut().filter_map(|done| Pin::new(done).take_output()).collect()
}
