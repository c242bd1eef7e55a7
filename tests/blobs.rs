//! Promise: blobs in a folder and in a SQLite file are whole, durable, and the first of a key wins; what a disk or a stranger
//! does to them is told, not hidden.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a test")]

#[path = "support/blobs.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, SystemTime};

use holdfast::blobs::{BlobStore, FileBlobs, Gate, SqliteBlobs};
use holdfast::durable::fault::{FaultPlan, Rule};
use holdfast::durable::{Disk, Interceptor, Op};
use holdfast::error::Code;
use holdfast::sqlite::{Network, Target};
use support::{bytes, closes, contract, delete, get, has, list, put, race};

fn sqlite(path: &Path) -> SqliteBlobs {
    SqliteBlobs::new(Target::File(path.to_owned()), Network::Refuse)
}

/// All files below, with what is in them.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

fn faulty(root: &Path, rules: serde_json::Value) -> FileBlobs {
    let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
    FileBlobs::on(Disk::intercepted(Arc::new(FaultPlan::new(rules))), root)
}

#[test]
fn a_folder_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("deep/blobs");
    contract(&FileBlobs::new(&root));
    assert_eq!(files(&root), BTreeMap::new(), "nothing is left behind");
    closes(&FileBlobs::new(&root));
}

#[test]
fn what_was_accepted_before_the_end_is_done() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, path) = (scratch.path().join("blobs"), scratch.path().join("blobs.db"));
    let stores: [(Box<dyn BlobStore>, Box<dyn BlobStore>); 2] = [
        (Box::new(Gate::new(FileBlobs::new(&root))), Box::new(FileBlobs::new(&root))),
        (Box::new(Gate::new(sqlite(&path))), Box::new(sqlite(&path))),
    ];
    for (store, again) in stores {
        let (sender, receiver) = mpsc::channel();
        for number in 0..12 {
            let sender = sender.clone();
            store.put(format!("k{number}"), bytes(number, 256 << 10), Box::new(move |end| sender.send(end).unwrap()));
        }
        support::close(&*store).unwrap();
        drop(sender);
        // All had ended when the store was closed.
        let ends: Vec<_> = receiver.try_iter().collect();
        assert_eq!((ends.len(), ends.iter().all(Result::is_ok)), (12, true), "{}: {ends:?}", store.place());
        assert_eq!(put(&*store, "late", b"1").unwrap_err().code(), Code::Closed);
        assert_eq!(list(&*again).unwrap().len(), 12, "{}", store.place());
        closes(&*again);
    }
}

#[test]
fn a_sqlite_file_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    contract(&sqlite(&scratch.path().join("deep/blobs.db")));
    closes(&sqlite(&scratch.path().join("other.db")));
    contract(&SqliteBlobs::new(Target::Memory, Network::Refuse));
}

#[test]
fn files_have_the_names_of_the_format() {
    let scratch = tempfile::tempdir().unwrap();
    let store = FileBlobs::new(scratch.path());
    let long = "x".repeat(121);
    put(&store, "sha-a", b"1").unwrap();
    put(&store, &long[..120], b"2").unwrap();
    put(&store, &long, b"3").unwrap();
    let at = |key: &str, name: &str| scratch.path().join(&blake3::hash(key.as_bytes()).to_hex()[..2]).join(name);
    let hashed = format!("b3-{}", blake3::hash(long.as_bytes()).to_hex());
    let expected = BTreeMap::from([
        (at("sha-a", "7368612d61"), b"1".to_vec()),
        (at(&long[..120], &"78".repeat(120)), b"2".to_vec()),
        (at(&long, &hashed), b"3".to_vec()),
        (at(&long, &(hashed + ".key")), long.clone().into_bytes()),
    ]);
    assert_eq!(files(scratch.path()), expected);
}

#[test]
fn one_of_eight_wins() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = || Arc::new(FileBlobs::new(&scratch.path().join("folder"))) as Arc<dyn BlobStore>;
    race(&[folder(), folder(), folder()], 12, true);
    let file = || Arc::new(sqlite(&scratch.path().join("blobs.db"))) as Arc<dyn BlobStore>;
    race(&[file(), file(), file()], 12, true);
    // Where there are no hard links, within one process.
    let no_links = serde_json::json!([{ "op": "link", "nth": 0, "action": { "errno": 95 } }]);
    let store: Arc<dyn BlobStore> = Arc::new(faulty(&scratch.path().join("fat"), no_links));
    contract(&*store);
    race(&[store], 12, true);
}

