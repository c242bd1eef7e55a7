//! Connections: how they are opened and set.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::turn::Turn;
use super::{Migrate, Network, Options, Synchronous, checkpoint, log, migrate, network, shrink, sql_error};
use crate::durable::{Disk, IoContext, atomic, optional, sync};
use crate::error::{Code, HfError, Result};

/// Statements that each connection keeps prepared.
const STATEMENTS_KEPT: usize = 64;

/// Returns the one spelling of `path` that all who open the file meet at: links followed, folder canonical. Makes missing
/// folders, and returns those whose names must be synced.
fn resolve(disk: &Disk, path: &Path, make: bool) -> Result<(PathBuf, Vec<PathBuf>)> {
    let path = std::path::absolute(path).at("resolve", path)?;
    let made = match path.parent() {
        Some(folder) if make => disk.create_dirs(folder).at("mkdir", folder)?,
        _ => Vec::new(),
    };
    let path = atomic::resolve(disk, &path).at("readlink", &path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refused(&path, "it names no file; choose the path of one"));
    };
    // Windows' canonical form is one that people do not recognise.
    let path = if cfg!(windows) { path } else { folder.canonicalize().at("realpath", folder)?.join(name) };
    match optional(disk.metadata(&path)).at("stat", &path)? {
        Some(metadata) if metadata.is_dir() => Err(refused(&path, "it is a folder; choose the path of a file")),
        Some(metadata) if !metadata.is_file() => Err(refused(&path, "it is no ordinary file; choose another path")),
        _ => Ok((path, made)),
    }
}

fn refused(path: &Path, why: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("cannot open {} as a database: {why}", path.display()))
        .with_field("path", path.to_string_lossy())
}

/// Opens the writing connection of a file: looks whose it is before anything is changed, switches it to a write-ahead log,
/// migrates it, and syncs the names of all that was created.
pub(super) fn open_file(path: &Path, options: &Options) -> Result<(Connection, PathBuf)> {
    if options.network == Network::Refuse {
        network::refuse_network(path)?;
    }
    let disk = Disk::real();
    let create = options.migrate == Migrate::Auto;
    if !create && optional(disk.metadata(path)).at("stat", path)?.is_none() {
        return Err(refused(path, "there is no such file, and only `migrate: \"auto\"` makes one"));
    }
    let (path, made) = resolve(&disk, path, create)?;
    look(&path, options)?;
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let opened = Connection::open_with_flags(&path, flags).map_err(|error| sql_error("open the database", error));
    let db = opened.and_then(|db| prepare_file(&db, &path, options).map(|()| db));
    let db = db.map_err(|error| explained(error, &path))?;
    // SQLite syncs the folder too when it makes a log, but does not look at the result.
    let folder = atomic::folder_of(&path).to_owned();
    sync::dirs(&disk, made.into_iter().chain([folder]))?;
    Ok((db, path))
}

fn prepare_file(db: &Connection, path: &Path, options: &Options) -> Result<()> {
    let sql = |error| sql_error("open the database", error);
    db.busy_timeout(options.busy_timeout).map_err(sql)?;
    // Somebody else's log is not ours to write back.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    if db.is_readonly(rusqlite::MAIN_DB).map_err(sql)? {
        return Err(sql(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY),
            None,
        )));
    }
    let found = migrate::identify(db)?;
    migrate::verify(found, options, path)?;
    // Before anything is written: the log alone would make an empty file a database.
    if options.migrate == Migrate::Check && !migrate::is_complete(found, options) {
        return Err(migrate::missing(found, options, path));
    }
    // A file that has tables would only be written to, for nothing.
    if options.shrinks && found.objects == 0 {
        shrink::prepare(db).map_err(sql)?;
    }
    switch_to_log(db, options.busy_timeout)?;
    set(db, options).map_err(sql)?;
    db.pragma_update(None, "wal_autocheckpoint", 0).map_err(sql)?;
    db.pragma_update(None, "journal_size_limit", checkpoint::LOG_BYTES_KEPT).map_err(sql)?;
    let mut turn = Turn::new(Some(path));
    // Whoever holds the write lock is at work with the log: opening need not wait for him.
    log::renew(db, path, &mut turn, Duration::ZERO)?;
    db.busy_timeout(options.busy_timeout).map_err(sql)?;
    migrate::migrate(db, options, path, &mut turn)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sql)?;
    Ok(())
}

