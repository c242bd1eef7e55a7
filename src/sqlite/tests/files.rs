//! What becomes of files.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::error::Code;

#[test]
fn the_log_is_kept_small_and_a_long_reader_shows() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&Target::File(dir.path().join("test.db")), options()).unwrap();
    let told = Told::new();
    let fill = |rounds: u32| {
        for round in 0..rounds {
            // 400 pages a time.
            database.write(told.job("fill", move |db| {
                execute(db, "CREATE TABLE IF NOT EXISTS big (body BLOB)")?;
                execute(db, &format!("DELETE FROM big; INSERT INTO big VALUES (zeroblob({}))", 1_600_000 + round))
            }));
            told.next().1.unwrap();
        }
    };
    fill(60);
    let stats = database.stats();
    assert!(stats.wal_bytes < 20 << 20, "16 MB and one batch: {stats:?}");
    assert!(stats.checkpoints >= 3 && stats.checkpoints_held == 0, "{stats:?}");
    let (sit_down, sat) = channel();
    let (stand_up, stood) = channel::<()>();
    let reader = {
        let database = database.clone();
        std::thread::spawn(move || {
            database.read(|db| {
                execute(db, "BEGIN; SELECT count(*) FROM items")?;
                sit_down.send(()).unwrap();
                let _ = stood.recv();
                Ok(())
            })
        })
    };
    sat.recv().unwrap();
    fill(60);
    let held = database.stats();
    assert!(held.checkpoints_held > 0 && held.wal_bytes > 64 << 20, "{held:?}");
    drop(stand_up);
    reader.join().unwrap().unwrap();
    fill(30);
    assert!(database.stats().wal_bytes < 20 << 20, "{:?}", database.stats());
}

#[test]
fn memory_is_private_and_two_spellings_of_a_file_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::new();
    let (a, b) =
        (Database::open(&Target::Memory, options()).unwrap(), Database::open(&Target::Memory, options()).unwrap());
    a.write(told.insert("a"));
    told.next().1.unwrap();
    assert!(names(&b).is_empty());
    std::fs::create_dir(dir.path().join("x")).unwrap();
    let plain = Database::open(&Target::File(dir.path().join("test.db")), options()).unwrap();
    plain.write(told.insert("a"));
    told.next().1.unwrap();
    let dotted = Database::open(&Target::File(dir.path().join("x/../test.db")), options()).unwrap();
    assert_eq!((plain.path(), names(&plain)), (dotted.path(), names(&dotted)));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("test.db", dir.path().join("link")).unwrap();
        let linked = Database::open(&Target::File(dir.path().join("link")), options()).unwrap();
        assert_eq!((plain.path(), names(&plain)), (linked.path(), names(&linked)));
    }
}

fn raw(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn strangers_are_refused_by_name_and_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::copy("Cargo.toml", at("text")).unwrap();
    raw(&at("other"), "PRAGMA application_id = 7; CREATE TABLE t (a)");
    raw(&at("unmarked"), "CREATE TABLE t (a)");
    raw(
        &at("newer"),
        "PRAGMA application_id = 0x68667431; PRAGMA user_version = 2; PRAGMA journal_mode = WAL; CREATE TABLE t (a)",
    );
    let cases = [
        ("folder", Code::InvalidArgument),
        ("text", Code::Corrupt),
        ("other", Code::InvalidArgument),
        ("unmarked", Code::InvalidArgument),
        ("newer", Code::FormatTooNew),
    ];
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(&path).ok()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    for migrate in [Migrate::Auto, Migrate::Check, Migrate::Off] {
        for (name, code) in cases {
            let error = Database::open(&Target::File(at(name)), Options { migrate, ..options() }).unwrap_err();
            assert_eq!(error.code(), code, "{name}: {error}");
            assert!(error.message().contains(name) && error.fields().contains_key("path"), "{error}");
            assert!(files() == before, "{name} was touched");
        }
    }
}

