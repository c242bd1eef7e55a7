//! A transaction of PostgreSQL, driven from a thread that may wait.
//!
//! A round trip to the server costs more than what it does, so few are made: what is about to be read is asked for together
//! ([`Sql::ahead`]), what needs no answer waits ([`Sql::post`]) for the next question or for COMMIT, and BEGIN goes out with the first of
//! all. The server runs what comes together one after the other: each statement sees what was committed when the one before it, be it a
//! lock, had ended.

mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use self::value::Kept;
use super::{Each, EachBody, Row, Sql, Value, unreadable};
use crate::error::{Code, HfError, Result};
use crate::postgres::types::Type;
use crate::postgres::{self, Ask, Param, Reply, Transaction};

/// Names the transaction once it has written or locked something, so that one whose COMMIT was not answered can be asked after.
const XID: &str = "SELECT txid_current_if_assigned()";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
/// Made of what fails if a row is there already where that is an error of its own: see [`Sql::store_new`].
const UNLESS_THERE: &str = "ON CONFLICT DO NOTHING";

/// A statement and its parameters.
type Asked = (Cow<'static, str>, Vec<Kept>);

/// A statement on its way.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    doing: &'static str,
    sql: Cow<'static, str>,
    params: Vec<Kept>,
    /// What a certain refusal of the server means.
    refusal: Option<(&'static str, HfError)>,
}

impl Statement {
    /// A statement with `?1` …
    pub(crate) fn new(doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Self {
        Self { doing, sql: numbered(sql), params: params.iter().map(Kept::of).collect(), refusal: None }
    }

    /// Adds a list of texts to the parameters.
    pub(crate) fn with_texts(mut self, texts: Option<Vec<String>>) -> Self {
        self.params.push(Kept::Texts(texts));
        self
    }

    /// Adds a list of numbers to the parameters.
    pub(crate) fn with_ints(mut self, ints: Vec<i64>) -> Self {
        self.params.push(Kept::Ints(ints));
        self
    }
}

/// Runs statements in a transaction; who made it ends it. For threads that are not the engine's own.
pub(crate) struct Pg<'a> {
    runtime: Handle,
    transaction: &'a Transaction,
    /// Goes out with the first statement.
    begin: Option<&'a str>,
    /// Turns true when nobody waits for the server any more.
    cut: watch::Receiver<bool>,
    /// Goes out with the next question.
    posted: Vec<Statement>,
    /// What was asked for before it was needed, until something else is written.
    ahead: HashMap<Asked, Arc<Vec<postgres::Row>>>,
    /// The server's time, once somebody asked.
    now: Option<i64>,
    xid: Option<i64>,
    /// Whether anything may be written.
    writes: bool,
    /// Whether there is a savepoint.
    saved: bool,
    /// Whether the lock that orders what is enqueued was taken.
    pub(crate) orders: bool,
}

/// Waits for `work`, unless it is `cut` off.
pub(crate) fn wait<T>(runtime: &Handle, mut cut: watch::Receiver<bool>, work: impl Future<Output = T>) -> Result<T> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = cut.wait_for(|cut| *cut) => Err(HfError::new(
                Code::Unavailable,
                "the session store was closed while the server did not answer",
            )),
        }
    })
}

impl<'a> Pg<'a> {
    /// Runs statements in `transaction`, which `begin` begins.
    pub(crate) fn new(
        runtime: Handle,
        cut: watch::Receiver<bool>,
        transaction: &'a Transaction,
        begin: &'a str,
    ) -> Self {
        Self {
            runtime,
            transaction,
            begin: Some(begin),
            cut,
            posted: Vec::new(),
            ahead: HashMap::new(),
            now: None,
            xid: None,
            writes: true,
            saved: false,
            orders: false,
        }
    }

    /// Says that nothing will be written.
    pub(crate) fn only_read(&mut self) {
        self.writes = false;
    }

    /// What names the transaction, once it has written something and that has reached the server.
    pub(crate) fn xid(&self) -> Option<i64> {
        self.xid
    }

    /// Begins the next command of a transaction: what the one before read or found out is forgotten.
    pub(crate) fn forget(&mut self) {
        self.ahead.clear();
        self.now = None;
    }

