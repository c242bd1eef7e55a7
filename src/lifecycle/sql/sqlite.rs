//! A transaction of SQLite.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::{Row, Sql, Value};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::check::constraint;
use crate::sqlite::sql_error;

/// Runs statements on a connection; who made the connection begins and ends the transaction.
#[derive(Debug)]
pub struct Sqlite<'a>(pub &'a Connection);

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Int(number) | Value::OptInt(Some(number)) => ValueRef::Integer(*number),
            Value::Text(text) | Value::OptText(Some(text)) => ValueRef::Text(text.as_bytes()),
            Value::OptInt(None) | Value::OptText(None) => ValueRef::Null,
        }))
    }
}

impl Row for rusqlite::Row<'_> {
    fn int(&self, column: usize) -> Result<i64> {
        self.opt_int(column)?.ok_or_else(|| unreadable(column))
    }

    fn opt_int(&self, column: usize) -> Result<Option<i64>> {
        self.get_ref(column).ok().and_then(|value| value.as_i64_or_null().ok()).ok_or_else(|| unreadable(column))
    }

    fn text(&self, column: usize) -> Result<&str> {
        self.opt_text(column)?.ok_or_else(|| unreadable(column))
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>> {
        self.get_ref(column).ok().and_then(|value| value.as_str_or_null().ok()).ok_or_else(|| unreadable(column))
    }
}

fn unreadable(column: usize) -> HfError {
    HfError::new(
        Code::Corrupt,
        format!("column {column} of an answer holds something else than belongs there; restore a backup"),
    )
}

impl Sql for Sqlite<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        let run = || self.0.prepare_cached(sql)?.execute(params_from_iter(params));
        run().map(|changed| changed as u64).map_err(|error| told(doing, sql, error))
    }

    fn rows(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()> {
        let failed = |error| told(doing, sql, error);
        let mut statement = self.0.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(params)).map_err(failed)?;
        // To the end: a statement that writes and answers is only then done.
        while let Some(row) = rows.next().map_err(failed)? {
            each(row)?;
        }
        Ok(())
    }

    fn lock_session(&mut self, _id: &str) -> Result<()> {
        Ok(())
    }

    fn lock_pr(&mut self, _url: &str) -> Result<()> {
        Ok(())
    }

    fn lock_retention(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Makes the error of a statement; one that breaks a rule of a table names it.
fn told(doing: &str, sql: &str, error: rusqlite::Error) -> HfError {
    use rusqlite::ffi;
    let broken = match &error {
        rusqlite::Error::SqliteFailure(source, message) if source.extended_code & 0xff == ffi::SQLITE_CONSTRAINT => {
            Some((source.extended_code, message.clone().unwrap_or_default()))
        }
        _ => None,
    };
    let missing = match &error {
        rusqlite::Error::SqliteFailure(_, Some(message)) | rusqlite::Error::SqlInputError { msg: message, .. } => {
            Some(message).filter(|message| message.starts_with("no such "))
        }
        _ => None,
    };
    if let Some(message) = missing {
        let text = format!(
            "{doing}: the database lacks what it had when it was opened ({message}); was the file cut or replaced? Close the \
             store, keep a copy of the file, and put back a backup"
        );
        return HfError::new(Code::Corrupt, text).with_field("sqliteCode", ffi::SQLITE_ERROR);
    }
    let made = sql_error(doing, error);
    let Some((code, message)) = broken else { return made };
    // "CHECK constraint failed: pr.ci_state", "UNIQUE constraint failed: sessions.id, …", "FOREIGN KEY constraint failed"
    let name = message.split_once("failed: ").map_or("", |(_, name)| name);
    let name = name.split(',').next().unwrap_or_default().trim();
    let (table, column) = match name.split_once('.') {
        Some((table, column)) => (table, column),
        None => (table_of(sql), ""),
    };
    let rule = match code {
        ffi::SQLITE_CONSTRAINT_CHECK => "check",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "foreign_key",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "not_null",
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => "unique",
        _ => return made,
    };
    let column = if rule == "foreign_key" { reference_of(table) } else { column };
    constraint(table, column, rule, super::broken(doing, table, column, rule)).with_field("sqliteCode", code)
}

fn table_of(sql: &str) -> &str {
    let mut words = sql.split_ascii_whitespace();
    let found = words.find(|word| ["INTO", "UPDATE", "FROM"].contains(word));
    found.and_then(|_| words.next()).unwrap_or("")
}

/// SQLite does not say which reference leads nowhere; each table has but one that can.
fn reference_of(table: &str) -> &'static str {
    match table {
        "sessions" | "change_log" | "session_key" | "reaction_policy" => "project_id",
        "pr_checks" | "pr_comment" => "pr_url",
        _ => "session_id",
    }
}

#[cfg(test)]
mod tests;