#[test]
fn migrations_are_complete_or_absent() {
    const TWO: &[Migration] =
        &[MIGRATIONS[0], Migration { version: 2, name: "colour", sql: "ALTER TABLE items ADD COLUMN colour TEXT" }];
    const BROKEN: &[Migration] = &[
        MIGRATIONS[0],
        Migration { version: 2, name: "broken", sql: "CREATE TABLE early (a); CREATE TABLE items (a)" },
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let target = Target::File(path.clone());
    let with = |migrations, migrate| Options { migrations, migrate, ..options() };
    for migrate in [Migrate::Check, Migrate::Off] {
        let error = Database::open(&target, with(MIGRATIONS, migrate)).unwrap_err();
        assert_eq!((error.code(), error.node_code()), (Code::InvalidArgument, None), "{error}");
        assert!(!path.exists(), "{migrate:?} makes nothing");
    }
    close(&Database::open(&target, with(MIGRATIONS, Migrate::Auto)).unwrap()).unwrap();
    let error = Database::open(&target, with(TWO, Migrate::Check)).unwrap_err();
    assert_eq!(error.fields().get("missing").unwrap().to_string(), r#"["0002 colour"]"#, "{error}");
    let error = Database::open(&target, with(BROKEN, Migrate::Auto)).unwrap_err();
    assert_eq!(error.code(), Code::MigrationFailed);
    assert!(error.message().contains("migration 0002 broken"), "{error}");
    let said = |name| error.fields().get(name).cloned().unwrap_or_default();
    assert_eq!((said("found"), said("expected"), said("step")), (1.into(), 2.into(), "0002 broken".into()));
    assert_eq!(said("path"), path.to_string_lossy().as_ref());
    let version = |database: &Database| {
        database.read(|db| Ok(db.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap())).unwrap()
    };
    let database = Database::open(&target, with(TWO, Migrate::Off)).unwrap();
    assert_eq!(version(&database), 1, "left alone, and nothing of the broken one");
    close(&database).unwrap();
    let database = Database::open(&target, with(TWO, Migrate::Auto)).unwrap();
    assert_eq!(version(&database), 2);
    close(&database).unwrap();
    assert_eq!(Database::open(&target, with(MIGRATIONS, Migrate::Auto)).unwrap_err().code(), Code::FormatTooNew);
    const GAP: &[Migration] = &[MIGRATIONS[0], Migration { version: 3, ..MIGRATIONS[0] }];
    assert_eq!(Database::open(&Target::Memory, with(GAP, Migrate::Auto)).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_schema_may_begin_at_a_later_version_and_then_takes_no_older_file() {
    const LATER: &[Migration] = &[Migration { version: 3, ..MIGRATIONS[0] }];
    let with = |migrations| Options { migrations, ..options() };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::File(folder.path().join("d.db"));
    let older = Database::open(&target, with(MIGRATIONS)).unwrap();
    close(&older).unwrap();
    let error = Database::open(&target, with(LATER)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.fields().get("reason").unwrap(), "older", "{error}");
    let fresh = Target::File(folder.path().join("e.db"));
    for _ in 0..2 {
        let database = Database::open(&fresh, with(LATER)).unwrap();
        let version = |db: &rusqlite::Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0));
        assert_eq!(database.read(|db| Ok(version(db).unwrap())).unwrap(), 3);
        close(&database).unwrap();
    }
}

#[test]
fn who_only_reads_makes_and_changes_nothing_and_waits_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.db");
    let missing = ReadOnly::open(&path, options()).unwrap_err();
    assert_eq!(missing.node_code(), Some("ENOENT"));
    let database = Database::open(&Target::File(path.clone()), options()).unwrap();
    let writer = rusqlite::Connection::open(&path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = std::time::Instant::now();
    let reader = ReadOnly::open(&path, options()).unwrap();
    let again = Database::open(&Target::File(path.clone()), options()).unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "it waited for the writer");
    let denied = reader.read(|db| db.execute_batch("DELETE FROM items").map_err(|error| sql_error("write", error)));
    assert!(denied.is_err());
    assert_eq!(reader.check().unwrap(), Vec::<String>::new());
    reader.close();
    assert_eq!(reader.read(|_| Ok(())).unwrap_err().code(), Code::Closed);
    writer.execute_batch("ROLLBACK").unwrap();
    close(&again).unwrap();
    close(&database).unwrap();
}

#[test]
fn who_peeks_while_somebody_begins_to_write_reads_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.db");
    close(&Database::open(&Target::File(path.clone()), options()).unwrap()).unwrap();
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM items", [], |row| row.get::<_, i64>(0)).unwrap();
    let peek = || ReadOnly::peek(&path, options()).unwrap();
    let writer = || rusqlite::Connection::open(&path).unwrap();
    let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                  INSERT INTO items (name) SELECT hex(randomblob(20)) FROM n";
    // What was read is of before, and may be half of each.
    let (reader, mut calls) = (peek(), 0);
    let read = reader.read(|db| {
        calls += 1;
        let found = count(db);
        if calls == 1 {
            writer().execute_batch(insert).unwrap();
        }
        Ok(found)
    });
    assert_eq!((read.unwrap(), calls), (1000, 2));
    assert_eq!(reader.read(|db| Ok(count(db))).unwrap(), 1000);
    // It looks damaged, and somebody has it open.
    let (reader, mut open, mut calls) = (peek(), None, 0);
    let read = reader.read(|db| {
        calls += 1;
        if calls > 1 {
            return Ok(count(db));
        }
        let writer = writer();
        writer.execute_batch("INSERT INTO items (name) VALUES ('more')").unwrap();
        open = Some(writer);
        Err(crate::error::HfError::new(Code::Corrupt, "torn"))
    });
    assert_eq!((read.unwrap(), calls), (1001, 2));
    drop(open);
    // It looks damaged, and nobody was there.
    let mut calls = 0;
    let read = peek().read(|_| {
        calls += 1;
        Err::<(), _>(crate::error::HfError::new(Code::Corrupt, "damaged"))
    });
    assert_eq!((read.unwrap_err().code(), calls), (Code::Corrupt, 1));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn a_deleted_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let database = Database::open(&Target::File(path.clone()), options()).unwrap();
    let told = Told::new();
    crate::durable::Disk::real().rename(&path, &dir.path().join("moved.db")).unwrap();
    database.write(told.insert("nowhere"));
    let error = told.next().1.unwrap_err();
    assert!(error.code() == Code::Io && error.message().contains("moved or deleted"), "{error}");
    assert!(database.is_poisoned());
    database.write(told.insert("nowhere"));
    assert_eq!(told.next().1.unwrap_err().code(), Code::Poisoned);
    assert_eq!(database.read(|_| Ok(())).unwrap_err().code(), Code::Poisoned);
    close(&database).unwrap();
}

