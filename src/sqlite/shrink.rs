//! Giving room back that deleted rows left in the file.

use rusqlite::Connection;

use super::sql_error;
use crate::error::Result;

/// Pages that one call of [`give_back`] moves at most: half a megabyte, a few milliseconds.
const PAGES_AT_ONCE: i64 = 128;

/// Prepares a new file for giving room back; it has to be said before the first page is written. A file that has pages stays as it is.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// Gives some of the file's unused pages back, but for `reserve` of them, which soon are used again. For a write job; a file that was
/// made without [`Options::shrinks`](super::Options::shrinks) keeps them all. Returns whether there is more to give.
///
/// The file becomes shorter when the log is written back.
///
/// # Errors
/// As [`sql_error`].
pub fn give_back(db: &Connection, reserve: i64) -> Result<bool> {
    let sql = |error| sql_error("give room back", error);
    let ask = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map_err(sql);
    let unused = ask("freelist_count")? - reserve;
    if unused <= 0 || ask("auto_vacuum")? != 2 {
        return Ok(false);
    }
    let mut statement =
        db.prepare(&format!("PRAGMA incremental_vacuum({})", unused.min(PAGES_AT_ONCE))).map_err(sql)?;
    // It moves one page for each row that is asked for.
    let mut rows = statement.query([]).map_err(sql)?;
    while rows.next().map_err(sql)?.is_some() {}
    Ok(unused > PAGES_AT_ONCE)
}
