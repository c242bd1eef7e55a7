//! A transaction of PostgreSQL, driven from a thread that may wait.

use std::borrow::Cow;

use tokio::runtime::Handle;

use super::{Each, EachBody, Row, Sql, Value, unreadable};
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{self, Param, Transaction};

/// Runs statements in a transaction; who began it ends it. For threads that are not the engine's own.
pub(crate) struct Pg<'a> {
    runtime: Handle,
    transaction: &'a Transaction,
    /// The server's time, once somebody asked.
    now: Option<i64>,
}

impl<'a> Pg<'a> {
    /// Runs statements in `transaction`.
    pub(crate) fn new(runtime: Handle, transaction: &'a Transaction) -> Self {
        Self { runtime, transaction, now: None }
    }

    fn fetch(&self, doing: &str, sql: &str, params: &[Value<'_>]) -> Result<Vec<postgres::Row>> {
        let owned: Vec<Bound<'_>> = params.iter().map(Bound::of).collect();
        let params: Vec<Param<'_>> = owned.iter().map(Bound::param).collect();
        self.runtime.block_on(self.transaction.fetch(doing, &numbered(sql), &params))
    }
}

/// A value as the driver wants it.
enum Bound<'a> {
    Int(Option<i64>),
    Text(Option<Cow<'a, str>>),
    Bytes(&'a [u8]),
}

impl<'a> Bound<'a> {
    fn of(value: &Value<'a>) -> Self {
        match *value {
            Value::Int(number) => Self::Int(Some(number)),
            Value::OptInt(number) => Self::Int(number),
            Value::Text(text) => Self::Text(Some(storable(text))),
            Value::OptText(text) => Self::Text(text.map(storable)),
            Value::Bytes(bytes) => Self::Bytes(bytes),
        }
    }

    fn param(&self) -> Param<'_> {
        match self {
            Self::Int(number) => (number as &(dyn ToSql + Sync), Type::INT8),
            Self::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
            Self::Bytes(bytes) => (bytes as &(dyn ToSql + Sync), Type::BYTEA),
        }
    }
}

/// What PostgreSQL can hold of a text: everything but U+0000, which becomes U+FFFD. No id has one, and JSON has it escaped.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// `?1` → `$1`. No statement of this module holds a question mark otherwise.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

struct PgRow<'a>(&'a postgres::Row);

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
        let owned: Vec<Bound<'_>> = params.iter().map(Bound::of).collect();
        let params: Vec<Param<'_>> = owned.iter().map(Bound::param).collect();
        self.runtime.block_on(self.transaction.run(doing, &numbered(sql), &params))
    }

    fn rows(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>], each: Each<'_>) -> Result<()> {
        for row in &self.fetch(doing, sql, params)? {
            if !each(&PgRow(row))? {
                break;
            }
        }
        Ok(())
    }

    fn bodies(&mut self, seqs: &[i64], each: EachBody<'_>) -> Result<()> {
        let sql = "SELECT w.seq, b.node_json FROM unnest($1::bigint[]) WITH ORDINALITY AS w (seq, place)
                   LEFT JOIN graph_bodies b ON b.seq = w.seq ORDER BY w.place";
        let param: Param<'_> = (&seqs as &(dyn ToSql + Sync), Type::INT8_ARRAY);
        for row in &self.runtime.block_on(self.transaction.fetch("read nodes", sql, &[param]))? {
            let row = PgRow(row);
            each(row.int(0)?, row.opt_text(1))?;
        }
        Ok(())
    }

    fn now(&mut self) -> Result<i64> {
        if let Some(now) = self.now {
            return Ok(now);
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let rows = self.fetch("read the clock", sql, &[])?;
        let now = rows.first().map_or_else(|| Err(unreadable(0)), |row| PgRow(row).int(0))?;
        self.now = Some(now);
        Ok(now)
    }
}