#[test]
fn deletes_and_puts_of_a_long_key_never_part_it_from_its_name() {
    let scratch = tempfile::tempdir().unwrap();
    let key = "long".repeat(80);
    let stores: Vec<Arc<FileBlobs>> = (0..4).map(|_| Arc::new(FileBlobs::new(scratch.path()))).collect();
    for _ in 0..60 {
        let threads: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(number, store)| {
                let (store, key) = (Arc::clone(store), key.clone());
                std::thread::spawn(move || {
                    if number % 2 == 0 { put(&*store, &key, b"1").unwrap() } else { delete(&*store, &key).unwrap() }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let there = has(&*stores[0], &key).unwrap();
        assert_eq!(list(&*stores[0]).unwrap().len(), usize::from(there));
    }
}

/// Does something before the first operation of a kind on a path that ends so.
struct Meanwhile {
    kind: &'static str,
    ends: &'static str,
    deed: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// What fails besides.
    faults: FaultPlan,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)
    }
}

impl Interceptor for Meanwhile {
    fn before(&self, op: &Op<'_>) -> std::io::Result<()> {
        let path = match op {
            Op::Remove(path) | Op::Link(_, path) | Op::Rename(_, path) => path.to_string_lossy(),
            _ => return self.faults.before(op),
        };
        if op.kind() == self.kind && path.ends_with(self.ends) {
            let deed = self.deed.lock().unwrap().take();
            deed.into_iter().for_each(|deed| deed());
        }
        self.faults.before(op)
    }
}

#[test]
fn a_long_key_stays_with_its_blob_when_a_put_and_a_delete_meet() {
    let key = "long".repeat(80);
    for (kind, ends) in [("remove", ".key"), ("link", "")] {
        let scratch = tempfile::tempdir().unwrap();
        let (root, other) = (scratch.path().to_owned(), key.clone());
        let deed: Box<dyn FnOnce() + Send> = Box::new(move || {
            let store = FileBlobs::new(&root);
            if kind == "remove" { put(&store, &other, b"2").unwrap() } else { delete(&store, &other).unwrap() }
        });
        let faults = FaultPlan::new(Vec::new());
        let meanwhile = Arc::new(Meanwhile { kind, ends, deed: Mutex::new(Some(deed)), faults });
        let store = FileBlobs::on(Disk::intercepted(meanwhile.clone()), scratch.path());
        if kind == "remove" {
            put(&FileBlobs::new(scratch.path()), &key, b"1").unwrap();
            delete(&store, &key).unwrap();
        } else {
            put(&store, &key, b"2").unwrap();
        }
        assert!(meanwhile.deed.lock().unwrap().is_none(), "they met");
        assert_eq!(get(&store, &key).unwrap(), Some(b"2".into()), "{kind}");
        assert_eq!(list(&store).unwrap(), [key.as_str()], "{kind}");
    }
}

#[test]
fn strangers_in_the_folder_are_no_blobs() {
    let scratch = tempfile::tempdir().unwrap();
    let store = FileBlobs::new(scratch.path());
    put(&store, "sha-a", b"1").unwrap();
    let folder = files(scratch.path()).into_keys().next().unwrap().parent().unwrap().to_owned();
    for name in ["zz", "7", "7368612d62", "b3-00", "b3-00.key", "README"] {
        fs::write(folder.join(name), b"sha-b").unwrap();
    }
    fs::write(scratch.path().join("7368612d61"), b"?").unwrap();
    fs::create_dir(scratch.path().join("gg")).unwrap();
    assert_eq!(list(&store).unwrap(), ["sha-a"]);

    // A file that stands where the folder should be is told.
    let file = scratch.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = put(&FileBlobs::new(&file), "k", b"1").unwrap_err();
    assert!(error.code() == Code::Io && error.message().contains("file"), "{error}");
}

#[test]
fn what_dead_processes_left_goes_after_an_hour() {
    let scratch = tempfile::tempdir().unwrap();
    put(&FileBlobs::new(scratch.path()), "k", b"1").unwrap();
    let folder = files(scratch.path()).into_keys().next().unwrap().parent().unwrap().to_owned();
    for (name, minutes) in [(".tmp.old", 61), (".tmp.new", 59), ("kept", 600)] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(minutes * 60)).unwrap();
    }
    // Another key of the same folder, in another process.
    let key = (0..).map(|n| format!("k{n}")).find(|key| folder.ends_with(&blake3::hash(key.as_bytes()).to_hex()[..2]));
    put(&FileBlobs::new(scratch.path()), &key.unwrap(), b"1").unwrap();
    assert!(!folder.join(".tmp.old").exists());
    assert!(folder.join(".tmp.new").exists() && folder.join("kept").exists());
}

