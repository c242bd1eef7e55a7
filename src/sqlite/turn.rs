//! Whose turn it is to write, between processes.
//!
//! SQLite's own waiting is a row of growing sleeps, at the end of which somebody who writes without pause has taken the lock again:
//! beside three such processes a fourth waited for seconds. Here, who finds the database locked first takes the *turn*, an advisory
//! lock that one waiter at a time has, then looks for the write lock every moment, and gives the turn back when he is in. Who writes without
//! pause looks now and then whether somebody has the turn, and if so, queues behind him.
//!
//! The operating system gives the turn of a dead process back. One that was stopped in its turn, or has none because the file system
//! knows no such locks, holds up nobody for long: after some patience, which shrinks each time that it was in vain, the write lock is
//! tried for without the turn. Programs that know nothing of turns are met as before, but with shorter sleeps.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::connection::beside;

/// So often somebody who is never kept waiting looks for others: beside the commits in between it costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long others are given their turn before the write lock is tried for without one.
const PATIENCE: Duration = Duration::from_millis(100);
/// What is left of it when it was in vain again and again.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);
/// Pauses of a waiter: short, because most transactions are, and longer beside one that is not.
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The turns at one database, as one writing connection sees them.
#[derive(Debug)]
pub(super) struct Turn {
    /// What is locked; `None` in memory. The write-ahead log: it is there whenever somebody writes, the same for all, and SQLite
    /// locks nothing in it, so that closing it gives up no lock of SQLite's. Windows' locks keep others from reading, so there it is
    /// an empty file beside it.
    path: Option<PathBuf>,
    file: Option<File>,
    /// When we last looked for others, or came through after them.
    looked: Option<Instant>,
    patience: Duration,
}

impl Turn {
    /// Of the database at `path`, or of one in memory.
    pub(super) fn new(path: Option<&Path>) -> Self {
        let suffix = if cfg!(windows) { "-turn" } else { "-wal" };
        Self { path: path.map(|path| beside(path, suffix)), file: None, looked: None, patience: PATIENCE }
    }

    /// Begins a transaction that writes, waiting for others for up to `timeout`.
    ///
    /// # Errors
    /// `SQLITE_BUSY` after that; whatever else SQLite says at once.
    pub(super) fn begin(&mut self, db: &Connection, timeout: Duration) -> rusqlite::Result<()> {
        if self.path.is_none() {
            return start(db);
        }
        db.busy_timeout(Duration::ZERO)?;
        let begun = self.begin_in_turn(db, timeout);
        patient_again(db, timeout, begun)
    }

    /// As [`Turn::begin`] for what nobody needs: waits for nobody, and goes behind all who wait. Afterwards the connection has
    /// `timeout` for what else it waits for.
    ///
    /// # Errors
    /// `SQLITE_BUSY` where somebody writes or waits for it; whatever else SQLite says.
    pub(super) fn begin_at_once(&mut self, db: &Connection, timeout: Duration) -> rusqlite::Result<()> {
        if self.path.is_some() {
            // What was seen a moment ago does not count: who came since would be passed.
            self.looked = None;
            if self.somebody_waits(Instant::now()) {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                ));
            }
        }
        db.busy_timeout(Duration::ZERO)?;
        let begun = start(db);
        patient_again(db, timeout, begun)
    }

    fn begin_in_turn(&mut self, db: &Connection, timeout: Duration) -> rusqlite::Result<()> {
        let now = Instant::now();
        if !self.somebody_waits(now) {
            match start(db) {
                Err(error) if is_busy(&error) => {}
                begun => return begun,
            }
        }
        let begun = self.wait(db, now, timeout);
        // Who had to wait may go on for a moment: handing over after each transaction costs all of them more.
        self.looked = Some(Instant::now());
        if let Some(file) = &self.file
            && file.unlock().is_err()
        {
            self.file = None;
        }
        begun
    }

    /// Takes the turn, then the write lock.
    fn wait(&mut self, db: &Connection, begun: Instant, timeout: Duration) -> rusqlite::Result<()> {
        let mut ours = false;
        loop {
            ours = ours || self.open(true).is_some_and(|file| file.try_lock().is_ok());
            let waited = begun.elapsed();
            if ours || waited >= self.patience.min(timeout) {
                match start(db) {
                    Err(error) if is_busy(&error) && waited < timeout => {}
                    Ok(()) => {
                        self.patience = if ours { PATIENCE } else { LEAST_PATIENCE.max(self.patience / 2) };
                        return Ok(());
                    }
                    failed => return failed,
                }
            }
            std::thread::sleep((waited / 16).clamp(PAUSE_MIN, PAUSE_MAX));
        }
    }

    fn somebody_waits(&mut self, now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
            return false;
        }
        // Shared, so that two who look do not see each other.
        let free = self.open(false).is_none_or(|file| file.try_lock_shared().is_ok() && file.unlock().is_ok());
        self.looked = Some(now);
        !free
    }

    fn open(&mut self, to_wait: bool) -> Option<&File> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.read(true);
            if cfg!(windows) && to_wait {
                options.write(true).create(true).truncate(false);
            }
            self.file = options.open(self.path.as_ref()?).ok();
        }
        self.file.as_ref()
    }
}

