//! Promise: an I/O error at any operation of a batch leaves all old or all new data; a plain error means old, and a failed
//! sync says so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod support;

use std::fs;
use std::path::Path;

use holdfast::durable::Disk;
use holdfast::durable::atomic::{Durability, replace};
use support::disks::{EACCES, EIO, ENOSPC, fail_kind, fail_nth, gated, operations};
use support::model::{Gate, Tree, materialise};
use support::store::{commit, context, input, recover_on, scratch, write};
use support::verify::{Expect, Reference, Side, recover_and_check};

const STORES: [usize; 3] = [0, 1, 2];

fn set_up(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    commit(dir, "batch-1", &[0, 1]);
}

fn references() -> (Reference, Reference) {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir);
    let old = Reference::of(&dir, &STORES);
    commit(&dir, "batch-2", &STORES);
    (old, Reference::of(&dir, &STORES))
}

fn batch_operations() -> Vec<String> {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir);
    operations(|disk| drop(write(&disk, &context(&dir), input("batch-2", &STORES)).unwrap()))
}

/// Runs a batch on a failing disk, then looks with a working one.
fn run(gate: Gate, old: &Reference, new: &Reference) -> Result<&'static str, String> {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir);
    let result = write(&gated(gate), &context(&dir), input("batch-2", &STORES));
    let (must, outcome) = match &result {
        Ok(_) => (Some(Side::New), "done"),
        Err(error) if error.class().as_str() == "RuntimeStoreBatchPendingError" => (None, "pending"),
        Err(_) => (Some(Side::Old), "rejected"),
    };
    let expect = Expect { stores: &STORES, old, new, must };
    recover_and_check(&dir, &expect)
        .map_err(|problem| format!("{outcome} ({:?}): {problem}", result.err().map(|error| error.to_string())))?;
    Ok(outcome)
}

#[test]
fn every_operation_of_a_batch_fails_once_or_for_good() {
    let (old, new) = references();
    let operations = batch_operations();
    let (mut problems, mut outcomes) = (Vec::new(), std::collections::BTreeMap::new());
    for lasting in [false, true] {
        for errno in [EIO, ENOSPC, EACCES] {
            for (nth, operation) in operations.iter().enumerate() {
                match run(fail_nth(nth, errno, lasting), &old, &new) {
                    Ok(outcome) => *outcomes.entry(outcome).or_insert(0) += 1,
                    Err(problem) => {
                        problems.push(format!("errno {errno} at {nth} (lasting {lasting}), {operation}: {problem}"))
                    }
                }
            }
        }
    }
    println!(
        "{{\"test\":\"io_errors\",\"operations\":{},\"runs\":{},\"outcomes\":{outcomes:?},\"violations\":{}}}",
        operations.len(),
        operations.len() * 6,
        problems.len()
    );
    assert!(problems.is_empty(), "{}:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn two_failures_in_one_batch() {
    let (old, new) = references();
    let operations = batch_operations();
    let mut problems = Vec::new();
    let mut runs = 0;
    for first in
        (0..operations.len()).filter(|&i| operations[i].starts_with("Sync") || operations[i].starts_with("Rename"))
    {
        for distance in 1..25 {
            let (mut a, mut b) = (fail_nth(first, EIO, false), fail_nth(first + distance, EIO, false));
            runs += 1;
            if let Err(problem) = run(
                Box::new(move |op| {
                    let (a, b) = (a(op), b(op));
                    a.and(b)
                }),
                &old,
                &new,
            ) {
                problems.push(format!("EIO at {first} and {distance} later, {}: {problem}", operations[first]));
            }
        }
    }
    println!("{{\"test\":\"io_errors\",\"pairs\":{runs},\"violations\":{}}}", problems.len());
    assert!(problems.is_empty(), "{}:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn a_failed_sync_is_marked() {
    let operations = batch_operations();
    let syncs: Vec<usize> = (0..operations.len()).filter(|&i| operations[i].starts_with("Sync")).collect();
    assert!(syncs.len() >= 9, "{operations:?}");
    for nth in syncs {
        let scratch = scratch();
        let dir = scratch.path().join("rt");
        set_up(&dir);
        let error = write(&gated(fail_nth(nth, EIO, false)), &context(&dir), input("batch-2", &STORES)).unwrap_err();
        assert!(error.is_sync_failure(), "{}: {error:?}", operations[nth]);
    }
}

#[test]
fn recovery_rejects_and_works_later() {
    let (old, new) = references();
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir);
    write(&gated(support::disks::freeze_at("between_publish", 2)), &context(&dir), input("batch-2", &STORES))
        .unwrap_err();
    let listing = Tree::read(&dir).listing();
    let counting = scratch.path().join("count");
    materialise(&listing, &counting, |_| true);
    let operations = operations(|disk| drop(recover_on(&disk, &context(&counting), &STORES).unwrap()));
    let expect = Expect { stores: &STORES, old: &old, new: &new, must: Some(Side::New) };
    for errno in [EIO, ENOSPC, EACCES] {
        for (nth, operation) in operations.iter().enumerate() {
            let dir = scratch.path().join(format!("{errno}-{nth}"));
            materialise(&listing, &dir, |_| true);
            let result = recover_on(&gated(fail_nth(nth, errno, false)), &context(&dir), &STORES);
            if let (true, Err(error)) = (operation.starts_with("Sync"), &result) {
                assert!(error.is_sync_failure(), "{operation}: {error:?}");
            }
            recover_and_check(&dir, &expect)
                .unwrap_or_else(|problem| panic!("errno {errno} at {operation}: {problem}"));
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    println!(
        "{{\"test\":\"io_errors\",\"recovery operations\":{},\"runs\":{},\"violations\":0}}",
        operations.len(),
        operations.len() * 3
    );
}

#[test]
fn single_files_keep_the_old_bytes() {
    let scratch = scratch();
    let path = scratch.path().join("a.json");
    let fresh = || replace(&Disk::real(), &path, b"old", None, Durability::Full).unwrap();
    fresh();
    let operations = operations(|disk| replace(&disk, &path, b"new", None, Durability::Full).unwrap());
    for errno in [EIO, ENOSPC, EACCES] {
        for (nth, operation) in operations.iter().enumerate() {
            fresh();
            let result = replace(&gated(fail_nth(nth, errno, false)), &path, b"new", None, Durability::Full);
            let bytes = fs::read(&path).unwrap();
            match &result {
                Ok(()) => assert_eq!(bytes, b"new"),
                // The name is in place before its folder is synced: that failure is the only one that comes after.
                Err(error) => assert_eq!(
                    bytes == b"new",
                    error.is_sync_failure() && operation.starts_with("SyncDir"),
                    "{operation}: {error}"
                ),
            }
            assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "{operation} left something");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_synced_is_published_again() {
    let (old, new) = references();
    // Taking its lock and the second barrier sync it too, because a folder for the third store was made in it.
    assert_eq!(run(fail_kind("syncDir", "/rt", 3, false), &old, &new), Ok("pending"));
}