#[test]
fn a_lost_sync_is_not_forgotten_over_a_lesser_failure() {
    let scratch = tempfile::tempdir().unwrap();
    let long = "l".repeat(300);
    let folder = |key: &str| format!("{:02x}", blake3::hash(key.as_bytes()).as_bytes()[0]);
    assert_ne!(folder(&long), folder("k"));
    fs::create_dir(scratch.path().join(folder(&long))).unwrap();
    // While one put is about to fail for another reason, the sync of another one is lost.
    let rules: Vec<Rule> = serde_json::from_value(serde_json::json!([
        { "op": "rename", "pathEnds": ".key", "action": { "errno": 5 } },
        { "op": "syncDir", "nth": 0, "action": { "errno": 5 } },
    ]))
    .unwrap();
    let later: Arc<OnceLock<FileBlobs>> = Arc::default();
    let other = Arc::clone(&later);
    let deed = move || assert_eq!(put(other.get().unwrap(), "k", b"1").unwrap_err().code(), Code::Io);
    let meanwhile = Arc::new(Meanwhile {
        kind: "rename",
        ends: ".key",
        deed: Mutex::new(Some(Box::new(deed))),
        faults: FaultPlan::new(rules),
    });
    later.set(FileBlobs::on(Disk::intercepted(meanwhile.clone()), scratch.path())).map_err(drop).unwrap();
    let store = later.get().unwrap();
    assert_eq!(put(store, &long, b"1").unwrap_err().code(), Code::Io);
    assert!(meanwhile.deed.lock().unwrap().is_none(), "they met");
    assert_eq!(put(store, "m", b"1").unwrap_err().code(), Code::Poisoned);
}

/// Every operation of a put fails once; afterwards the blob is there whole or not at all, nothing else is, and a put by a new
/// store succeeds.
#[test]
fn a_put_that_fails_anywhere_leaves_nothing_in_part() {
    let long = "l".repeat(300);
    let mut failures = 0;
    for (op, errno) in [
        ("stat", 5),
        ("createDir", 13),
        ("create", 13),
        ("write", 28),
        ("syncFile", 5),
        ("link", 28),
        ("syncDir", 5),
        ("rename", 5),
    ] {
        for key in ["k", &long] {
            for nth in 1.. {
                let scratch = tempfile::tempdir().unwrap();
                let rules = serde_json::json!([{ "op": op, "nth": nth, "action": { "errno": errno } }]);
                let store = faulty(scratch.path(), rules);
                let outcome = put(&store, key, &bytes(1, 5000));
                let fresh = FileBlobs::new(scratch.path());
                let there = get(&fresh, key).unwrap();
                assert!(there.is_none() || there == Some(bytes(1, 5000)), "{op} {nth}: in part");
                let left: Vec<_> = files(scratch.path()).into_keys().collect();
                let temporary = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(".tmp.");
                assert_eq!(left.iter().filter(temporary).count(), 0, "{op} {nth}: {left:?}");
                match outcome {
                    Ok(()) => {
                        assert_eq!(there, Some(bytes(1, 5000)), "{op} {nth}: told ok");
                        break;
                    }
                    Err(error) => {
                        failures += 1;
                        let expected = if errno == 28 { Code::DiskFull } else { Code::Io };
                        assert_eq!(error.code(), expected, "{op} {nth}: {error}");
                        if op == "syncDir" {
                            let again = put(&store, key, b"1").unwrap_err();
                            assert_eq!(again.code(), Code::Poisoned, "{op} {nth}: {again}");
                        }
                    }
                }
                put(&fresh, key, &bytes(1, 5000)).unwrap();
                assert_eq!(get(&fresh, key).unwrap(), Some(bytes(1, 5000)));
                assert_eq!(list(&fresh).unwrap(), [key]);
            }
        }
    }
    assert!(failures > 20, "{failures}");
}

