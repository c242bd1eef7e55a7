//! One file per table: the statements, and how rows become records.

pub mod changes;
pub mod checks;
pub mod comments;
pub mod consumers;
pub mod decisions;
pub mod features;
pub mod notifications;
pub mod operations;
pub mod policies;
pub mod projects;
pub mod prs;
pub mod prune;
pub mod reactions;
pub mod sessions;

#[cfg(test)]
mod tests;

use super::sql::{Row, Sql, Value};
use super::words::Word;
use crate::error::{Code, HfError, Result};

/// Reads a word.
///
/// # Errors
/// `HF_CORRUPT` for one that nobody knows.
pub fn word<W: Word>(row: &dyn Row, column: usize) -> Result<W> {
    W::parse(row.text(column)?).ok_or_else(|| {
        HfError::new(Code::Corrupt, format!("column {column} of a stored row holds no known word; restore a backup"))
    })
}

/// Reads the rows of an answer into a list.
///
/// # Errors
/// As [`Sql::rows`].
pub fn list<T>(
    sql: &mut dyn Sql,
    doing: &'static str,
    text: &'static str,
    params: &[Value<'_>],
    mut read: impl FnMut(&dyn Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    sql.rows(doing, text, params, &mut |row| {
        found.push(read(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Reads the first row of an answer.
///
/// # Errors
/// As [`Sql::rows`].
pub fn first<T>(
    sql: &mut dyn Sql,
    doing: &'static str,
    text: &'static str,
    params: &[Value<'_>],
    mut read: impl FnMut(&dyn Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut found = None;
    sql.rows(doing, text, params, &mut |row| {
        if found.is_none() {
            found = Some(read(row)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Reads the one number of an answer; 0 where there is none.
///
/// # Errors
/// As [`Sql::rows`].
pub fn number(sql: &mut dyn Sql, doing: &'static str, text: &'static str, params: &[Value<'_>]) -> Result<i64> {
    Ok(first(sql, doing, text, params, |row| row.opt_int(0))?.flatten().unwrap_or(0))
}