/// Looks at a file without leaving a trace, where that is possible: with a log or a journal beside it only SQLite's own
/// opening tells what it holds, and that is asked next anyway.
fn look(path: &Path, options: &Options) -> Result<()> {
    let has = |suffix| std::fs::metadata(beside(path, suffix)).is_ok_and(|metadata| metadata.len() > 0);
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) || has("-wal") || has("-journal") {
        return Ok(());
    }
    match immutable(path).and_then(|db| migrate::identify(&db)) {
        Ok(found) => migrate::verify(found, options, path),
        // Perhaps somebody is just writing it. Opening it properly, under locks, gives the verdict.
        Err(_) => Ok(()),
    }
}

/// Opens a file as if nobody could ever change it: no locks, no files beside it.
pub(super) fn immutable(path: &Path) -> Result<Connection> {
    let text = path.to_string_lossy();
    let text = if cfg!(windows) { format!("/{}", text.replace('\\', "/")) } else { text.into_owned() };
    let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        .map_err(|error| sql_error("look at the database", error))
}

/// Returns the name of a file that SQLite keeps beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Switches to a write-ahead log. When several processes do that at once, SQLite refuses some of them without asking the
/// busy handler, so the waiting is done here.
fn switch_to_log(db: &Connection, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(HfError::new(
                    Code::Database,
                    format!(
                        "the file system cannot hold a write-ahead log (journal mode stays {mode}); use a local disk"
                    ),
                ));
            }
            Err(error) => {
                let error = sql_error("switch to a write-ahead log", error);
                if error.code() != Code::Busy || Instant::now() >= deadline {
                    return Err(error);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Opens a reading connection. The writing one must exist: it has made the log that this one needs.
pub(super) fn open_reader(path: &Path, options: &Options) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|db| {
            db.busy_timeout(options.busy_timeout)?;
            set(&db, options)?;
            Ok(db)
        })
        .map_err(|error| explained(sql_error("open the database for reading", error), path))
}

/// Opens a private database in memory.
pub(super) fn open_memory(options: &Options) -> Result<Connection> {
    let opened = Connection::open_in_memory_with_flags(
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    );
    let db = opened.map_err(|error| sql_error("open a database in memory", error))?;
    set(&db, options).map_err(|error| sql_error("open a database in memory", error))?;
    if options.shrinks {
        shrink::prepare(&db).map_err(|error| sql_error("open a database in memory", error))?;
    }
    migrate::migrate(&db, options, Path::new(":memory:"), &mut Turn::new(None))?;
    Ok(db)
}

/// What every connection needs.
pub(super) fn set(db: &Connection, options: &Options) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let full = options.synchronous == Synchronous::Full;
    db.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
    if cfg!(target_os = "macos") && full {
        // What std's sync does there; a plain fsync stays in the disk's cache.
        db.pragma_update(None, "fullfsync", true)?;
        db.pragma_update(None, "checkpoint_fullfsync", true)?;
    }
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "cell_size_check", true)?;
    // Sorting must not spill somebody's state into a folder for temporary files.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // A schema that somebody prepared for us runs none of our functions, and nothing writes around SQLite's own checks.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    (options.setup)(db)
}

/// Finds the system's own reason for a file that SQLite could not open; SQLite does not pass it on.
pub(super) fn explained(error: HfError, path: &Path) -> HfError {
    let error = super::room::honest(error, Some(path));
    #[cfg(unix)]
    if error.code() == Code::Io && !error.is_sync_failure() {
        use rustix::fs::{Access, access};
        let folder = atomic::folder_of(path);
        for (place, wanted) in
            [(path, Access::READ_OK | Access::WRITE_OK), (folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)]
        {
            match access(place, wanted) {
                Err(errno) if errno == rustix::io::Errno::NOENT && place == path => {}
                Err(errno) => return HfError::io("open", place, &errno.into()),
                Ok(()) => {}
            }
        }
    }
    super::error::located(error, Some(path))
}
