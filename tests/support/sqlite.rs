//! What the tests of the SQLite engine share: a small schema, jobs, child processes that are killed or whose disk fails, and
//! a verifier that uses plain SQLite.
//!
//! Job `n` of a writer inserts three rows. It is there if all three are, absent if none is; anything else is a violation.
#![allow(dead_code, missing_docs, reason = "every test uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use holdfast::error::Result;
use holdfast::sqlite::{Database, Migration, Options, Synchronous, Target, WriteJob, sql_error};
use rusqlite::Connection;

pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "parts",
        sql: "CREATE TABLE parts (
                writer INTEGER NOT NULL, n INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL,
                PRIMARY KEY (writer, n, part)) STRICT;",
    },
    Migration { version: 2, name: "index", sql: "CREATE INDEX parts_by_n ON parts (n);" },
];

pub const WAIT: Duration = Duration::from_secs(30);

pub fn options(synchronous: Synchronous) -> Options {
    Options { synchronous, ..Options::new(0x6866_7431, MIGRATIONS) }
}

pub fn open(path: &Path) -> Database {
    Database::open(&Target::File(path.to_owned()), options(Synchronous::Full)).unwrap()
}

/// Job `n` of `writer`; calls `told` at the end.
pub struct Insert<F> {
    pub writer: i64,
    pub n: i64,
    pub bytes: usize,
    pub told: F,
}

impl<F: FnOnce(i64, Result<()>) + Send> WriteJob for Insert<F> {
    fn run(&mut self, db: &Connection) -> Result<()> {
        insert(db, self.writer, self.n, self.bytes).map_err(|error| sql_error("insert", error))
    }
    fn done(self: Box<Self>, outcome: Result<()>) {
        (self.told)(self.n, outcome);
    }
}

pub fn insert(db: &Connection, writer: i64, n: i64, bytes: usize) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("INSERT INTO parts VALUES (?1, ?2, ?3, randomblob(?4))")?;
    for part in 0..3 {
        statement.execute((writer, n, part, bytes as i64))?;
    }
    Ok(())
}

/// Hands one job in and waits for its end.
pub fn write(database: &Database, writer: i64, n: i64, bytes: usize) -> Result<()> {
    let (tell, told) = channel();
    database.write(Box::new(Insert { writer, n, bytes, told: move |_, outcome| drop(tell.send(outcome)) }));
    told.recv_timeout(WAIT).expect("a job was never told")
}

pub fn close(database: &Database) -> Result<()> {
    let (tell, told) = channel();
    database.close(Box::new(move |result| drop(tell.send(result))));
    told.recv_timeout(WAIT).expect("never closed")
}

/// Keeps `window` jobs in flight, numbered from `from`, printing `ack n` for each that is told "ok", until killed or `count` are
/// done. `fail n code` is printed for others.
pub fn load(database: &Database, writer: i64, window: i64, from: i64, count: i64, bytes: usize) {
    let (tell, told) = channel();
    let mut next = from;
    let mut flying = 0;
    while next < from + count || flying > 0 {
        while flying < window && next < from + count {
            let tell = tell.clone();
            let report = move |n: i64, outcome: Result<()>| {
                match outcome {
                    Ok(()) => println!("ack {n}"),
                    Err(error) => println!("fail {n} {}", error.code().as_str()),
                }
                let _ = tell.send(());
            };
            database.write(Box::new(Insert { writer, n: next, bytes, told: report }));
            next += 1;
            flying += 1;
        }
        told.recv_timeout(WAIT).expect("a job was never told");
        flying -= 1;
    }
}

/// A child process of this test binary.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
}

/// Starts the test named `child` of this binary, which finds its orders with [`order`].
pub fn start(order: &[&str], environment: &[(&str, &str)]) -> Process {
    spawn(Command::new(std::env::current_exe().unwrap()).envs(environment.iter().copied()), order).unwrap()
}

/// As [`start`], with a command of one's own.
pub fn spawn(command: &mut Command, order: &[&str]) -> std::io::Result<Process> {
    let mut child = command
        .args(["child", "--exact", "--nocapture"])
        .env("HOLDFAST_TEST_CHILD", order.join("\n"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = BufReader::new(child.stdout.take().unwrap());
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(std::result::Result::ok) {
            // libtest prints the test's name without a line end before our first line.
            let line = line.rsplit("... ").next().unwrap_or_default().to_owned();
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    Ok(Process { child, lines })
}

/// The orders of this process, if it is a child.
pub fn order() -> Option<Vec<String>> {
    Some(std::env::var("HOLDFAST_TEST_CHILD").ok()?.split('\n').map(str::to_owned).collect())
}

impl Process {
    /// Waits for a line.
    pub fn expect(&self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(WAIT).unwrap_or_else(|_| panic!("the child never said {wanted}"));
            if line == wanted {
                return;
            }
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for the end, and returns what was said since.
    pub fn rest(mut self) -> Said {
        let mut said = Said::default();
        while let Ok(line) = self.lines.recv_timeout(WAIT) {
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(|n| n.parse().ok()), words.next()) {
                (Some("ack"), Some(n), _) => drop(said.acks.insert(n)),
                (Some("fail"), Some(n), Some(code)) => drop(said.fails.insert(n, code.to_owned())),
                _ => said.other.push(line),
            }
        }
        said.killed = self.child.wait().unwrap().code().is_none();
        said
    }
}

#[derive(Debug, Default)]
pub struct Said {
    pub acks: BTreeSet<i64>,
    pub fails: BTreeMap<i64, String>,
    pub other: Vec<String>,
    pub killed: bool,
}

/// Which jobs of a writer are there. Panics if one is there in part, or the file is not sound.
pub fn present(path: &Path, writer: i64) -> BTreeSet<i64> {
    let db = Connection::open(path).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut statement =
        db.prepare("SELECT n, count(*), min(part), max(part) FROM parts WHERE writer = ?1 GROUP BY n").unwrap();
    let rows = statement
        .query_map([writer], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .collect::<rusqlite::Result<Vec<(i64, i64, i64, i64)>>>()
        .unwrap();
    rows.into_iter()
        .map(|(n, count, first, last)| {
            assert_eq!((count, first, last), (3, 0, 2), "job {n} of writer {writer} is there in part");
            n
        })
        .collect()
}

/// Small numbers from a seed (xorshift).
pub struct Random(u64);

impl Random {
    /// From `HOLDFAST_SEED`, or another one each time; printed.
    pub fn new(test: &str) -> Self {
        let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(holdfast::clock::epoch_ms);
        println!("{{\"test\":\"{test}\",\"seed\":{seed}}}");
        Self(seed | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Compiles the shim that makes file operations fail. `None`, loudly, where that is not possible.
pub fn shim(folder: &Path) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        println!("SKIPPED: needs LD_PRELOAD");
        return None;
    }
    let library = folder.join("io_shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/io_shim.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    if built.is_ok_and(|status| status.success()) {
        Some(library)
    } else {
        println!("SKIPPED: needs a C compiler");
        None
    }
}
