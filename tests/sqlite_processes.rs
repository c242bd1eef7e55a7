//! Promise: any number of processes may open one database, also for the first time at once, and write to it; none is refused
//! and nothing is lost.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

#[path = "support/sqlite.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast::error::Code;
use holdfast::sqlite::{Database, Options, Synchronous, Target};
use support::{close, load, open, options, order, present, start, write};

#[test]
fn child() {
    let Some(order) = order() else { return };
    let path = PathBuf::from(&order[1]);
    let writer = order[2].parse::<i64>().unwrap();
    // All begin at once: when this file appears.
    println!("waiting");
    while !Path::new(&order[3]).exists() {
        std::thread::sleep(Duration::from_micros(200));
    }
    match Database::open(&Target::File(path), options(Synchronous::Full)) {
        Err(error) => println!("open {} {error}", error.code().as_str()),
        Ok(database) => {
            println!("opened");
            let window = order.get(5).map_or(8, |window| window.parse().unwrap());
            load(&database, writer, window, 0, order[4].parse().unwrap(), 200);
            close(&database).unwrap();
        }
    }
}

fn together(scratch: &Path, path: &Path, processes: usize, jobs: i64) -> Vec<support::Said> {
    let go = scratch.join("go");
    let _ = fs::remove_file(&go);
    let started: Vec<_> = (0..processes)
        .map(|writer| {
            let order = ["load", path.to_str().unwrap(), &writer.to_string(), go.to_str().unwrap(), &jobs.to_string()];
            start(&order, &[])
        })
        .collect();
    started.iter().for_each(|process| process.expect("waiting"));
    fs::write(&go, "").unwrap();
    started.into_iter().map(support::Process::rest).collect()
}

#[test]
fn eight_first_opens_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let path = scratch.path().join(format!("new-{round}/folder/db.sqlite"));
        for (writer, said) in together(scratch.path(), &path, 8, 3).iter().enumerate() {
            assert!(said.other.contains(&"opened".to_owned()), "round {round}: {said:?}");
            assert_eq!(said.acks.len(), 3, "round {round}: {said:?}");
            assert_eq!(present(&path, writer as i64), said.acks);
        }
        let db = rusqlite::Connection::open(&path).unwrap();
        let versions = ["user_version", "application_id"]
            .map(|name| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0)).unwrap());
        assert_eq!(versions, [2, 0x6866_7431]);
    }
}

#[test]
fn processes_that_write_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("db.sqlite");
    let begun = Instant::now();
    for (writer, said) in together(scratch.path(), &path, 3, 400).iter().enumerate() {
        assert_eq!(said.acks.len(), 400, "{:?}", said.fails);
        assert_eq!(present(&path, writer as i64), said.acks);
    }
    println!("{{\"test\":\"sqlite_processes\",\"writers\":3,\"jobs\":1200,\"ms\":{}}}", begun.elapsed().as_millis());
}

/// Three processes that wrote without pause kept a fourth waiting for up to 4.3 seconds, some ten thousand of their commits, because
/// SQLite sleeps longer and longer between its tries. Who waits now says so, and the others let him through.
#[test]
fn a_lone_writer_gets_its_turn_beside_processes_that_never_pause() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("db.sqlite");
    let database = open(&path);
    let go = scratch.path().join("go");
    fs::write(&go, "").unwrap();
    let mut hot: Vec<_> = (1..4)
        .map(|writer| {
            let order =
                ["load", path.to_str().unwrap(), &writer.to_string(), go.to_str().unwrap(), &i64::MAX.to_string(), "1"];
            start(&order, &[])
        })
        .collect();
    hot.iter().for_each(|process| process.expect("opened"));
    let commits = || {
        database
            .read(|db| {
                Ok(db
                    .query_row("SELECT coalesce(max(rowid), 0) / 3 FROM parts", [], |row| row.get::<_, i64>(0))
                    .unwrap())
            })
            .unwrap()
    };
    let mut let_in = Vec::new();
    for n in 0..40 {
        let before = commits();
        write(&database, 0, n, 200).unwrap();
        let_in.push(commits() - before);
        std::thread::sleep(Duration::from_millis(5));
    }
    hot.iter_mut().for_each(support::Process::kill);
    for (process, writer) in hot.into_iter().zip(1..) {
        assert!(process.rest().acks.is_subset(&present(&path, writer)));
    }
    let_in.sort_unstable();
    println!("{{\"test\":\"sqlite_processes\",\"letIn\":{let_in:?}}}");
    assert!(let_in[20] <= 50, "commits of others while one waited: {let_in:?}");
    assert!(let_in[39] <= 600, "commits of others while one waited: {let_in:?}");
    close(&database).unwrap();
}

