//! One transaction, or one snapshot, on whichever database: the statements of this module are written once.
//!
//! Placeholders are `?1`, `?2` …; both databases know all that is used besides (`ON CONFLICT`, `RETURNING`, `IS DISTINCT
//! FROM`). Booleans are 0 and 1, times are texts of 24 characters.

mod ahead;
pub mod postgres;
pub mod sqlite;

use crate::error::Result;

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Int(i64),
    /// A number, or NULL.
    OptInt(Option<i64>),
    /// A text.
    Text(&'a str),
    /// A text, or NULL.
    OptText(Option<&'a str>),
}

/// A row of an answer; columns are counted from 0.
pub trait Row {
    /// A number.
    ///
    /// # Errors
    /// `HF_CORRUPT` if the column holds something else.
    fn int(&self, column: usize) -> Result<i64>;

    /// A number, or NULL.
    ///
    /// # Errors
    /// As [`Row::int`].
    fn opt_int(&self, column: usize) -> Result<Option<i64>>;

    /// A text.
    ///
    /// # Errors
    /// As [`Row::int`].
    fn text(&self, column: usize) -> Result<&str>;

    /// A text, or NULL.
    ///
    /// # Errors
    /// As [`Row::int`].
    fn opt_text(&self, column: usize) -> Result<Option<&str>>;
}

/// One transaction, or one snapshot.
pub trait Sql {
    /// Runs a statement; tells how many rows it changed. `doing` is for messages ("store a session").
    ///
    /// # Errors
    /// What the database says. A broken constraint is [`crate::error::Code::LifecycleConstraint`].
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64>;

    /// Hands every row of an answer to `each`.
    ///
    /// # Errors
    /// What the database says, and what `each` says, which ends it.
    fn rows(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()>;

    /// Runs a statement once for each of `sets`, in their order; tells how many rows each changed.
    ///
    /// # Errors
    /// As [`Sql::run`]: that of the first that failed.
    fn run_each(&mut self, doing: &'static str, sql: &'static str, sets: &[Vec<Value<'_>>]) -> Result<Vec<u64>> {
        sets.iter().map(|params| self.run(doing, sql, params)).collect()
    }

    /// Asks a statement once for each of `sets`, in their order; hands every row to `each`, with the place of its set.
    ///
    /// # Errors
    /// As [`Sql::rows`]: that of the first that failed.
    fn rows_each(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        sets: &[Vec<Value<'_>>],
        each: &mut dyn FnMut(usize, &dyn Row) -> Result<()>,
    ) -> Result<()> {
        sets.iter().enumerate().try_for_each(|(set, params)| self.rows(doing, sql, params, &mut |row| each(set, row)))
    }

    /// Says what is about to be read, so that it can be asked for together. `reads` takes the locks and makes the very calls that will follow; it
    /// sees no rows, and what it returns is of no use. The answers hold until the next write of this transaction. Nothing to do where
    /// asking costs nothing.
    ///
    /// # Errors
    /// As [`Sql::rows`].
    fn ahead(&mut self, _reads: &mut dyn FnMut(&mut dyn Sql)) -> Result<()> {
        Ok(())
    }

    /// Keeps all others from writing the session `id` until the transaction ends. Nothing to do where there is one writer.
    ///
    /// # Errors
    /// What the database says.
    fn lock_session(&mut self, id: &str) -> Result<()>;

    /// Keeps all others from writing the pull request `url`, its checks and its comments until the transaction ends. Who locks a
    /// session as well does that first. Nothing to do where there is one writer.
    ///
    /// # Errors
    /// What the database says.
    fn lock_pr(&mut self, url: &str) -> Result<()>;

    /// Keeps all others from removing changes and from registering consumers until the transaction ends. Nothing to do where there
    /// is one writer.
    ///
    /// # Errors
    /// What the database says.
    fn lock_retention(&mut self) -> Result<()>;
}

/// What is said of a rule that a statement broke.
fn broken(doing: &str, table: &str, column: &str, rule: &str) -> String {
    let what = match rule {
        "foreign_key" => "refers to something that does not exist",
        "unique" => "exists already",
        "not_null" => "is missing",
        _ => "holds something that is not allowed",
    };
    let place = if column.is_empty() { table.to_owned() } else { format!("{table}.{column}") };
    format!("{doing}: {place} {what}; nothing was changed")
}
