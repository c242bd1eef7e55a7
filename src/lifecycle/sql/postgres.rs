//! A transaction of PostgreSQL, driven from a thread that may wait.

use std::borrow::Cow;

use tokio::runtime::Handle;

use super::{Row, Sql, Value};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::check::constraint;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{self, Param, Transaction};

/// Runs statements in a transaction; who began it ends it. For threads that are not the engine's own.
pub struct Pg<'a> {
    runtime: Handle,
    transaction: &'a Transaction,
    changed: u64,
}

impl<'a> Pg<'a> {
    /// Runs statements in `transaction`.
    #[must_use]
    pub fn new(runtime: Handle, transaction: &'a Transaction) -> Self {
        Self { runtime, transaction, changed: 0 }
    }

    /// Rows that were changed so far.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.changed
    }

    fn fetch(&self, doing: &str, sql: &str, params: &[Value<'_>]) -> Result<Vec<postgres::Row>> {
        let owned: Vec<Bound<'_>> = params.iter().map(Bound::of).collect();
        let params: Vec<Param<'_>> = owned.iter().map(Bound::param).collect();
        let found = self.runtime.block_on(self.transaction.fetch(doing, &numbered(sql), &params));
        found.map_err(|error| told(doing, error))
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

impl Sql for Pg<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        let owned: Vec<Bound<'_>> = params.iter().map(Bound::of).collect();
        let params: Vec<Param<'_>> = owned.iter().map(Bound::param).collect();
        let changed = self.runtime.block_on(self.transaction.run(doing, &numbered(sql), &params));
        let changed = changed.map_err(|error| told(doing, error))?;
        self.changed += changed;
        Ok(changed)
    }

    fn rows(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()> {
        self.fetch(doing, sql, params)?.iter().try_for_each(|row| each(&PgRow(row)))
    }

    fn lock_session(&mut self, id: &str) -> Result<()> {
        // Not FOR UPDATE, which writes to the row: what changes nothing should cost no flush.
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' session ' || ?1, 7465746))";
        self.fetch("lock a session", sql, &[Value::Text(id)]).map(drop)
    }

    fn lock_pr(&mut self, url: &str) -> Result<()> {
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' pr ' || ?1, 7465746))";
        self.fetch("lock a pull request", sql, &[Value::Text(url)]).map(drop)
    }

    fn lock_retention(&mut self) -> Result<()> {
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' retention', 7465746))";
        self.fetch("lock the retention of changes", sql, &[]).map(drop)
    }
}
