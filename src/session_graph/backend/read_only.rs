//! A session that is only looked at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::sqlite::open::options;
use super::sqlite::{APPLICATION_ID, MIGRATIONS, reply_of};
use super::{Backend, Done, Reply, fork};
use crate::durable::pool;
use crate::durable::turns::Turns;
use crate::error::{Code, HfError, Result};
use crate::session_graph::command::Read;
use crate::session_graph::side::Signal;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::sqlite::{Options, ReadOnly, sql_error};

struct Reader {
    database: Arc<ReadOnly>,
    turns: Arc<Turns>,
    signal: Arc<Signal>,
}

/// Opens the file. Blocks.
pub(super) fn open(config: &Config) -> Result<Arc<dyn Backend>> {
    let Some(path) = &config.path else {
        return Err(HfError::new(Code::InvalidArgument, "a store in memory cannot be opened for reading only"));
    };
    let options =
        Options { busy_timeout: Duration::from_millis(config.busy_timeout_ms), ..options(APPLICATION_ID, MIGRATIONS) };
    let opened = if config.peeks { ReadOnly::peek(path, options) } else { ReadOnly::open(path, options) };
    let database = opened.map_err(|error| {
        if error.fields().get("reason").and_then(serde_json::Value::as_str) == Some("unfinished") {
            return error.with_advice("SessionGraphStore.open does that");
        }
        if error.node_code() != Some("ENOENT") {
            return error;
        }
        let shown = path.display();
        HfError::new(Code::GraphStoreNotFound, format!("there is no store at {shown}; openReadOnly makes none"))
            .with_field("path", path.to_string_lossy())
    })?;
    let signal = Signal::of(Some(database.path()));
    Ok(Arc::new(Reader { database: Arc::new(database), turns: Arc::new(Turns::new(config.max_readers)), signal }))
}

impl Backend for Reader {
    fn write(&self, _command: String, _bytes: Vec<Vec<u8>>, done: Done<String>) {
        done(Err(HfError::new(Code::GraphReadOnly, "the store was opened for reading; open it with `open` to write")));
    }

    fn read(&self, command: String, done: Done<Reply>) {
        let database = Arc::clone(&self.database);
        self.turns.run(Box::new(move || {
            let answer = Read::parse(&command).and_then(|read| {
                let check = || database.check();
                let reply = database.read(|db| reply_of(&read, db))?;
                super::sqlite::completed(&read, reply, check, |_| Ok(()))
            });
            done(answer);
        }));
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.database.path().to_owned())
    }

    fn backup(&self, _to: PathBuf, done: Done<String>) {
        done(Err(HfError::new(Code::GraphReadOnly, "a store that was opened for reading makes no backups")));
    }

    fn fork(&self, to: PathBuf, command: String, done: Done<String>) {
        let database = Arc::clone(&self.database);
        pool::spawn(move || {
            done(fork::into_file(&to, &command, Some(database.path()), |work| {
                database.read(|db| {
                    let snapshot = db.unchecked_transaction().map_err(|error| sql_error("read", error))?;
                    work(&mut Sqlite(&snapshot))
                })
            }));
        });
    }

    fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    fn close(&self, done: Done<()>) {
        let database = Arc::clone(&self.database);
        pool::spawn(move || {
            database.close();
            done(Ok(()));
        });
    }
}
