//! One round trip within a transaction: its beginning, statements and its end go out together.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::Poll;

use futures_util::TryStreamExt;
use futures_util::future::MaybeDone;
use tokio_postgres::{Row, Statement};

use super::client::{Call, Client, Param};
use super::failure::{is_stale_statement, may_have_happened, pg_error, unknown_outcome};
use super::transaction::Transaction;
use crate::error::HfError;

/// A statement of an [`exchange`](Transaction::exchange).
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What it is good for, for messages ("storing a node").
    pub doing: &'a str,
    /// SQL with `$1` …
    pub sql: &'a str,
    /// Its values and their types.
    pub params: &'a [Param<'a>],
}

/// What the server answered to a statement.
#[derive(Debug, Default)]
pub struct Reply {
    /// Rows that it returned.
    pub rows: Vec<Row>,
    /// How many rows it changed, or returned.
    pub changed: u64,
}

/// Why an exchange failed.
#[derive(Debug)]
pub struct Broken {
    /// The place of the statement that failed; none: the beginning or the commit.
    pub at: Option<usize>,
    /// What it said. `outcomeUnknown: true` where the answer to a commit was lost.
    pub error: HfError,
}

type Answer = Result<Reply, tokio_postgres::Error>;
type Sent<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

impl Transaction {
    /// Sends `begin` (for a transaction of [`unbegun`](super::Postgres::unbegun)), all of `asks` and, if `commits`, COMMIT at once, and
    /// waits for all answers: one round trip, once the statements are prepared. Each statement sees what was committed when those before
    /// it had ended, locks included. After a statement that failed none takes effect, and nothing is committed.
    ///
    /// # Errors
    /// That of the first that failed. The transaction can then only be rolled back, to a savepoint or as a whole.
    pub async fn exchange(&self, begin: Option<&str>, asks: &[Ask<'_>], commits: bool) -> Result<Vec<Reply>, Broken> {
        let call = Call::begin(self);
        let answers = self.exchanged(begin, asks, commits).await;
        call.end();
        answers
    }

    async fn exchanged(&self, begin: Option<&str>, asks: &[Ask<'_>], commits: bool) -> Result<Vec<Reply>, Broken> {
        let mut begin = begin;
        let mut prepared: Vec<Option<Statement>> = Vec::with_capacity(asks.len());
        for (at, ask) in asks.iter().enumerate() {
            if self.caches() && !self.is_prepared(ask.sql) {
                // What has to be prepared first must find the transaction begun: the beginning says where tables are looked for.
                if let Some(begin) = begin.take() {
                    self.script("beginning a transaction", begin).await.map_err(|error| Broken { at: None, error })?;
                }
            }
            prepared.push(if self.caches() {
                let statement = self.prepared(ask.sql, ask.params).await;
                Some(statement.map_err(|failed| Broken { at: Some(at), error: pg_error(ask.doing, &failed.error) })?)
            } else {
                None
            });
        }
        let client: &tokio_postgres::Client = self;
        let (first, has_begin) = (begin, begin.is_some());
        let mut sent: Vec<MaybeDone<Sent<'_>>> = Vec::with_capacity(asks.len() + 2);
        let script = |sql: &'static str| async move { client.batch_execute(sql).await.map(|()| Reply::default()) };
        if let Some(begin) = first {
            sent.push(MaybeDone::Future(Box::pin(async move {
                client.batch_execute(begin).await.map(|()| Reply::default())
            })));
        }
        for (ask, statement) in asks.iter().zip(prepared) {
            sent.push(MaybeDone::Future(Box::pin(one(client, *ask, statement))));
        }
        let end = |refused: bool| -> Option<Sent<'_>> {
            // SELECT fails in a transaction in which something failed, and keeps COMMIT from being answered with success.
            commits.then(|| -> Sent<'_> { Box::pin(script(if refused { "ROLLBACK" } else { "SELECT; COMMIT" })) })
        };
        let mut answers = in_order(sent, end).await;
        let committed = if commits { answers.pop() } else { None };
        let begun = if has_begin { Some(answers.remove(0)) } else { None };
        // Without its beginning (cancelled at that very moment) each statement was a transaction of its own.
        let unguarded = matches!(begun, Some(Err(_))) && answers.iter().any(Answer::is_ok);
        let mut failure = begun.and_then(Answer::err).map(|error| (error, None));
        let mut replies = Vec::with_capacity(answers.len());
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(reply) => replies.push(reply),
                Err(error) => failure = failure.or(Some((error, Some(at)))),
            }
        }
        let before_commit = failure.is_some();
        if matches!(committed, Some(Ok(_))) {
            self.in_transaction.store(false, Ordering::Relaxed);
        }
        let failure = failure.or(committed.and_then(Answer::err).map(|error| (error, None)));
        let Some((error, at)) = failure else { return Ok(replies) };
        let ask = at.and_then(|at| asks.get(at));
        let mut made =
            pg_error(ask.map_or(if before_commit { "beginning" } else { "committing" }, |ask| ask.doing), &error);
        if is_stale_statement(&error) {
            asks.iter().for_each(|ask| self.forget_statement(ask.sql));
            made = made.with_field("retryable", true);
        }
        // What the server itself refuses before COMMIT, be it by ending the session, keeps COMMIT from committing.
        let lost = commits && may_have_happened(&error) && !(before_commit && error.as_db_error().is_some());
        Err(Broken { at, error: if lost || unguarded { unknown_outcome(made) } else { made } })
    }
}

impl Client {
    fn is_prepared(&self, sql: &str) -> bool {
        self.connection.statements.lock().unwrap_or_else(PoisonError::into_inner).contains_key(sql)
    }
}

async fn one(client: &tokio_postgres::Client, ask: Ask<'_>, statement: Option<Statement>) -> Answer {
    let stream = match &statement {
        Some(statement) => client.query_raw(statement, ask.params.iter().map(|(value, _)| *value)).await?,
        None => {
            let typed = ask.params.iter().map(|(value, kind)| (*value, kind.clone()));
            client.query_typed_raw(ask.sql, typed).await?
        }
    };
    let mut stream = pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.as_mut().try_next().await? {
        rows.push(row);
    }
    Ok(Reply { rows, changed: stream.rows_affected().unwrap_or(0) })
}

/// Polls all at once, always in order: the first poll of each is what queues its message. A statement whose values cannot be sent
/// fails in its first poll; `end` is told so, because committing the others would tear the transaction.
async fn in_order<'a>(mut sent: Vec<MaybeDone<Sent<'a>>>, end: impl FnOnce(bool) -> Option<Sent<'a>>) -> Vec<Answer> {
    let mut end = Some(end);
    poll_fn(|context| {
        let mut pending = false;
        for future in &mut sent {
            pending |= Pin::new(future).poll(context).is_pending();
        }
        if let Some(end) = end.take() {
            let refused = sent.iter().any(|done| matches!(done, MaybeDone::Done(Err(_))));
            if let Some(last) = end(refused) {
                let mut last = MaybeDone::Future(last);
                pending |= Pin::new(&mut last).poll(context).is_pending();
                sent.push(last);
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    sent.iter_mut().filter_map(|done| Pin::new(done).take_output()).collect()
}