    /// Lets a statement go out with the next question; its answer is of no use, and its failure is told then.
    pub(crate) fn push(&mut self, statement: Statement) {
        self.posted.push(statement);
    }

    /// Sends all that waits.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.posted.is_empty() { Ok(()) } else { self.exchange(&[], false).map(drop) }
    }

    /// Makes a place to which [`undo`](Self::undo) goes back, instead of the last one.
    pub(crate) fn savepoint(&mut self) {
        if std::mem::replace(&mut self.saved, true) {
            self.push(Statement::new("go on", "RELEASE SAVEPOINT command", &[]));
        }
        self.push(Statement::new("go on", "SAVEPOINT command", &[]));
    }

    /// Undoes what was done since [`savepoint`](Self::savepoint), also after a statement that failed. Must follow an
    /// [`exchange`](Self::exchange), so that the savepoint is there.
    pub(crate) fn undo(&mut self) -> Result<()> {
        self.posted.clear();
        self.forget();
        self.exchange(&[Statement::new("undo a command", "ROLLBACK TO SAVEPOINT command", &[])], false).map(drop)
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_idle(&self) -> bool {
        self.posted.is_empty() && self.xid.is_none()
    }

    /// Commits, together with what waits. A transaction that has no name yet gets one first: without it nobody could find out what became
    /// of it.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.xid.is_none() {
            self.flush()?;
        }
        self.exchange(&[], true).map(drop)
    }

    /// Sends what waits and all that is `asked`; waits for all answers.
    pub(crate) fn exchange(&mut self, asked: &[Statement], commits: bool) -> Result<Vec<Reply>> {
        let posted = std::mem::take(&mut self.posted);
        let begin = self.begin.take();
        let wants_xid = self.writes && self.xid.is_none() && !commits;
        let xid = Statement::new("name the transaction", XID, &[]);
        let all: Vec<&Statement> = posted.iter().chain(asked).chain(wants_xid.then_some(&xid)).collect();
        let params: Vec<Vec<Param<'_>>> = all.iter().map(|one| one.params.iter().map(Kept::param).collect()).collect();
        let asks: Vec<Ask<'_>> =
            all.iter().zip(&params).map(|(one, params)| Ask { doing: one.doing, sql: &one.sql, params }).collect();
        let work = self.transaction.exchange(begin, &asks, commits);
        let waited = wait(&self.runtime, self.cut.clone(), work);
        let answered =
            waited.map_err(|error| if commits { error.with_field("outcomeUnknown", true) } else { error })?;
        let mut replies = answered.map_err(|broken| {
            let refused = broken.at.and_then(|at| all.get(at)).and_then(|one| one.refusal.as_ref());
            match refused {
                Some((state, refusal)) if broken.error.fields().get("sqlState").is_some_and(|s| s == state) => {
                    refusal.clone()
                }
                _ => broken.error,
            }
        })?;
        if wants_xid {
            let named = replies.pop().and_then(|reply| reply.rows.into_iter().next());
            self.xid = named.and_then(|row| row.try_get(0).ok()).flatten();
        }
        Ok(replies.split_off(posted.len()))
    }

    /// Asks one thing, or takes what was asked for ahead.
    fn fetch(&mut self, statement: Statement) -> Result<Arc<Vec<postgres::Row>>> {
        if !self.ahead.is_empty()
            && let Some(known) = self.ahead.get(&(statement.sql.clone(), statement.params.clone()))
        {
            return Ok(Arc::clone(known));
        }
        let mut replies = self.exchange(&[statement], false)?;
        Ok(Arc::new(replies.pop().map(|reply| reply.rows).unwrap_or_default()))
    }

    /// Asks one thing of which a row is read.
    pub(crate) fn read_now(rows: &[postgres::Row]) -> Result<i64> {
        rows.first().map_or_else(|| Err(unreadable(0)), |row| PgRow(row).int(0))
    }

    /// The question for the server's time.
    pub(crate) fn clock() -> Statement {
        Statement::new("read the clock", NOW, &[])
    }
}

/// `?1` → `$1`. No statement of this module holds a question mark otherwise.
fn numbered(sql: &'static str) -> Cow<'static, str> {
    if sql.contains('?') { Cow::Owned(sql.replace('?', "$")) } else { Cow::Borrowed(sql) }
}

/// A row of an answer.
pub(crate) struct PgRow<'a>(pub(crate) &'a postgres::Row);

