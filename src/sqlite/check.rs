//! Is it sound?

use rusqlite::Connection;

use super::sql_error;
use crate::error::Result;

/// Everything that SQLite can find wrong: pages, indexes, constraints, references. It cannot see a bit that flipped inside a
/// value. Reads the whole file.
pub(super) fn everything(db: &Connection) -> Result<Vec<String>> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut statement = db.prepare("PRAGMA integrity_check")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.filter(|row| row.as_deref() != Ok("ok")).collect()
    };
    let mut problems = ask().map_err(|error| sql_error("check the database", error))?;
    problems.extend(foreign_keys(db)?);
    Ok(problems)
}

/// Rows that refer to rows which do not exist, at most 100.
pub(super) fn foreign_keys(db: &Connection) -> Result<Vec<String>> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut statement = db.prepare("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 100")?;
        let rows = statement.query_map([], |row| {
            let (table, row_id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let row_id = row_id.map_or_else(|| "?".to_owned(), |id| id.to_string());
            Ok(format!("row {row_id} of {table} refers to a row of {parent} that does not exist"))
        })?;
        rows.collect()
    };
    ask().map_err(|error| sql_error("check the references", error))
}
