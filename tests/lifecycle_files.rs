//! Promise: many handles and processes share the file of a session store without losing or repeating anything, what one commits
//! the others hear of soon, what changes nothing is not written, and nobody else may read it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/lifecycle.rs"]
mod lifecycle;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lifecycle::{T, Waited, wait};
use serde_json::json;

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn the_place_is_private_and_left_clean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/sessions.db");
    let store = Waited::file(&path);
    store.project("p");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.path().join("a")), mode(path.parent().unwrap())), (0o700, 0o700));
    for name in ["sessions.db", "sessions.db-wal", "sessions.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    assert_eq!(store.0.path().unwrap().unwrap(), path.canonicalize().unwrap());
    store.close();
    store.close();
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "only the file stays");
    let again = Waited::file(&path);
    assert_eq!(again.read(json!({ "do": "project", "id": "p" }))["id"], "p");
}

#[test]
fn eight_open_an_empty_folder_at_once_and_make_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/sessions.db");
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            thread::spawn(move || {
                let store = Waited::file(&path);
                store.project("p");
                let ids: Vec<String> = (0..20).map(|_| store.session("p")).collect();
                store.close();
                ids
            })
        })
        .collect();
    let ids: HashSet<String> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    assert_eq!(ids.len(), 160);
    let store = Waited::file(&path);
    let log = store.log(0);
    assert_eq!(log.len(), 160);
    let told: HashSet<String> = log.iter().map(|change| change["sessionId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ids);
    assert_eq!(store.read(json!({ "do": "check" })), json!([]));
}

#[test]
fn two_handles_that_probe_one_session_lose_no_update() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Waited::file(&path);
    store.project("p");
    let id = store.session("p");
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let (path, id) = (path.clone(), id.clone());
            thread::spawn(move || {
                let store = Waited::file(&path);
                for index in 0..100 {
                    store.write(json!({ "do": "patchMetadata", "id": id, "now": T,
                        "patch": { "branch": format!("{worker}-{index}") } }));
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(store.read(json!({ "do": "session", "id": id }))["revision"], 200);
}

#[test]
fn what_changes_nothing_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let wal = path.with_file_name("sessions.db-wal");
    let store = Waited::file(&path);
    store.project("p");
    let id = store.session("p");
    let observation = json!({ "do": "observePr", "id": id, "now": T, "observation": { "fetched": true, "url": "u", "number": 1,
        "ci": "failing", "checks": [{ "name": "n", "commitHash": "c", "status": "failed", "logTail": "x" }],
        "comments": [{ "commentId": "1", "body": "b" }] } });
    let first = store.write(observation.clone());
    for delivery in first["deliveries"].as_array().unwrap() {
        store.write(
            json!({ "do": "settle", "sessionId": id, "reaction": delivery["reaction"], "token": delivery["token"],
            "ok": true, "now": T }),
        );
    }
    let (mut later, before) = (observation, bytes_of(&wal));
    let stamp = std::fs::metadata(&wal).unwrap().modified().unwrap();
    thread::sleep(Duration::from_millis(20));
    for index in 1..5 {
        later["now"] = json!(T + index);
        assert_eq!(store.write(later.clone())["deliveries"], json!([]));
        store.project("p");
        store.write(json!({ "do": "patchMetadata", "id": id, "now": T + index, "patch": {} }));
        store.write(json!({ "do": "tick", "now": T + index }));
    }
    assert_eq!(bytes_of(&wal), before);
    assert_eq!(std::fs::metadata(&wal).unwrap().modified().unwrap(), stamp, "not even with the same bytes");
    // The control: something that changes is.
    store.session("p");
    assert_ne!(std::fs::metadata(&wal).unwrap().modified().unwrap(), stamp);
}

/// Counts hints.
fn watched(store: &Waited) -> (holdfast::lifecycle::backend::Watch, mpsc::Receiver<Instant>) {
    let (sender, receiver) = mpsc::channel();
    let watch = store.0.watch(move || _ = sender.send(Instant::now())).unwrap();
    (watch, receiver)
}

#[test]
fn local_commits_are_told_once_and_only_where_the_log_has_grown() {
    let folder = tempfile::tempdir().unwrap();
    let store = Waited::file(&folder.path().join("sessions.db"));
    store.project("p");
    let (watch, hints) = watched(&store);
    let id = store.session("p");
    hints.recv_timeout(Duration::from_secs(5)).expect("a change is told");
    store.write(json!({ "do": "patchMetadata", "id": id, "now": T, "patch": { "branch": "b" } }));
    store.refused(json!({ "do": "createSession", "session": { "projectId": "x" }, "now": T }));
    assert!(hints.recv_timeout(Duration::from_millis(200)).is_err(), "nothing was logged");
    // Many at once: every one is covered by a later hint, but there are fewer hints than changes.
    let (sender, receiver) = mpsc::channel();
    for _ in 0..200 {
        let sender = sender.clone();
        let command = json!({ "do": "createSession", "session": { "projectId": "p" }, "now": T }).to_string();
        store.0.write(command, Box::new(move |outcome| _ = sender.send(outcome.is_ok())));
    }
    assert_eq!((0..200).filter(|_| receiver.recv().unwrap()).count(), 200);
    thread::sleep(Duration::from_millis(100));
    let count = hints.try_iter().count();
    assert!((1..200).contains(&count), "{count} hints");
    drop(watch);
    store.session("p");
    assert!(hints.recv_timeout(Duration::from_millis(200)).is_err(), "it was ended");
}

#[test]
fn commits_of_others_are_told_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let (here, there) = (Waited::file(&path), Waited::file(&path));
    there.project("p");
    let (_watch, hints) = watched(&here);
    let mut delays: Vec<Duration> = (0..60)
        .map(|index| {
            // At rest, and in quick succession.
            thread::sleep(Duration::from_millis(if index % 3 == 0 { 90 } else { 1 }));
            let _ = hints.try_iter().count();
            there.session("p");
            let committed = Instant::now();
            let told = hints.recv_timeout(Duration::from_secs(3)).expect("a commit of another handle is told");
            told.saturating_duration_since(committed)
        })
        .collect();
    delays.sort();
    println!("told after {:?} (median), {:?} (worst)", delays[30], delays[59]);
    assert!(delays[57] < Duration::from_millis(60), "{delays:?}");
    // And what was told is there.
    assert_eq!(here.log(0).len(), 60);
}

#[test]
fn a_watch_ends_with_its_store_and_costs_nothing_at_rest() {
    let folder = tempfile::tempdir().unwrap();
    let store = Waited::file(&folder.path().join("sessions.db"));
    store.project("p");
    let (watch, hints) = watched(&store);
    let ticks = || {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<u64> =
            text.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        fields.get(11).copied().unwrap_or(0) + fields.get(12).copied().unwrap_or(0)
    };
    let before = ticks();
    thread::sleep(Duration::from_secs(2));
    // A hundredth of a second each.
    assert!(ticks() - before <= 2, "{} ticks", ticks() - before);
    let begun = Instant::now();
    store.close();
    assert!(begun.elapsed() < Duration::from_millis(900), "it does not wait for the next look");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no connection is left open");
    drop(watch);
    assert!(hints.try_recv().is_err());
    assert!(store.0.watch(|| {}).is_err());
}

#[test]
fn retention_works_by_itself_and_spares_consumers() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "target": "sqlite", "path": folder.path().join("sessions.db"), "synchronous": "normal",
        "retention": { "maxRows": 700 } });
    let store = Waited::open(&config).unwrap();
    store.project("p");
    let id = store.session("p");
    store.changes(&id, 3000);
    let kept = |store: &Waited| store.read(json!({ "do": "stats" }))["changes"].as_i64().unwrap();
    let settled = |limit: i64| {
        let end = Instant::now() + Duration::from_secs(10);
        while kept(&store) > limit && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        kept(&store)
    };
    assert!((700..=1200).contains(&settled(1200)), "{} are kept", kept(&store));
    let head = store.head();
    store.write(json!({ "do": "ack", "consumer": "c", "seq": head - 100, "now": T }));
    store.changes(&id, 2001);
    assert_eq!(store.head(), head + 2001);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(store.read(json!({ "do": "oldest" })), head - 99, "what the consumer has not confirmed is there");
}