/// Writes down what was done, in order.
#[derive(Debug, Default)]
struct Diary(Mutex<Vec<String>>);

impl Interceptor for Diary {
    fn before(&self, _: &Op<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn after(&self, op: &Op<'_>) {
        let line = match op {
            Op::SyncDir(path) => format!("syncDir {}", path.file_name().unwrap().to_string_lossy()),
            Op::Link(..) | Op::SyncFile(_) | Op::Write { .. } | Op::Remove(_) => op.kind().to_owned(),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn a_put_answers_after_bytes_and_names_are_on_the_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let diary = Arc::new(Diary::default());
    let store = FileBlobs::on(Disk::intercepted(diary.clone()), &root);
    put(&store, "sha-a", b"1").unwrap();
    let lines = std::mem::take(&mut *diary.0.lock().unwrap());
    let at =
        |line: &str| lines.iter().rposition(|other| other == line).unwrap_or_else(|| panic!("no {line}: {lines:?}"));
    let shard = &blake3::hash(b"sha-a").to_hex()[..2];
    assert!(at("write") < at("syncFile") && at("syncFile") < at("link"), "{lines:?}");
    assert!(at("link") < at(&format!("syncDir {shard}")), "{lines:?}");
    at("syncDir root");
    at(&format!("syncDir {}", scratch.path().file_name().unwrap().to_string_lossy()));

    // Of another store's blob it is not known whether its name was synced.
    let second = FileBlobs::on(Disk::intercepted(diary.clone()), &root);
    put(&second, "sha-a", b"1").unwrap();
    let lines = std::mem::take(&mut *diary.0.lock().unwrap());
    for line in [format!("syncDir {shard}"), "syncDir root".into()] {
        assert!(lines.contains(&line), "{lines:?}");
    }
}

#[test]
fn a_damaged_row_is_an_error_and_not_an_answer() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("blobs.db");
    let store = sqlite(&path);
    put(&store, "k", &bytes(1, 100_000)).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE blobs SET data = CAST(substr(data, 1, 99999) AS BLOB)", []).unwrap();
    let error = get(&store, "k").unwrap_err();
    assert_eq!((error.code(), &error.fields()["integrity"]), (Code::Corrupt, &"k".into()));
    assert!(error.message().contains("blobs.db"), "{error}");
    delete(&store, "k").unwrap();
    put(&store, "k", b"1").unwrap();
    assert_eq!(get(&store, "k").unwrap(), Some(b"1".into()));
    let row: (String, i64, bool) = db
        .query_row("SELECT sha256, size_bytes, created_at > 1e12 FROM blobs", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(row, (holdfast::hash::sha256_hex(b"1"), 1, true));
}

#[test]
fn other_files_are_not_taken_for_blobs() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a); PRAGMA application_id = 7").unwrap();
    let store = sqlite(&path);
    assert_eq!(put(&store, "k", b"1").unwrap_err().code(), Code::InvalidArgument);
    // The next call tries again.
    fs::remove_file(&path).unwrap();
    put(&store, "k", b"1").unwrap();
    assert_eq!(list(&store).unwrap(), ["k"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_vanished_is_told_and_made_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("blobs.db");
    let store = sqlite(&path);
    put(&store, "k", b"1").unwrap();
    for name in ["blobs.db", "blobs.db-wal", "blobs.db-shm"] {
        fs::rename(scratch.path().join(name), scratch.path().join(format!("away-{name}"))).unwrap();
    }
    assert_eq!(put(&store, "l", b"1").unwrap_err().code(), Code::Io);
    put(&store, "l", b"1").unwrap();
    assert_eq!(list(&store).unwrap(), ["l"]);
}
