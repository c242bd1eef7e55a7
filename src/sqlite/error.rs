//! SQLite's errors in the words of this house.

use std::path::Path;

use rusqlite::ffi;

use crate::error::{Code, HfError};

/// Turns an error of SQLite into an [`HfError`]; `doing` says what was tried ("append a change").
///
/// | SQLite | here |
/// | --- | --- |
/// | `FULL` | [`Code::DiskFull`] |
/// | `BUSY`, `LOCKED`, `PROTOCOL` | [`Code::Busy`] |
/// | `CORRUPT`, `NOTADB` | [`Code::Corrupt`] |
/// | `IOERR`, `CANTOPEN`, `READONLY`, `PERM` | [`Code::Io`], marked as a failed sync where it was one |
/// | all others | [`Code::Database`] |
///
/// The field `sqliteCode` holds SQLite's extended code, a number. The engine adds `path` on the way out. No value that was
/// bound to a statement is in the message: SQLite's own text is kept only where it can speak of nothing but the schema or
/// the statement itself.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub fn sql_error(doing: &str, error: rusqlite::Error) -> HfError {
    let Some((extended, detail)) = parts(&error) else {
        return HfError::new(Code::Database, format!("{doing}: {}", kind(&error)));
    };
    let name = ffi::code_to_str(extended).trim_end_matches('.');
    let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
    let (code, advice) = match extended & 0xff {
        ffi::SQLITE_FULL => (Code::DiskFull, "; nothing of it was kept: free some space and try again"),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => {
            (Code::Busy, "; another process kept the database to itself for too long, nothing was changed: try again")
        }
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => {
            (Code::Corrupt, "; keep the file for inspection and restore a backup")
        }
        ffi::SQLITE_IOERR => (Code::Io, "; look at the disk and at the system's log"),
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_READONLY | ffi::SQLITE_PERM => {
            (Code::Io, "; check that file and folder exist and may be read and written")
        }
        _ => (Code::Database, ""),
    };
    let error = HfError::new(code, format!("{doing}: {name} (SQLite {extended}){detail}{advice}"))
        .with_field("sqliteCode", extended);
    if matches!(extended, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) { error.sync_failed() } else { error }
}