#[test]
fn a_backup_is_whole_checked_and_placed_safely() {
    both(|database| {
        let told = Told::new();
        for i in 0..50 {
            database.write(told.insert(&i.to_string()));
            told.next().1.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("deep/copy.db");
        let backup = database.backup(&to).unwrap();
        assert_eq!(backup.bytes, std::fs::metadata(&to).unwrap().len());
        assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "nothing beside it");
        let error = database.backup(&to).unwrap_err();
        assert_eq!((error.code(), &error.fields()["argument"]), (Code::InvalidArgument, &"path".into()), "{error}");
        assert!(error.message().contains("a file already"), "{error}");
        let copy = Database::open(&Target::File(to.clone()), options()).unwrap();
        assert_eq!(names(&copy), names(database));
        assert!(copy.check().unwrap().is_empty());
        assert_eq!(database.backup(&to).unwrap_err().code(), Code::InvalidArgument, "it is open");
        assert_eq!(database.backup(dir.path()).unwrap_err().code(), Code::InvalidArgument);
        if let Some(own) = database.path() {
            assert_eq!(database.backup(own).unwrap_err().code(), Code::InvalidArgument);
        }
        close(&copy).unwrap();
        // A file behind the engine's back: references that lead nowhere are found, and not backed up.
        raw(&to, "PRAGMA foreign_keys = OFF; INSERT INTO parts VALUES (77)");
        let copy = Database::open(&Target::File(to.clone()), options()).unwrap();
        assert_eq!(copy.check().unwrap(), ["row 1 of parts refers to a row of items that does not exist"]);
        let second = dir.path().join("second.db");
        assert_eq!(copy.backup(&second).unwrap_err().code(), Code::Corrupt);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no half copy is left");
    });
}

#[test]
fn of_two_backups_to_one_path_only_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&Target::File(dir.path().join("test.db")), options()).unwrap();
    for round in 0..20 {
        let to = dir.path().join(format!("{round}/copy.db"));
        let begin = std::sync::Barrier::new(2);
        let outcomes = std::thread::scope(|scope| {
            let one = || {
                begin.wait();
                database.backup(&to).map(|_| ()).map_err(|error| error.code())
            };
            let both = [scope.spawn(one), scope.spawn(one)];
            both.map(|thread| thread.join().unwrap())
        });
        assert!(outcomes.contains(&Ok(())) && outcomes.contains(&Err(Code::InvalidArgument)), "{outcomes:?}");
        assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "nothing beside it");
    }
}

#[test]
fn another_connection_that_holds_the_lock_is_waited_for_and_then_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let patient = Database::open(&Target::File(path.clone()), options()).unwrap();
    let hasty = Options { busy_timeout: Duration::from_millis(30), ..options() };
    let hasty = Database::open(&Target::File(path.clone()), hasty).unwrap();
    let told = Told::new();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    hasty.write(told.insert("hasty"));
    let error = told.next().1.unwrap_err();
    assert_eq!(error.code(), Code::Busy, "{error}");
    assert!(!hasty.is_poisoned());
    patient.write(told.insert("patient"));
    std::thread::sleep(Duration::from_millis(60));
    other.execute_batch("COMMIT").unwrap();
    told.next().1.unwrap();
    hasty.write(told.insert("hasty"));
    told.next().1.unwrap();
    assert_eq!(names(&hasty), ["patient", "hasty"]);
}

#[test]
fn many_threads_open_a_new_file_at_once() {
    for _ in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(6));
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let (target, barrier) = (Target::File(dir.path().join("new/test.db")), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    Database::open(&target, options()).map(drop)
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    }
}
