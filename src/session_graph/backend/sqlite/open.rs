//! What all SQLite files of this module have in common, whatever is in them.

use std::time::Duration;

use rusqlite::config::DbConfig;

use crate::error::{Code, HfError, Result};
use crate::session_graph::backend::config::{Config, Synchronous};
use crate::session_graph::backend::place;
use crate::sqlite::{Database, Migrate, Migration, Options, Target};

/// Statements that a connection keeps prepared: all of this module.
pub(in crate::session_graph) const STATEMENTS: usize = 160;
/// Commits in one transaction, at most: a commit may be large, and the log is to stay bounded.
const MAX_BATCH: usize = 64;

/// Opens file and tables. Blocks.
pub(in crate::session_graph) fn database(
    config: &Config,
    application_id: i32,
    migrations: &'static [Migration],
) -> Result<Database> {
    let target = match &config.path {
        Some(path) => {
            if config.migrates {
                place::make(path)?;
            }
            Target::File(path.clone())
        }
        None => Target::Memory,
    };
    let options = Options {
        synchronous: match config.synchronous {
            Synchronous::Full => crate::sqlite::Synchronous::Full,
            Synchronous::Normal => crate::sqlite::Synchronous::Normal,
        },
        busy_timeout: Duration::from_millis(config.busy_timeout_ms),
        migrate: if config.migrates { Migrate::Auto } else { Migrate::Check },
        max_batch: MAX_BATCH,
        ..self::options(application_id, migrations)
    };
    Database::open(&target, options)
}

/// What is the same however a file is opened.
pub(in crate::session_graph) fn options(application_id: i32, migrations: &'static [Migration]) -> Options {
    Options {
        shrinks: true,
        log_ahead: true,
        setup: |db| {
            db.set_prepared_statement_cache_capacity(STATEMENTS);
            // Otherwise a statement that a partial index might serve is compiled again for each value.
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
        },
        ..Options::new(application_id, migrations)
    }
}

/// An error that the tables' contents caused, not the database.
pub(in crate::session_graph) fn is_refusal(error: &HfError) -> bool {
    let from_sqlite = error.fields().contains_key("sqliteCode");
    let broken = matches!(error.code(), Code::Io | Code::DiskFull | Code::Panic | Code::Poisoned);
    !from_sqlite && !broken
}
