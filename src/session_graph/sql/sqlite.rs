//! A transaction of SQLite.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::{Each, EachBody, Row, Sql, Value, unreadable};
use crate::clock;
use crate::error::{Code, HfError, Result};
use crate::sqlite::sql_error;

/// Runs statements on a connection; who made the connection begins and ends the transaction.
#[derive(Debug)]
pub(crate) struct Sqlite<'a>(pub(crate) &'a Connection);

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Int(number) | Value::OptInt(Some(number)) => ValueRef::Integer(*number),
            Value::Text(text) | Value::OptText(Some(text)) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::OptInt(None) | Value::OptText(None) => ValueRef::Null,
        }))
    }
}

impl Row for rusqlite::Row<'_> {
    fn opt_int(&self, column: usize) -> Result<Option<i64>> {
        self.get_ref(column).ok().and_then(|value| value.as_i64_or_null().ok()).ok_or_else(|| unreadable(column))
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>> {
        self.get_ref(column).ok().and_then(|value| value.as_str_or_null().ok()).ok_or_else(|| unreadable(column))
    }

    fn bytes(&self, column: usize) -> Result<&[u8]> {
        self.get_ref(column).ok().and_then(|value| value.as_blob().ok()).ok_or_else(|| unreadable(column))
    }
}

impl Sql for Sqlite<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        let run = || self.0.prepare_cached(sql)?.execute(params_from_iter(params));
        run().map(|changed| changed as u64).map_err(|error| told(doing, error))
    }

    fn rows(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>], each: Each<'_>) -> Result<()> {
        let failed = |error| told(doing, error);
        let mut statement = self.0.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(params)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    fn bodies(&mut self, seqs: &[i64], each: EachBody<'_>) -> Result<()> {
        let failed = |error| told("read nodes", error);
        let sql = "SELECT node_json FROM graph_bodies WHERE seq = ?1";
        let mut statement = self.0.prepare_cached(sql).map_err(failed)?;
        for seq in seqs {
            let mut rows = statement.query([seq]).map_err(failed)?;
            match rows.next().map_err(failed)? {
                Some(row) => each(*seq, row.text(0).map(Some))?,
                None => each(*seq, Ok(None))?,
            }
        }
        Ok(())
    }

    fn beginning(
        &mut self,
        doing: &'static str,
        (table, column): (&'static str, &'static str),
        row: i64,
        count: usize,
    ) -> Result<Vec<u8>> {
        let read = || {
            let blob = self.0.blob_open(rusqlite::MAIN_DB, table, column, row, true)?;
            let mut bytes = vec![0; count.min(blob.len())];
            blob.read_at_exact(&mut bytes, 0)?;
            Ok(bytes)
        };
        read().map_err(|error| told(doing, error))
    }

    fn is_embedded(&self) -> bool {
        true
    }

    fn now(&mut self) -> Result<i64> {
        Ok(i64::try_from(clock::epoch_ms()).unwrap_or(i64::MAX))
    }
}

/// Makes the error of a statement.
fn told(doing: &str, error: rusqlite::Error) -> HfError {
    use rusqlite::ffi;
    let missing = match &error {
        rusqlite::Error::SqliteFailure(_, Some(message)) | rusqlite::Error::SqlInputError { msg: message, .. } => {
            Some(message).filter(|message| message.starts_with("no such "))
        }
        _ => None,
    };
    match missing {
        Some(message) => {
            let text = format!(
                "{doing}: the database lacks what it had when it was opened ({message}); was the file cut or replaced? Close \
                 the store, keep a copy of the file, and put back a backup"
            );
            HfError::new(Code::Corrupt, text).with_field("sqliteCode", ffi::SQLITE_ERROR)
        }
        None => sql_error(doing, error),
    }
}