impl Row for PgRow<'_> {
    fn opt_int(&self, column: usize) -> Result<Option<i64>> {
        let kind = self.0.columns().get(column).map(|column| column.type_().clone());
        // Lengths are of this type.
        if kind == Some(Type::INT4) {
            let number: Option<i32> = self.0.try_get(column).map_err(|_| unreadable(column))?;
            return Ok(number.map(i64::from));
        }
        self.0.try_get(column).map_err(|_| unreadable(column))
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>> {
        self.0.try_get(column).map_err(|_| unreadable(column))
    }

    fn bytes(&self, column: usize) -> Result<&[u8]> {
        self.0.try_get(column).map_err(|_| unreadable(column))
    }
}

impl Sql for Pg<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        self.ahead.clear();
        let replies = self.exchange(&[Statement::new(doing, sql, params)], false)?;
        Ok(replies.first().map_or(0, |reply| reply.changed))
    }

    fn rows(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>], each: Each<'_>) -> Result<()> {
        for row in self.fetch(Statement::new(doing, sql, params))?.iter() {
            if !each(&PgRow(row))? {
                break;
            }
        }
        Ok(())
    }

    fn bodies(&mut self, seqs: &[i64], each: EachBody<'_>) -> Result<()> {
        let sql = "SELECT w.seq, b.node_json FROM unnest($1::bigint[]) WITH ORDINALITY AS w (seq, place)
                   LEFT JOIN LATERAL (SELECT b.node_json FROM graph_bodies b WHERE b.seq = w.seq OFFSET 0) AS b ON true
                   ORDER BY w.place";
        let asked = Statement::new("read nodes", sql, &[]).with_ints(seqs.to_vec());
        for row in self.fetch(asked)?.iter() {
            let row = PgRow(row);
            each(row.int(0)?, row.opt_text(1))?;
        }
        Ok(())
    }

    fn now(&mut self) -> Result<i64> {
        if let Some(now) = self.now {
            return Ok(now);
        }
        let now = Self::read_now(&self.fetch(Self::clock())?)?;
        self.now = Some(now);
        Ok(now)
    }

    fn post(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<()> {
        self.push(Statement::new(doing, sql, params));
        Ok(())
    }

    fn post_or(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        state: &'static str,
        refusal: HfError,
    ) -> Result<()> {
        self.push(Statement { refusal: Some((state, refusal)), ..Statement::new(doing, sql, params) });
        Ok(())
    }

    fn store_new(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        taken: &dyn Fn() -> HfError,
    ) -> Result<()> {
        let statement = Statement::new(doing, sql, params);
        // The server itself refuses then, and COMMIT can go out without waiting for the answer.
        let sql = Cow::Owned(statement.sql.replace(UNLESS_THERE, ""));
        self.push(Statement { sql, refusal: Some(("23505", taken())), ..statement });
        Ok(())
    }

    fn ahead(&mut self, reads: &mut dyn FnMut(&mut dyn Sql)) -> Result<()> {
        let mut recorder = Recorder::default();
        reads(&mut recorder);
        let asked: Vec<Statement> = recorder.asked;
        let replies = self.exchange(&asked, false)?;
        let answers =
            asked.into_iter().map(|one| (one.sql, one.params)).zip(replies.into_iter().map(|one| Arc::new(one.rows)));
        self.ahead.extend(answers);
        Ok(())
    }
}

/// Takes down what is asked, and answers with nothing.
#[derive(Default)]
struct Recorder {
    asked: Vec<Statement>,
}

impl Sql for Recorder {
    fn run(&mut self, _doing: &'static str, _sql: &'static str, _params: &[Value<'_>]) -> Result<u64> {
        Ok(0)
    }

    fn rows(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>], _each: Each<'_>) -> Result<()> {
        self.asked.push(Statement::new(doing, sql, params));
        Ok(())
    }

    fn bodies(&mut self, _seqs: &[i64], _each: EachBody<'_>) -> Result<()> {
        Ok(())
    }

    fn now(&mut self) -> Result<i64> {
        self.asked.push(Pg::clock());
        Ok(0)
    }
}
