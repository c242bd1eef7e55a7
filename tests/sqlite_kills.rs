//! Promise: a process that is killed at any moment loses no job that was told "ok", and leaves none in part.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/sqlite.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::sqlite::{Database, Options, Synchronous, Target};
use support::{Random, load, open, options, order, present, shim, start, write};

// How a child opens its database.
const FULL: i64 = 0;
const NORMAL: i64 = 1;
/// With room in the log ahead of the commits.
const AHEAD: i64 = 2;

#[test]
fn child() {
    let Some(order) = order() else { return };
    let path = Path::new(&order[1]);
    let number = |index: usize| order[index].parse::<i64>().unwrap();
    let synchronous = if number(2) == NORMAL { Synchronous::Normal } else { Synchronous::Full };
    let options = Options { log_ahead: number(2) == AHEAD, ..options(synchronous) };
    let database = Database::open(&Target::File(path.to_owned()), options).unwrap();
    println!("ready");
    match order[0].as_str() {
        "load" => load(&database, 1, 16, number(3), i64::MAX / 2, 300),
        // Big enough that the log is written back on the way.
        "script" => {
            load(&database, 1, 1, 0, 48, 30_000);
            support::close(&database).unwrap();
            println!("closed");
        }
        // Leaves without closing.
        "open" => std::process::exit(0),
        other => panic!("{other}"),
    }
}

/// All that was acknowledged is there, and what is there has no gaps: the jobs of one writer go in in order.
fn check(path: &Path, acks: &BTreeSet<i64>) -> i64 {
    let there = present(path, 1);
    let lost: Vec<_> = acks.difference(&there).collect();
    assert!(lost.is_empty(), "told ok and lost: {lost:?}");
    let count = there.len() as i64;
    assert_eq!(there.last().map_or(0, |last| last + 1), count, "a gap");
    count
}

#[test]
fn killed_at_random_moments() {
    let mut random = Random::new("sqlite_kills");
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("test.db");
    let (mut acks, mut next) = (BTreeSet::new(), 0);
    let kills = 64;
    let mut late = 0;
    for kill in 0..kills {
        let mode = [FULL, AHEAD, AHEAD, NORMAL][kill % 4];
        let order = ["load", path.to_str().unwrap(), &mode.to_string(), &next.to_string()];
        let mut process = start(&order, &[]);
        if kill % 8 != 7 {
            process.expect("ready");
            late += 1;
        }
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        process.kill();
        let said = process.rest();
        assert!(said.killed && said.fails.is_empty(), "{said:?}");
        acks.extend(said.acks);
        if path.exists() && (kill > 0 || late > 0) {
            next = check(&path, &acks);
        }
    }
    println!(
        "{{\"test\":\"sqlite_kills\",\"kills\":{kills},\"acked\":{},\"present\":{next},\"violations\":0}}",
        acks.len()
    );
    assert!(acks.len() > 500, "only {} jobs were acknowledged: the loop shows nothing", acks.len());
}

#[test]
fn killed_at_every_write_sync_truncation_and_removal() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(shim) = shim(scratch.path()) else { return };
    let counter = scratch.path().join("count");
    let run = |path: &Path, mode: i64, nth: &str| {
        let environment = [
            ("LD_PRELOAD", shim.to_str().unwrap()),
            ("HOLDFAST_SHIM_OPS", "write,sync,truncate,unlink"),
            ("HOLDFAST_SHIM_PATH", path.file_stem().unwrap().to_str().unwrap()),
            ("HOLDFAST_SHIM_NTH", nth),
            ("HOLDFAST_SHIM_ACTION", "kill"),
            ("HOLDFAST_SHIM_COUNT", counter.to_str().unwrap()),
        ];
        start(&["script", path.to_str().unwrap(), &mode.to_string()], &environment).rest()
    };
    let place = |name: &str| -> PathBuf { scratch.path().join(format!("db-{name}.sqlite")) };
    let said = run(&place("count"), AHEAD, "0");
    assert!(said.other.contains(&"closed".to_owned()) && said.acks.len() == 48, "{said:?}");
    let count: usize = std::fs::read_to_string(&counter).unwrap().trim().parse().unwrap();
    assert!(count > 100, "{count}: the shim sees nothing");
    // Those at the begin and the end, where opening and closing happen, and a sample of those between.
    let stride = (count / 20).max(1);
    let points: Vec<usize> = (1..=count).filter(|nth| *nth <= 30 || count - nth <= 20 || nth % stride == 0).collect();
    let (mut killed, mut acked) = (0, 0);
    for nth in &points {
        let path = place(&nth.to_string());
        let said = run(&path, if nth % 2 == 0 { FULL } else { AHEAD }, &nth.to_string());
        killed += usize::from(said.killed);
        acked += said.acks.len();
        // Opening is the recovery, and must leave a database that works.
        let database = open(&path);
        check(&path, &said.acks);
        write(&database, 2, 0, 10).unwrap();
        support::close(&database).unwrap();
        assert!(!support::present(&path, 2).is_empty());
        let stem = path.file_stem().unwrap().to_str().unwrap();
        for entry in std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(entry == path || !name.starts_with(&format!("{stem}.")), "{name} was left behind");
        }
    }
    println!(
        "{{\"test\":\"sqlite_kills\",\"operations\":{count},\"points\":{},\"killed\":{killed},\"acked\":{acked},\"violations\":0}}",
        points.len()
    );
    // When the log is written back depends on the moment, so some runs end before their point.
    assert!(killed * 10 >= points.len() * 7, "{killed} of {} were killed", points.len());
}

/// The killed process may have seen a sync fail: then the log is in the system's memory, called clean, and not on the disk.
#[test]
fn what_a_killed_process_left_in_the_log_is_written_again() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(shim) = shim(scratch.path()) else { return };
    let path = scratch.path().join("db.sqlite");
    let opening = |ops: &str| {
        let counter = scratch.path().join(format!("count-{ops}"));
        let environment = [
            ("LD_PRELOAD", shim.to_str().unwrap()),
            ("HOLDFAST_SHIM_OPS", ops),
            ("HOLDFAST_SHIM_END", "-wal"),
            ("HOLDFAST_SHIM_COUNT", counter.to_str().unwrap()),
        ];
        start(&["open", path.to_str().unwrap(), "0"], &environment).expect("ready");
        std::fs::read_to_string(counter).map_or(0, |count| count.trim().parse::<u32>().unwrap())
    };
    let mut process = start(&["load", path.to_str().unwrap(), "0", "0"], &[]);
    process.expect("ready");
    std::thread::sleep(Duration::from_millis(30));
    process.kill();
    let acks = process.rest().acks;
    assert!(opening("write") >= 1 && opening("sync") >= 1);
    check(&path, &acks);
}
