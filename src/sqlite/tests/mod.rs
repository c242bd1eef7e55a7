//! The promises that one process can show. Crashes, other processes and failing disks: `tests/sqlite_*.rs`.

mod batches;
mod files;
mod handles;
mod log;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;

use super::*;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "items",
    sql: "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
          CREATE TABLE parts (item INTEGER NOT NULL REFERENCES items(id) DEFERRABLE INITIALLY DEFERRED) STRICT;",
}];

fn options() -> Options {
    Options::new(0x6866_7431, MIGRATIONS)
}

type Run = Box<dyn FnMut(&Connection) -> Result<()> + Send>;

struct Job {
    run: Run,
    tell: Sender<(String, Result<()>)>,
    name: String,
}

impl WriteJob for Job {
    fn run(&mut self, db: &Connection) -> Result<()> {
        (self.run)(db)
    }
    fn done(self: Box<Self>, outcome: Result<()>) {
        drop(self.tell.send((self.name, outcome)));
    }
}

struct Told {
    tell: Sender<(String, Result<()>)>,
    told: Receiver<(String, Result<()>)>,
}

impl Told {
    fn new() -> Self {
        let (tell, told) = channel();
        Self { tell, told }
    }
    fn job(&self, name: &str, run: impl FnMut(&Connection) -> Result<()> + Send + 'static) -> Box<Job> {
        Box::new(Job { run: Box::new(run), tell: self.tell.clone(), name: name.into() })
    }
    fn insert(&self, name: &str) -> Box<Job> {
        let owned = name.to_owned();
        self.job(name, move |db| insert(db, &owned))
    }
    fn next(&self) -> (String, Result<()>) {
        self.told.recv_timeout(Duration::from_secs(10)).expect("a job was never told")
    }
}

fn insert(db: &Connection, name: &str) -> Result<()> {
    db.prepare_cached("INSERT INTO items (name) VALUES (?1)")
        .and_then(|mut statement| statement.execute([name]))
        .map(drop)
        .map_err(|error| sql_error("insert", error))
}

fn execute(db: &Connection, sql: &str) -> Result<()> {
    db.execute_batch(sql).map_err(|error| sql_error("execute", error))
}

fn names(database: &Database) -> Vec<String> {
    database
        .read(|db| {
            let mut statement = db.prepare("SELECT name FROM items ORDER BY id").unwrap();
            Ok(statement.query_map([], |row| row.get(0)).unwrap().map(std::result::Result::unwrap).collect())
        })
        .unwrap()
}

fn close(database: &Database) -> Result<()> {
    let (tell, told) = channel();
    database.close(Box::new(move |result| drop(tell.send(result))));
    told.recv_timeout(Duration::from_secs(10)).expect("never closed")
}

/// Holds the writer inside a job until dropped or sent something, so that what is handed in meanwhile becomes one batch.
fn hold(database: &Database, told: &Told) -> Sender<()> {
    let (release, wait) = channel::<()>();
    let (arrived, at_work) = channel();
    database.write(told.job("held", move |_| {
        let _ = arrived.send(());
        let _ = wait.recv();
        Ok(())
    }));
    at_work.recv_timeout(Duration::from_secs(10)).unwrap();
    release
}

fn both(check: impl Fn(&Database)) {
    let dir = tempfile::tempdir().unwrap();
    for target in [Target::Memory, Target::File(dir.path().join("a/b/test.db"))] {
        check(&Database::open(&target, options()).unwrap());
    }
}
