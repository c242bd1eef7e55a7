//! The write-ahead log: what is done for it between the jobs.

use std::time::Instant;

use super::*;

/// Writes so many pages, 4 KB each, and more: one job at a time, each handed in as soon as the one before is done.
fn fill(database: &Database, told: &Told, pages: u32) {
    database.write(told.job("table", |db| execute(db, "CREATE TABLE IF NOT EXISTS big (body BLOB)")));
    told.next().1.unwrap();
    for _ in 0..pages / 100 {
        database.write(told.job("fill", |db| execute(db, "INSERT INTO big VALUES (zeroblob(400000))")));
        told.next().1.unwrap();
    }
}

fn becomes(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn a_quiet_moment_is_used_to_write_the_log_back() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&Target::File(dir.path().join("test.db")), options()).unwrap();
    let told = Told::new();
    fill(&database, &told, 100);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(database.stats().checkpoints, 0, "so little is left where it is");
    // Far from the size at which it is done in any case.
    fill(&database, &told, 1500);
    assert!(becomes(|| database.stats().checkpoints > 0), "{:?}", database.stats());
    assert!(becomes(|| std::fs::metadata(dir.path().join("test.db")).unwrap().len() > 5 << 20));
    let count = |database: &Database| {
        let counted = database.read(|db| Ok(db.query_row("SELECT count(*) FROM big", [], |row| row.get::<_, u32>(0))));
        counted.unwrap().unwrap()
    };
    assert_eq!(count(&database), 16);
    let after = database.stats().checkpoints;
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(database.stats().checkpoints, after, "once is enough");
}

#[test]
#[cfg(target_os = "linux")]
fn room_ahead_of_the_log_changes_nothing_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let ahead = Options { log_ahead: true, ..options() };
    let database = Database::open(&Target::File(path.clone()), ahead.clone()).unwrap();
    let told = Told::new();
    let mut wanted: Vec<String> = (0..40).map(|number| format!("item {number}")).collect();
    for name in &wanted {
        database.write(told.insert(name));
        told.next().1.unwrap();
    }
    wanted.push("d".to_owned());
    let log = dir.path().join("test.db-wal");
    let length = || std::fs::metadata(&log).unwrap().len();
    assert!(becomes(|| length() >= 256 << 10), "{}", length());
    database.write(told.insert("d"));
    told.next().1.unwrap();
    assert!(length() < 1 << 20, "a short log gets little room: {}", length());
    // What another process finds, and what one finds after a crash.
    let crashed = dir.path().join("crashed.db");
    std::fs::copy(&path, &crashed).unwrap();
    std::fs::copy(&log, dir.path().join("crashed.db-wal")).unwrap();
    for path in [&path, &crashed] {
        let other = Database::open(&Target::File(path.clone()), ahead.clone()).unwrap();
        assert_eq!(names(&other), wanted);
        other.write(told.insert("e"));
        told.next().1.unwrap();
        assert_eq!(names(&other).len(), 42);
        assert!(other.check().unwrap().is_empty());
        close(&other).unwrap();
    }
    assert_eq!(names(&database).len(), 42);
    close(&database).unwrap();
    assert!(!log.exists());
}

#[test]
fn there_is_no_room_ahead_where_nobody_asked_for_it_or_no_sync_gains() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::new();
    let normal = Options { log_ahead: true, synchronous: Synchronous::Normal, ..options() };
    let short = Options { log_ahead: true, ..options() };
    for (name, options) in [("a", options()), ("b", normal), ("a log that stays short", short)] {
        let database = Database::open(&Target::File(dir.path().join(name)), options).unwrap();
        for name in ["a", "b"] {
            database.write(told.insert(name));
            told.next().1.unwrap();
        }
        settle(&database, &told);
        assert!(database.stats().wal_bytes < 200 << 10, "{:?}", database.stats());
        close(&database).unwrap();
    }
}

/// What follows a batch is done before the next one.
fn settle(database: &Database, told: &Told) {
    database.write(told.job("nothing", |_| Ok(())));
    told.next().1.unwrap();
}
