//! Whose file it is, and which schema it has.

use std::path::Path;

use rusqlite::Connection;

use super::turn::Turn;
use super::{Migrate, Options, sql_error};
use crate::error::{Code, HfError, Result};

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub application_id: i32,
    pub user_version: u32,
    /// Tables, indexes and so on.
    pub objects: u32,
}

impl Identity {
    /// Of a file without anything in it.
    pub(super) const EMPTY: Self = Self { application_id: 0, user_version: 0, objects: 0 };
}

/// Reads the marks of a file, all at one moment: another process may be migrating it.
pub(super) fn identify(db: &Connection) -> Result<Identity> {
    let ask = || -> rusqlite::Result<Identity> {
        let snapshot = if db.is_autocommit() { Some(db.unchecked_transaction()?) } else { None };
        let found = Identity {
            application_id: db.query_row("PRAGMA application_id", [], |row| row.get(0))?,
            user_version: db.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))?.cast_unsigned(),
            objects: db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
        };
        drop(snapshot);
        Ok(found)
    };
    ask().map_err(|error| sql_error("look at the database", error))
}

/// Refuses files that are not ours, or newer than we are.
pub(super) fn verify(found: Identity, options: &Options, path: &Path) -> Result<()> {
    let shown = path.display();
    let ours = found.application_id == options.application_id;
    let blank = found.application_id == 0 && found.objects == 0 && found.user_version == 0;
    if !ours && !blank {
        return Err(HfError::new(
            Code::InvalidArgument,
            format!(
                "{shown} is a SQLite database of another application (application_id {:#010x}, ours is {:#010x}); it was not \
                 touched: choose another path",
                found.application_id, options.application_id
            ),
        )
        .with_field("path", path.to_string_lossy())
        .with_field("applicationId", found.application_id)
        .with_field("reason", "foreign")
        .with_field("found", found.user_version)
        .with_field("expected", options.version()));
    }
    if found.objects > 0 && options.first_version() > 1 && found.user_version < options.first_version() {
        return Err(HfError::new(
            Code::InvalidArgument,
            format!(
                "{shown} has format {}, from which no migration leads to {}; it was not touched: choose another path",
                found.user_version,
                options.version()
            ),
        )
        .with_field("path", path.to_string_lossy())
        .with_field("reason", "older")
        .with_field("found", found.user_version)
        .with_field("expected", options.version()));
    }
    if found.user_version > options.version() {
        return Err(HfError::new(
            Code::FormatTooNew,
            format!(
                "{shown} was written by a newer version of holdfast (format {}, this one knows {}); it was not touched: \
                 update holdfast, or choose another path",
                found.user_version,
                options.version()
            ),
        )
        .with_field("path", path.to_string_lossy())
        .with_field("reason", "newer")
        .with_field("found", found.user_version)
        .with_field("expected", options.version()));
    }
    Ok(())
}

/// Whether a file is ours, and of our version.
pub(super) fn is_complete(found: Identity, options: &Options) -> bool {
    found.application_id == options.application_id && found.user_version == options.version()
}

/// Brings the schema to our version, or says what is missing. All steps, the version and the mark go in one transaction;
/// who comes second finds everything done.
pub(super) fn migrate(db: &Connection, options: &Options, path: &Path, turn: &mut Turn) -> Result<()> {
    let found = identify(db)?;
    verify(found, options, path)?;
    let complete = is_complete(found, options);
    let begin = || turn.begin(db, options.busy_timeout);
    match options.migrate {
        _ if complete => Ok(()),
        Migrate::Auto => in_transaction(begin, db, || apply(db, options, path, options.migrations)),
        Migrate::Off if found.application_id == options.application_id => Ok(()),
        Migrate::Off => in_transaction(begin, db, || apply(db, options, path, &[])),
        Migrate::Check => Err(missing(found, options, path)),
    }
}

/// Says which steps a file lacks.
pub(super) fn missing(found: Identity, options: &Options, path: &Path) -> HfError {
    let missing: Vec<String> = options
        .migrations
        .iter()
        .filter(|migration| migration.version > found.user_version)
        .map(|migration| format!("{:04} {}", migration.version, migration.name))
        .collect();
    let error = HfError::new(
        Code::Database,
        format!(
            "{} lacks these migrations: {}; open it once with migrate: 'auto'",
            path.display(),
            if missing.is_empty() { "none, but it has no mark of ours".to_owned() } else { missing.join(", ") }
        ),
    )
    .with_field("path", path.to_string_lossy())
    .with_field("missing", missing)
    .with_field("found", found.user_version)
    .with_field("expected", options.version());
    // A file without anything in it, such as one whose first opening was cut short, is older than nothing.
    if found.user_version == 0 && found.objects == 0 { error.with_field("reason", "empty") } else { error }
}

fn in_transaction(
    begin: impl FnOnce() -> rusqlite::Result<()>,
    db: &Connection,
    steps: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let sql = |error| sql_error("migrate the database", error);
    begin().map_err(sql)?;
    let result = steps().and_then(|()| db.execute_batch("COMMIT").map_err(sql));
    if result.is_err() && !db.is_autocommit() {
        // The first error is the one that says what is wrong.
        let _ = db.execute_batch("ROLLBACK");
    }
    result
}

/// Says which step failed, and what there is now. A disk that is full, or fails, is not the step's fault.
fn failed(error: HfError, step: &str, found: Identity, options: &Options, path: &Path) -> HfError {
    if error.code() != Code::Database {
        return error;
    }
    error
        .with_code(Code::MigrationFailed)
        .with_advice(&format!("the tables stay as they were, of version {}", found.user_version))
        .at_place(&path.to_string_lossy())
        .with_field("path", path.to_string_lossy())
        .with_field("found", found.user_version)
        .with_field("expected", options.version())
        .with_field("step", step)
}

fn apply(db: &Connection, options: &Options, path: &Path, migrations: &[super::Migration]) -> Result<()> {
    // Only now, with the write lock held, it is certain that nobody else is at it.
    let found = identify(db)?;
    verify(found, options, path)?;
    for migration in migrations.iter().filter(|migration| migration.version > found.user_version) {
        let step = format!("{:04} {}", migration.version, migration.name);
        let failed = |error| failed(sql_error(&format!("migration {step}"), error), &step, found, options, path);
        db.execute_batch(migration.sql).map_err(failed)?;
    }
    if found.objects > 0 && !super::check::foreign_keys(db)?.is_empty() {
        return Err(HfError::new(
            Code::Corrupt,
            format!("{}: rows refer to rows that do not exist; nothing was migrated", path.display()),
        )
        .with_field("path", path.to_string_lossy()));
    }
    let mark =
        |name, value: i64| db.pragma_update(None, name, value).map_err(|error| sql_error("mark the database", error));
    mark("application_id", options.application_id.into())?;
    if let Some(last) = migrations.last() {
        mark("user_version", last.version.into())?;
    }
    Ok(())
}