/// Fills the log with changes of nobody, as years of use would.
fn fill(path: &Path, changes: i64) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute(
        "INSERT INTO change_log (project_id, session_id, event_type, payload, created_at)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         SELECT 'p', 'p-1', 'session_updated', json_object('id', 'p-1', 'state', 'working', 'terminationReason', '', 'isAlive', 1,
           'activity', 'active'), '2026-05-31T12:00:00.000Z' FROM n",
        [changes],
    )
    .unwrap();
}

#[test]
fn a_log_that_was_pruned_gives_its_room_back_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let config = json!({ "target": "sqlite", "path": path, "synchronous": "normal", "retention": false });
    let store = Waited::open(&config).unwrap();
    store.project("p");
    let id = store.session("p");
    fill(&path, 200_000);
    store.close();
    let full = bytes_of(&path);
    assert!(full > 30_000_000, "{full} bytes");

    let store = Waited::open(&config).unwrap();
    let removed = store.write(json!({ "do": "prune", "maxRows": 100, "now": T }));
    assert_eq!(removed, json!(199_901));
    let unused = || {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let (begun, mut writes, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while unused() > 512 && begun.elapsed() < Duration::from_secs(30) {
        let at = Instant::now();
        store.changes(&id, 1);
        longest = longest.max(at.elapsed());
        writes += 1;
    }
    println!(
        "{{\"test\":\"shrink\",\"ms\":{},\"writes\":{writes},\"longestUs\":{}}}",
        begun.elapsed().as_millis(),
        longest.as_micros()
    );
    assert!(writes > 20, "others write between the slices");
    store.close();
    let now = bytes_of(&path);
    assert!(now < 3_000_000, "{now} of {full} bytes are left");
    let store = Waited::open(&config).unwrap();
    assert_eq!(store.read(json!({ "do": "check" })), json!([]));
    assert_eq!(store.head(), 200_001 + writes);
}

#[test]
fn opening_a_store_that_is_there_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Waited::file(&path);
    store.project("p");
    store.close();
    let before = std::fs::read(&path).unwrap();
    let store = Waited::file(&path);
    assert_eq!(bytes_of(&folder.path().join("sessions.db-wal")), 0);
    store.close();
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn a_file_that_was_made_without_it_keeps_its_room_and_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA user_version = 0; VACUUM; PRAGMA journal_mode = WAL").unwrap();
    drop(db);
    let store = Waited::file(&path);
    store.project("p");
    let id = store.session("p");
    fill(&path, 20_000);
    store.write(json!({ "do": "prune", "maxRows": 100, "now": T }));
    store.changes(&id, 10);
    store.close();
    let db = rusqlite::Connection::open(&path).unwrap();
    let ask = |name| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(ask("auto_vacuum"), 0);
    assert!(ask("freelist_count") > 512);
}