fn start(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop)
}

/// Gives the connection its patience back. Where that fails, no transaction stays open that nobody knows of.
fn patient_again(db: &Connection, timeout: Duration, begun: rusqlite::Result<()>) -> rusqlite::Result<()> {
    let set = db.busy_timeout(timeout);
    if set.is_err() && begun.is_ok() {
        let _ = db.execute_batch("ROLLBACK");
    }
    begun.and(set)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE IF NOT EXISTS t (x);")
            .unwrap();
        db
    }

    fn write(turn: &mut Turn, db: &Connection) -> rusqlite::Result<()> {
        turn.begin(db, Duration::from_secs(5))?;
        db.execute_batch("INSERT INTO t VALUES (1); COMMIT")
    }

    #[test]
    fn who_waits_in_vain_hears_it_in_time_and_leaves_the_turn_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let (holder, db) = (open(&path), open(&path));
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut turn = Turn::new(Some(&path));
        for timeout in [Duration::ZERO, Duration::from_millis(30), PATIENCE + Duration::from_millis(30)] {
            let begun = Instant::now();
            assert!(is_busy(&turn.begin(&db, timeout).unwrap_err()));
            assert!(begun.elapsed() >= timeout && begun.elapsed() < timeout + Duration::from_secs(2));
        }
        File::open(beside(&path, "-wal")).unwrap().try_lock().unwrap();
        holder.execute_batch("COMMIT").unwrap();
        write(&mut turn, &db).unwrap();
    }

    #[test]
    fn who_sleeps_in_his_turn_holds_nobody_up_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let db = open(&path);
        let asleep = File::open(beside(&path, "-wal")).unwrap();
        asleep.lock().unwrap();
        let mut turn = Turn::new(Some(&path));
        let begun = Instant::now();
        while turn.patience > LEAST_PATIENCE {
            write(&mut turn, &db).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", turn.patience);
        }
        assert!(begun.elapsed() >= PATIENCE, "he was given his chance");
        asleep.unlock().unwrap();
        std::thread::sleep(LOOK_EVERY);
        write(&mut turn, &db).unwrap();
        assert!(!turn.somebody_waits(Instant::now()));
        assert!(turn.patience <= LEAST_PATIENCE, "it was not the turn's holder who let us in");
    }

    #[test]
    fn who_needs_nothing_goes_behind_those_who_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let (db, other) = (open(&path), open(&path));
        let mut turn = Turn::new(Some(&path));
        write(&mut turn, &db).unwrap();
        let waiter = File::open(beside(&path, "-wal")).unwrap();
        waiter.lock().unwrap();
        assert!(is_busy(&turn.begin_at_once(&db, PATIENCE).unwrap_err()), "he came since the last look");
        assert_eq!(turn.patience, PATIENCE);
        waiter.unlock().unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(is_busy(&turn.begin_at_once(&db, PATIENCE).unwrap_err()));
        other.execute_batch("COMMIT").unwrap();
        turn.begin_at_once(&db, PATIENCE).unwrap();
        assert_eq!(db.query_row("PRAGMA busy_timeout", [], |row| row.get(0)), Ok(100));
        db.execute_batch("COMMIT").unwrap();
    }

    #[test]
    fn who_is_alone_looks_once_a_moment_and_needs_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let db = open(&path);
        let mut turn = Turn::new(Some(&path));
        write(&mut turn, &db).unwrap();
        let looked = turn.looked.unwrap();
        while looked.elapsed() < LOOK_EVERY / 2 {
            assert!(!turn.somebody_waits(Instant::now()));
            assert_eq!(turn.looked, Some(looked));
        }
        let mut elsewhere = Turn::new(Some(&folder.path().join("none.db")));
        write(&mut elsewhere, &db).unwrap();
        assert!(elsewhere.file.is_none());
        let mut memory = Turn::new(None);
        write(&mut memory, &db).unwrap();
        assert!(memory.file.is_none() && memory.looked.is_none());
    }
}