/// Extended code, and SQLite's text where it cannot quote a bound value: what `prepare` says is about our SQL, what a
/// constraint says is about tables and columns. Anything else (JSON paths, search queries) may quote its input.
fn parts(error: &rusqlite::Error) -> Option<(i32, Option<&str>)> {
    match error {
        rusqlite::Error::SqliteFailure(source, message) => {
            let constraint = source.extended_code & 0xff == ffi::SQLITE_CONSTRAINT;
            Some((source.extended_code, message.as_deref().filter(|_| constraint)))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => Some((error.extended_code, Some(msg))),
        _ => None,
    }
}

/// What went wrong between Rust and SQLite, without the value that it went wrong with.
fn kind(error: &rusqlite::Error) -> String {
    use rusqlite::Error;
    match error {
        Error::QueryReturnedNoRows => "a row that must exist does not".into(),
        Error::QueryReturnedMoreThanOneRow => "more than one row where one was expected".into(),
        Error::FromSqlConversionFailure(column, found, _) | Error::InvalidColumnType(column, _, found) => {
            format!("column {column} holds {found}, which is not what belongs there")
        }
        Error::IntegralValueOutOfRange(column, _) => format!("the number in column {column} is out of range"),
        Error::InvalidColumnIndex(column) => format!("there is no column {column}"),
        Error::InvalidColumnName(name) => format!("there is no column {name}"),
        Error::InvalidParameterName(name) => format!("there is no parameter {name}"),
        Error::InvalidParameterCount(given, wanted) => format!("{given} values bound, {wanted} wanted"),
        Error::ExecuteReturnedResults => "a statement returned rows where none were expected".into(),
        Error::StatementChangedRows(rows) => format!("{rows} rows changed where one was expected"),
        Error::MultipleStatement => "more than one statement".into(),
        Error::InvalidPath(_) => "the path cannot be given to SQLite".into(),
        Error::NulError(_) => "a NUL character in a statement or a name".into(),
        Error::Utf8Error(column, _) => format!("the text in column {column} is not UTF-8"),
        _ => "the call does not fit the statement".into(),
    }
}

/// SQLite's extended code of an error that came out of [`sql_error`].
pub(super) fn sqlite_code(error: &HfError) -> Option<i32> {
    error.fields().get("sqliteCode")?.as_i64().and_then(|code| i32::try_from(code).ok())
}

/// The primary code, `None` for errors that are not SQLite's.
pub(super) fn primary_code(error: &HfError) -> Option<i32> {
    sqlite_code(error).map(|code| code & 0xff)
}

/// Whether bytes that SQLite believes written may not be on the disk: from then on only a fresh opening can be trusted.
pub(super) fn loses_trust(error: &HfError) -> bool {
    error.is_sync_failure()
        || matches!(
            sqlite_code(error),
            Some(
                ffi::SQLITE_IOERR_WRITE
                    | ffi::SQLITE_IOERR_TRUNCATE
                    | ffi::SQLITE_IOERR_CLOSE
                    | ffi::SQLITE_IOERR_CORRUPTFS
            )
        )
}

/// Names the database in an error that is about its file.
pub(super) fn located(error: HfError, path: Option<&Path>) -> HfError {
    let about_the_file = matches!(error.code(), Code::Io | Code::DiskFull | Code::Corrupt | Code::Busy);
    match path {
        Some(path) if about_the_file && !error.fields().contains_key("path") => {
            let place = path.to_string_lossy();
            let named = error.message().contains(&*place);
            let error = error.with_field("path", &*place);
            if named { error } else { error.at_place(&place) }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> HfError {
        sql_error("test", rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("text with a secret".into())))
    }

    #[test]
    fn maps_codes_and_keeps_secrets_out() {
        for (sqlite, code) in [
            (ffi::SQLITE_FULL, Code::DiskFull),
            (ffi::SQLITE_BUSY, Code::Busy),
            (ffi::SQLITE_BUSY_RECOVERY, Code::Busy),
            (ffi::SQLITE_CORRUPT_VTAB, Code::Corrupt),
            (ffi::SQLITE_NOTADB, Code::Corrupt),
            (ffi::SQLITE_IOERR_FSYNC, Code::Io),
            (ffi::SQLITE_CANTOPEN, Code::Io),
            (ffi::SQLITE_READONLY_DIRECTORY, Code::Io),
            (ffi::SQLITE_ERROR, Code::Database),
        ] {
            let error = failure(sqlite);
            assert_eq!(error.code(), code, "{sqlite}");
            assert_eq!(sqlite_code(&error), Some(sqlite));
            assert!(!error.message().contains("secret"), "{error}");
        }
        assert!(failure(ffi::SQLITE_CONSTRAINT_UNIQUE).message().contains("secret"), "a constraint names its columns");
    }

    #[test]
    fn failed_syncs_and_writes_lose_trust_full_disks_do_not() {
        assert!(failure(ffi::SQLITE_IOERR_FSYNC).is_sync_failure());
        assert!(loses_trust(&failure(ffi::SQLITE_IOERR_FSYNC)));
        assert!(loses_trust(&failure(ffi::SQLITE_IOERR_WRITE)));
        for sqlite in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR_READ, ffi::SQLITE_CONSTRAINT] {
            assert!(!loses_trust(&failure(sqlite)), "{sqlite}");
        }
    }

    #[test]
    fn bound_values_stay_out_of_what_a_json_path_or_a_conversion_says() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let path = db.query_row("SELECT json_extract('{}', ?1)", ["hunter2"], |_| Ok(())).unwrap_err();
        assert!(path.to_string().contains("hunter2"), "SQLite quotes it: {path}");
        assert!(!sql_error("x", path).message().contains("hunter2"));
        let value = db.query_row("SELECT 'hunter2'", [], |row| row.get::<_, i64>(0)).unwrap_err();
        assert!(!sql_error("x", value).message().contains("hunter2"));
        let syntax = db.prepare("SELEC 1").unwrap_err();
        assert!(sql_error("x", syntax).message().contains("SELEC"));
    }
}