#[test]
fn a_killed_process_holds_nobody_up() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("db.sqlite");
    let database = open(&path);
    let go = scratch.path().join("go");
    fs::write(&go, "").unwrap();
    for round in 0..8 {
        let order =
            ["load", path.to_str().unwrap(), &(round + 10).to_string(), go.to_str().unwrap(), &i64::MAX.to_string()];
        let mut other = start(&order, &[]);
        other.expect("opened");
        for n in 0..10 {
            write(&database, 1, round * 100 + n, 100).unwrap();
        }
        other.kill();
        let said = other.rest();
        let begun = Instant::now();
        write(&database, 1, round * 100 + 50, 100).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        let there = present(&path, round + 10);
        assert!(said.acks.is_subset(&there), "{:?}", said.acks.difference(&there));
    }
    assert_eq!(present(&path, 1).len(), 88);
    assert!(database.check().unwrap().is_empty());
    close(&database).unwrap();
}

#[test]
fn a_newer_file_that_was_not_closed_is_refused_and_keeps_its_log() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("db.sqlite");
    let go = scratch.path().join("go");
    fs::write(&go, "").unwrap();
    let order = ["load", path.to_str().unwrap(), "1", go.to_str().unwrap(), &i64::MAX.to_string()];
    let mut process = start(&order, &[]);
    process.expect("opened");
    std::thread::sleep(Duration::from_millis(30));
    process.kill();
    let acks = process.rest().acks;
    assert!(!acks.is_empty());
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let bytes = || (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    let before = bytes();
    assert!(!before.1.is_empty(), "the schema itself is still in the log only");
    let older = Options { migrations: &support::MIGRATIONS[..1], ..options(Synchronous::Full) };
    let error = Database::open(&Target::File(path.clone()), older).unwrap_err();
    assert_eq!(error.code(), Code::FormatTooNew, "{error}");
    let stranger = Options { application_id: 7, ..options(Synchronous::Full) };
    let error = Database::open(&Target::File(path.clone()), stranger).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(bytes() == before, "refused, but changed");
    assert!(acks.is_subset(&present(&path, 1)));
}

#[test]
#[cfg(unix)]
fn permissions_that_are_missing_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let scratch = tempfile::tempdir().unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let go = scratch.path().join("go");
    fs::write(&go, "").unwrap();
    allow(&go, 0o644);
    for (name, file_mode, folder_mode) in
        [("unreadable", 0o000, 0o777), ("unwritable", 0o444, 0o777), ("fixed", 0o666, 0o555)]
    {
        allow(scratch.path(), 0o755);
        let folder = scratch.path().join(name);
        fs::create_dir(&folder).unwrap();
        let path = folder.join("db.sqlite");
        close(&open(&path)).unwrap();
        allow(&path, file_mode);
        allow(&folder, folder_mode);
        let order = ["load", path.to_str().unwrap(), "1", go.to_str().unwrap(), "1"];
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        if rustix::process::geteuid().is_root() {
            // Root may do everything; "nobody" may not.
            command.uid(65_534).gid(65_534);
        }
        let Ok(process) = support::spawn(&mut command, &order) else {
            println!("SKIPPED: an ordinary user cannot run {}", command.get_program().to_string_lossy());
            return;
        };
        let said = process.rest();
        allow(&folder, 0o755);
        let heard = said.other.iter().find(|line| line.starts_with("open "));
        let heard = heard.unwrap_or_else(|| panic!("{name}: {said:?}"));
        assert!(heard.starts_with("open HF_IO EACCES: open failed"), "{name}: {heard}");
        assert!(heard.contains("check the permissions"), "{name}: {heard}");
    }
}
