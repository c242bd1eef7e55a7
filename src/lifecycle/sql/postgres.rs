//! A transaction of PostgreSQL, driven from a thread that may wait.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use futures_util::future::{join, join_all};
use tokio::runtime::Handle;

use super::ahead::{Asked, Kept, Recorder};
use super::{Row, Sql, Value};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::check::constraint;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{self, Param, Transaction};

/// Takes a lock, which the transaction keeps. Not FOR UPDATE, which writes to the row: what changes nothing should cost no flush.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ?1, 7465746))";

/// So many sets of one statement go out together.
const TOGETHER: usize = 30;

/// Runs statements in a transaction; who began it ends it. For threads that are not the engine's own.
///
/// A lock goes out together with the statement after it, and so do the sets of one statement: a round trip to the server costs more
/// than what it does. The server runs them one after the other, so each sees what was committed when the lock before it was had.
pub struct Pg<'a> {
    runtime: Handle,
    transaction: &'a Transaction,
    changed: u64,
    /// Locks that the transaction has, or is about to have.
    locks: HashSet<String>,
    /// Those of them that go out with the next statement.
    queued: Vec<String>,
    /// What was asked for before it was needed. A write makes it old.
    ahead: HashMap<Asked, Vec<postgres::Row>>,
}

impl<'a> Pg<'a> {
    /// Runs statements in `transaction`.
    #[must_use]
    pub fn new(runtime: Handle, transaction: &'a Transaction) -> Self {
        Self { runtime, transaction, changed: 0, locks: HashSet::new(), queued: Vec::new(), ahead: HashMap::new() }
    }

