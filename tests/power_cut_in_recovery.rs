//! Promise: what a recovery reported stays, whatever was still in memory when the batch before it was killed and whenever the
//! power fails then.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;

use holdfast::durable::Disk;
use holdfast::durable::lock::Options;
use holdfast::runtime_store::recovery;
use support::disks::{fail_kind, freeze_at, gated};
use support::model::materialise;
use support::power::{Recorded, below, prove, record};
use support::states::{MODELS, crash_states};
use support::store::{commit, context, input, locked, recover_on, scratch, write};
use support::verify::{Reference, Side};

/// Kills a batch at a point, recovers, and cuts the power at any moment of both: what recovery reported must stay.
fn interrupted(name: &'static str, point: &'static str, nth: u32, fails: bool) -> Recorded {
    let stores = [0, 1, 2];
    let root = scratch();
    let dir = root.path().join("rt");
    let committed = scratch();
    let mut old = None;
    let log = record(
        root.path(),
        |dir| {
            fs::create_dir_all(dir).unwrap();
            commit(dir, "batch-1", &[0, 1]);
            old = Some(Reference::of(dir, &stores));
        },
        |recorder, disk, dir| {
            let mut freeze = freeze_at(point, nth);
            let mut fail = fail_kind("rename", "opencode-sessions.json", 1, false);
            recorder.set_gate(Some(Box::new(move |op| if fails { fail(op).and(freeze(op)) } else { freeze(op) })));
            write(disk, &context(dir), input("batch-2", &stores)).unwrap_err();
            recorder.set_gate(None);
            recorder.mark("killed");
            recover_on(disk, &context(dir), &stores).unwrap();
            recorder.mark("recovered");
        },
    );
    commit_like(committed.path());
    let new = Reference::of(committed.path(), &stores);
    let old = old.unwrap();
    let recovered = if fs::read(dir.join("launch-state.json")).ok() == old.files[&0] { Side::Old } else { Side::New };
    Recorded { name, log, stores: stores.to_vec(), old, new, promises: vec![("recovered", recovered)], from: None }
}

fn commit_like(dir: &Path) {
    commit(dir, "batch-1", &[0, 1]);
    commit(dir, "batch-2", &[0, 1, 2]);
}

#[test]
fn killed_before_the_barriers_then_recovered() {
    prove(&interrupted("killed before the barriers, recovered", "after_stage_files", 1, false));
}

#[test]
fn killed_after_the_commit_point_then_recovered() {
    prove(&interrupted("killed after the commit point, recovered", "after_commit_point", 1, false));
}

#[test]
fn killed_between_renames_then_recovered() {
    prove(&interrupted("killed between renames, recovered", "between_publish", 2, false));
    prove(&interrupted("killed after the renames, recovered", "after_publish", 1, false));
}

#[test]
fn killed_in_the_undo_then_recovered() {
    prove(&interrupted("killed in the undo, recovered", "in_undo", 1, true));
}

#[test]
fn a_lock_on_one_file_settles_the_batch_for_good() {
    let stores = [0, 1];
    let root = scratch();
    let committed = scratch();
    let mut old = None;
    let log = record(
        root.path(),
        |dir| {
            fs::create_dir_all(dir).unwrap();
            commit(dir, "batch-1", &stores);
            old = Some(Reference::of(dir, &stores));
        },
        |recorder, disk, dir| {
            recorder.set_gate(Some(freeze_at("between_publish", 1)));
            write(disk, &context(dir), input("batch-2", &stores)).unwrap_err();
            recorder.set_gate(None);
            let (sender, receiver) = std::sync::mpsc::channel();
            recovery::lock_file(
                disk.clone(),
                dir.join("opencode-sessions.json"),
                Options::default(),
                Box::new(move |lock| sender.send(lock.map(drop)).unwrap()),
            );
            receiver.recv().unwrap().unwrap();
            recorder.mark("locked");
            // And once more, as the next batch would.
            drop(locked(disk, &context(dir), Vec::new()).unwrap());
        },
    );
    commit(committed.path(), "batch-1", &stores);
    commit(committed.path(), "batch-2", &stores);
    let new = Reference::of(committed.path(), &stores);
    prove(&Recorded {
        name: "settled by a lock",
        log,
        stores: stores.to_vec(),
        old: old.unwrap(),
        new,
        promises: vec![("locked", Side::New)],
        from: None,
    });
}

/// Bytes that recovery takes out of the way are never lost, not even when the power fails right after.
#[test]
fn garbage_over_a_store_survives_the_recovery() {
    let stores = [0, 1];
    let root = scratch();
    let log = record(
        root.path(),
        |dir| {
            commit(dir, "batch-1", &stores);
            write(&gated(freeze_at("between_publish", 1)), &context(dir), input("batch-2", &stores)).unwrap_err();
            support::original::replace(&dir.join("launch-state.json"), b"{torn");
        },
        |recorder, disk, dir| {
            drop(locked(disk, &context(dir), Vec::new()).unwrap());
            recorder.mark("recovered");
        },
    );
    for model in MODELS {
        let scratch = scratch();
        let mut count = 0;
        crash_states(&log, model, |crash| {
            count += 1;
            let dir = scratch.path().join(count.to_string());
            materialise(&below(&crash.listing, "rt/"), &dir, |_| true);
            recover_on(&Disk::real(), &context(&dir), &stores).unwrap();
            let kept = fs::read_dir(&dir)
                .unwrap()
                .any(|entry| fs::read(entry.unwrap().path()).is_ok_and(|bytes| bytes == b"{torn"));
            assert!(kept, "{} ({:?}): lost", crash.story, crash.mark);
            assert!(support::store::plan(&context(&dir), &stores, true).unwrap().manifest_healthy, "{}", crash.story);
        });
        println!(
            "{{\"test\":\"power_cut\",\"scenario\":\"garbage, recovered\",\"model\":\"{model:?}\",\"states\":{count},\"violations\":0}}"
        );
    }
}
