//! One transaction, or one snapshot, on whichever database: the statements of this module are written once.
//!
//! Placeholders are `?1`, `?2` …; both databases know all that is used besides (`ON CONFLICT DO NOTHING`, `RETURNING`, `WITH
//! RECURSIVE`). Times are milliseconds since 1970.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use crate::error::{Code, HfError, Result};

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Int(i64),
    OptInt(Option<i64>),
    Text(&'a str),
    OptText(Option<&'a str>),
    Bytes(&'a [u8]),
}

/// A row of an answer; columns are counted from 0. A column that holds something else is `HF_CORRUPT`.
pub(crate) trait Row {
    fn opt_int(&self, column: usize) -> Result<Option<i64>>;
    fn opt_text(&self, column: usize) -> Result<Option<&str>>;
    fn bytes(&self, column: usize) -> Result<&[u8]>;

    fn int(&self, column: usize) -> Result<i64> {
        self.opt_int(column)?.ok_or_else(|| unreadable(column))
    }

    fn text(&self, column: usize) -> Result<&str> {
        self.opt_text(column)?.ok_or_else(|| unreadable(column))
    }

    fn string(&self, column: usize) -> Result<String> {
        self.text(column).map(str::to_owned)
    }

    fn opt_string(&self, column: usize) -> Result<Option<String>> {
        Ok(self.opt_text(column)?.map(str::to_owned))
    }
}

fn unreadable(column: usize) -> HfError {
    HfError::new(
        Code::Corrupt,
        format!("column {column} of an answer holds something else than belongs there; put back a backup"),
    )
}

/// What a row is handed to; `false` ends the reading.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&dyn Row) -> Result<bool>;

/// What a body is handed to, with the `seq` of its node; `None` where it is missing.
pub(crate) type EachBody<'a> = &'a mut dyn FnMut(i64, Result<Option<&str>>) -> Result<()>;

/// One transaction, or one snapshot.
pub(crate) trait Sql {
    /// Runs a statement; tells how many rows it changed. `doing` is for messages ("store a node").
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64>;

    /// Hands the rows of an answer to `each`.
    fn rows(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>], each: Each<'_>) -> Result<()>;

    /// Hands the bodies of these nodes to `each`, in this order.
    fn bodies(&mut self, seqs: &[i64], each: EachBody<'_>) -> Result<()>;

    /// Whether it is SQLite: one writer at a time, statements that cost next to nothing, and blobs that are found by a number, the
    /// beginning of their hash. Elsewhere statements whose answer nobody needs go out together: then one that says it all beats two of
    /// which the second depends on the answer to the first.
    fn is_embedded(&self) -> bool {
        false
    }

    /// The wall clock, in milliseconds since 1970.
    fn now(&mut self) -> Result<i64>;

    /// Runs a statement whose answer nobody needs. It may go out later, before the next question or with the commit, and its failure is
    /// told then.
    fn post(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<()> {
        self.run(doing, sql, params).map(drop)
    }

    /// Like [`post`](Self::post): where the database refuses with the SQLSTATE `state`, the error is `refusal`.
    fn post_or(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        _state: &'static str,
        _refusal: HfError,
    ) -> Result<()> {
        self.post(doing, sql, params)
    }

    /// Stores a row whose key must be new, else the error is `taken`; told when, as by [`post`](Self::post). `sql` ends with `ON CONFLICT DO
    /// NOTHING`.
    fn store_new(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        taken: &dyn Fn() -> HfError,
    ) -> Result<()> {
        if self.run(doing, sql, params)? == 0 { Err(taken()) } else { Ok(()) }
    }

    /// Says what is about to be read, so that it can be asked for together: `reads` makes the very calls that will follow, sees no rows,
    /// and what it returns is of no use. The answers hold until the next [`run`](Self::run), so who reads what it has posted itself must not
    /// have asked for it ahead. Nothing to do where asking costs nothing.
    fn ahead(&mut self, _reads: &mut dyn FnMut(&mut dyn Sql)) -> Result<()> {
        Ok(())
    }
}

/// Reads the first row of an answer.
pub(crate) fn first<T>(
    sql: &mut dyn Sql,
    doing: &'static str,
    statement: &'static str,
    params: &[Value<'_>],
    read: impl Fn(&dyn Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut found = None;
    sql.rows(doing, statement, params, &mut |row| {
        found = Some(read(row)?);
        Ok(false)
    })?;
    Ok(found)
}

/// Reads all rows of an answer.
pub(crate) fn all<T>(
    sql: &mut dyn Sql,
    doing: &'static str,
    statement: &'static str,
    params: &[Value<'_>],
    read: impl Fn(&dyn Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    sql.rows(doing, statement, params, &mut |row| {
        found.push(read(row)?);
        Ok(true)
    })?;
    Ok(found)
}