    /// Rows that were changed so far.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Sends the locks that wait, and all that is `asked`; waits for all answers. Nothing is left without its answer, even if the first
    /// failed: a connection with one under way is of no use to anybody.
    fn together<T>(
        &mut self,
        doing: &str,
        asked: &[(&str, Vec<Value<'_>>)],
        ask: impl AsyncFn(&str, &[Param<'_>]) -> Result<T>,
    ) -> Result<Vec<T>> {
        let lock = numbered(LOCK);
        let names: Vec<Bound<'_>> = self.queued.iter().map(|name| Bound::of(&Value::Text(name))).collect();
        let names: Vec<[Param<'_>; 1]> = names.iter().map(|name| [name.param()]).collect();
        let asked: Vec<(String, Vec<Bound<'_>>)> =
            asked.iter().map(|(sql, set)| (numbered(sql), set.iter().map(Bound::of).collect())).collect();
        let asked: Vec<(&str, Vec<Param<'_>>)> =
            asked.iter().map(|(sql, set)| (sql.as_str(), set.iter().map(Bound::param).collect())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (at, asked) in asked.chunks(TOGETHER).enumerate() {
            let names = if at == 0 { names.as_slice() } else { &[] };
            let answered = self.runtime.block_on(async {
                // Messages leave in this order only if nothing has to be prepared first.
                if let Some(name) = names.first() {
                    self.transaction.prepare(doing, &lock, name).await?;
                }
                let mut last = "";
                for (sql, params) in asked.iter().filter(|(sql, _)| *sql != std::mem::replace(&mut last, sql)) {
                    self.transaction.prepare(doing, sql, params).await?;
                }
                let locks = join_all(names.iter().map(|name| self.transaction.fetch("wait for a lock", &lock, name)));
                let (locks, answers) = join(locks, join_all(asked.iter().map(|(sql, set)| ask(sql, set)))).await;
                locks.into_iter().collect::<Result<Vec<_>>>()?;
                answers.into_iter().collect::<Result<Vec<T>>>()
            });
            answers.extend(answered.map_err(|error| told(doing, error))?);
        }
        self.queued.clear();
        Ok(answers)
    }

    /// The rows of each set, if all of them were asked for ahead.
    fn known(&self, sql: &'static str, sets: &[Vec<Value<'_>>]) -> Option<Vec<&Vec<postgres::Row>>> {
        if self.ahead.is_empty() {
            return None;
        }
        sets.iter().map(|set| self.ahead.get(&(sql, set.iter().map(Kept::of).collect()))).collect()
    }

    fn lock(&mut self, name: String) {
        if self.locks.insert(name.clone()) {
            self.queued.push(name);
        }
    }
}

/// A value as the driver wants it.
enum Bound<'a> {
    Int(Option<i64>),
    Text(Option<Cow<'a, str>>),
}

impl<'a> Bound<'a> {
    fn of(value: &Value<'a>) -> Self {
        match *value {
            Value::Int(number) => Self::Int(Some(number)),
            Value::OptInt(number) => Self::Int(number),
            Value::Text(text) => Self::Text(Some(storable(text))),
            Value::OptText(text) => Self::Text(text.map(storable)),
        }
    }

    fn param(&self) -> Param<'_> {
        match self {
            Self::Int(number) => (number as &(dyn ToSql + Sync), Type::INT8),
            Self::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
        }
    }
}

/// What PostgreSQL can hold of a text: everything but U+0000, which becomes U+FFFD.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// `?1` → `$1`. No statement of this module holds a question mark otherwise.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

/// Makes the error of a statement, or of a commit; one that breaks a rule of a table names it.
#[must_use]
pub fn told(doing: &str, error: HfError) -> HfError {
    let field = |name: &str| error.fields().get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let rule = match field("sqlState") {
        "23514" => "check",
        "23503" => "foreign_key",
        "23502" => "not_null",
        "23505" => "unique",
        _ => return error,
    };
    // Constraints are called after what they protect: "pr.ci_state", keys "pr.url.key".
    let (table, column) = match field("constraint").split_once('.') {
        Some((table, column)) => (table, column.trim_end_matches(".key")),
        None => (field("table"), field("column")),
    };
    constraint(table, column, rule, super::broken(doing, table, column, rule)).with_field("sqlState", field("sqlState"))
}

struct PgRow<'a>(&'a postgres::Row);

impl Row for PgRow<'_> {
    fn int(&self, column: usize) -> Result<i64> {
        self.opt_int(column)?.ok_or_else(|| unreadable(column))
    }

    fn opt_int(&self, column: usize) -> Result<Option<i64>> {
        let kind = self.0.columns().get(column).map(|column| column.type_().clone());
        // A number that stands in the statement itself is an `int4`.
        if kind == Some(Type::INT4) {
            let number: Option<i32> = self.0.try_get(column).map_err(|_| unreadable(column))?;
            return Ok(number.map(i64::from));
        }
        self.0.try_get(column).map_err(|_| unreadable(column))
    }

    fn text(&self, column: usize) -> Result<&str> {
        self.opt_text(column)?.ok_or_else(|| unreadable(column))
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>> {
        self.0.try_get(column).map_err(|_| unreadable(column))
    }
}

fn unreadable(column: usize) -> HfError {
    HfError::new(
        Code::Corrupt,
        format!("column {column} of an answer holds something else than belongs there; were the tables altered?"),
    )
}

/// Hands out the rows of each set, with its place.
fn each_row<'r>(
    found: impl Iterator<Item = &'r Vec<postgres::Row>>,
    each: &mut dyn FnMut(usize, &dyn Row) -> Result<()>,
) -> Result<()> {
    found.enumerate().try_for_each(|(set, rows)| rows.iter().try_for_each(|row| each(set, &PgRow(row))))
}

impl Sql for Pg<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        self.run_each(doing, sql, &[params.to_vec()]).map(|changed| changed.into_iter().sum())
    }

    fn rows(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()> {
        self.rows_each(doing, sql, &[params.to_vec()], &mut |_, row| each(row))
    }

    fn run_each(&mut self, doing: &'static str, sql: &'static str, sets: &[Vec<Value<'_>>]) -> Result<Vec<u64>> {
        let transaction = self.transaction;
        let asked: Vec<_> = sets.iter().map(|set| (sql, set.clone())).collect();
        if !asked.is_empty() {
            self.ahead.clear();
        }
        let changed = self.together(doing, &asked, async |sql, params| transaction.run(doing, sql, params).await)?;
        self.changed += changed.iter().sum::<u64>();
        Ok(changed)
    }

    fn rows_each(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        sets: &[Vec<Value<'_>>],
        each: &mut dyn FnMut(usize, &dyn Row) -> Result<()>,
    ) -> Result<()> {
        if let Some(known) = self.known(sql, sets) {
            return each_row(known.into_iter(), each);
        }
        let transaction = self.transaction;
        let asked: Vec<_> = sets.iter().map(|set| (sql, set.clone())).collect();
        let found = self.together(doing, &asked, async |sql, params| transaction.fetch(doing, sql, params).await)?;
        each_row(found.iter(), each)
    }

    fn ahead(&mut self, reads: &mut dyn FnMut(&mut dyn Sql)) -> Result<()> {
        let mut recorder = Recorder::default();
        reads(&mut recorder);
        for id in &recorder.sessions {
            self.lock_session(id)?;
        }
        for url in &recorder.prs {
            self.lock_pr(url)?;
        }
        let asked: Vec<_> =
            recorder.asked.iter().map(|(sql, set)| (*sql, set.iter().map(Kept::value).collect())).collect();
        let (transaction, doing) = (self.transaction, "read what is stored");
        let found = self.together(doing, &asked, async |sql, params| transaction.fetch(doing, sql, params).await)?;
        self.ahead.extend(recorder.asked.into_iter().zip(found));
        Ok(())
    }

    fn lock_session(&mut self, id: &str) -> Result<()> {
        self.lock(format!(" session {id}"));
        Ok(())
    }

    fn lock_pr(&mut self, url: &str) -> Result<()> {
        self.lock(format!(" pr {url}"));
        Ok(())
    }

    fn lock_retention(&mut self) -> Result<()> {
        self.lock(" retention".to_owned());
        Ok(())
    }
}
