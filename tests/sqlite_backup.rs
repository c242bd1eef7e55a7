//! Promise: a backup taken under load is the database at one moment; one that was cut short leaves nothing behind.
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
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use holdfast::error::Code;
use support::{Insert, close, open, order, present, start, write};

#[test]
fn child() {
    let Some(order) = order() else { return };
    let database = open(Path::new(&order[0]));
    println!("ready");
    for n in 0.. {
        database.backup(&Path::new(&order[1]).join(format!("{n}.sqlite"))).unwrap();
        println!("backed");
    }
}

fn filled(path: &Path, jobs: i64, bytes: usize) -> holdfast::sqlite::Database {
    let database = open(path);
    for n in 0..jobs {
        write(&database, 1, n, bytes).unwrap();
    }
    database
}

#[test]
fn under_load_it_is_one_moment() {
    let scratch = tempfile::tempdir().unwrap();
    let database = filled(&scratch.path().join("db.sqlite"), 200, 10_000);
    let (acked, longest) = (Arc::new(AtomicI64::new(199)), Arc::new(AtomicI64::new(0)));
    let stop = Arc::new(AtomicI64::new(0));
    let writer = {
        let (database, acked, longest, stop) =
            (database.clone(), Arc::clone(&acked), Arc::clone(&longest), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut n = 200;
            while stop.load(Ordering::SeqCst) == 0 {
                let begun = Instant::now();
                write(&database, 1, n, 2_000).unwrap();
                acked.store(n, Ordering::SeqCst);
                longest.fetch_max(begun.elapsed().as_micros() as i64, Ordering::SeqCst);
                n += 1;
            }
            n
        })
    };
    let mut to = PathBuf::new();
    let mut sizes = Vec::new();
    for n in 0..10 {
        to = scratch.path().join(format!("copies/{n}.sqlite"));
        let before = acked.load(Ordering::SeqCst);
        let backup = database.backup(&to).unwrap();
        let there = present(&to, 1);
        // No gap, all that was acknowledged before, nothing that was not yet begun after.
        assert!(there.iter().copied().eq(0..there.len() as i64), "a gap");
        let last = there.last().copied().unwrap();
        assert!(last >= before && last <= acked.load(Ordering::SeqCst) + 1, "{before} <= {last}");
        assert_eq!(backup.bytes, fs::metadata(&to).unwrap().len());
        sizes.push(there.len());
    }
    stop.store(1, Ordering::SeqCst);
    let written = writer.join().unwrap();
    assert!(sizes.last() > sizes.first(), "nothing was written meanwhile: {sizes:?}");
    close(&database).unwrap();
    // Restored twice over a folder that exists, it opens and takes writes.
    let restored = scratch.path().join("restored.sqlite");
    for _ in 0..2 {
        fs::copy(&to, &restored).unwrap();
        let database = open(&restored);
        write(&database, 2, 0, 10).unwrap();
        close(&database).unwrap();
    }
    println!(
        "{{\"test\":\"sqlite_backup\",\"backups\":10,\"jobs\":{written},\"longest write us\":{},\"violations\":0}}",
        longest.load(Ordering::SeqCst)
    );
}

#[test]
fn killed_half_way_it_leaves_whole_copies_or_none() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("db.sqlite");
    close(&filled(&path, 100, 10_000)).unwrap();
    let mut random = support::Random::new("sqlite_backup");
    for round in 0..15 {
        let copies = scratch.path().join(format!("copies-{round}"));
        let mut process = start(&[path.to_str().unwrap(), copies.to_str().unwrap()], &[]);
        process.expect("backed");
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        process.kill();
        process.rest();
        let made: Vec<PathBuf> = fs::read_dir(&copies).unwrap().map(|entry| entry.unwrap().path()).collect();
        let named: Vec<_> = made.iter().filter(|path| path.extension().is_some_and(|end| end == "sqlite")).collect();
        assert!(!named.is_empty());
        for copy in named {
            assert_eq!(present(copy, 1).len(), 100);
        }
    }
}

#[test]
fn closing_cuts_a_backup_short() {
    let scratch = tempfile::tempdir().unwrap();
    let database = filled(&scratch.path().join("db.sqlite"), 150, 100_000);
    let to = scratch.path().join("copies/copy.sqlite");
    let copying = {
        let (database, to) = (database.clone(), to.clone());
        std::thread::spawn(move || database.backup(&to))
    };
    let begun = Instant::now();
    while !fs::read_dir(to.parent().unwrap()).is_ok_and(|mut files| files.next().is_some()) {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    close(&database).unwrap();
    match copying.join().unwrap() {
        Err(error) => {
            assert_eq!(error.code(), Code::Closed, "{error}");
            let left: Vec<PathBuf> =
                fs::read_dir(to.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        // Faster than the closing: then it is whole.
        Ok(_) => assert_eq!(present(&to, 1).len(), 150),
    }
}

#[test]
fn a_job_can_be_in_flight_while_the_copy_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let database = filled(&scratch.path().join("db.sqlite"), 1, 10);
    let (tell, told) = std::sync::mpsc::channel();
    for n in 1..50 {
        let tell = tell.clone();
        let report = move |_: i64, outcome: holdfast::error::Result<()>| drop(tell.send(outcome));
        database.write(Box::new(Insert { writer: 1, n, bytes: 50_000, told: report }));
    }
    let to = scratch.path().join("copy.sqlite");
    database.backup(&to).unwrap();
    (1..50).for_each(|_| told.recv_timeout(support::WAIT).unwrap().unwrap());
    let there = present(&to, 1);
    assert!(there.iter().copied().eq(0..there.len() as i64));
}