#[test]
fn a_store_that_is_gone_leaves_its_operations_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let (one, two) = (Waited::file(&path), Waited::file(&path));
    one.project("p");
    let id = one.session("p");
    one.write(json!({ "do": "begin", "id": id, "kind": "restore", "now": T }));
    assert_eq!(two.write(json!({ "do": "abandoned", "now": T })), json!([]));
    let busy = two.refused(json!({ "do": "begin", "id": id, "kind": "restore", "now": T }));
    assert_eq!(busy.code().as_str(), "HF_LIFECYCLE_SESSION_BUSY");
    one.close();
    let found = two.write(json!({ "do": "abandoned", "now": T }));
    assert_eq!((&found[0]["sessionId"], &found[0]["kind"]), (&json!(id), &json!("restore")));
    assert_eq!(two.write(json!({ "do": "abandoned", "now": T })), json!([]), "it is ours now");
}

#[test]
fn a_backup_opens_and_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = Waited::file(&folder.path().join("sessions.db"));
    store.project("p");
    store.session("p");
    let to = folder.path().join("copy.db");
    let told: serde_json::Value =
        serde_json::from_str(&wait(|done| store.0.backup(to.clone(), done)).unwrap()).unwrap();
    assert_eq!(told["bytes"].as_u64().unwrap(), bytes_of(&to));
    let copy = Waited::file(&to);
    assert_eq!(copy.log(0), store.log(0));
}
