//! Promise: after a power cut at any moment a batch is wholly there or wholly absent, and there for sure once it was
//! acknowledged. Every state that the two disk models allow is opened, recovered and checked.
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

use holdfast::durable::atomic::Durability;
use support::disks::fail_kind;
use support::power::{Recorded, batch, prove, record};
use support::store::{commit, context, input, recover_on, scratch, write};
use support::verify::{Reference, Side};

const NOBODY: fn(&Path) = |_| {};

#[test]
fn first_batch_ever() {
    prove(&batch("first batch ever", &[0, 1], NOBODY, Durability::Full));
}

#[test]
fn two_healthy_stores() {
    prove(&batch("two healthy stores", &[0, 1], |dir| commit(dir, "batch-1", &[0, 1]), Durability::Full));
}

#[test]
fn four_healthy_stores_one_in_a_subfolder() {
    prove(&batch("four healthy stores", &[0, 1, 2, 3], |dir| commit(dir, "batch-1", &[0, 1, 2, 3]), Durability::Full));
}

#[test]
fn new_and_replaced_stores() {
    prove(&batch("new and replaced stores", &[0, 1, 2], |dir| commit(dir, "batch-1", &[1]), Durability::Full));
}

#[test]
fn a_folder_that_does_not_exist() {
    let root = scratch();
    let dir = root.path().join("rt");
    let empty = scratch();
    let log = record(root.path(), NOBODY, |recorder, disk, dir| {
        write(disk, &context(dir), input("batch-2", &[0, 2])).unwrap();
        recorder.mark("acked");
    });
    let (old, new) = (Reference::of(empty.path(), &[0, 2]), Reference::of(&dir, &[0, 2]));
    prove(&Recorded {
        name: "no folder yet",
        log,
        stores: vec![0, 2],
        old,
        new,
        promises: vec![("acked", Side::New)],
        from: None,
    });
}

/// Records a batch whose publication fails at the second target: the undo is complete when the call rejects.
fn undone(setup: impl Fn(&Path)) -> Recorded {
    let stores = [0, 1, 2];
    let root = scratch();
    let committed = scratch();
    let mut old = None;
    let log = record(
        root.path(),
        |dir| {
            fs::create_dir_all(dir).unwrap();
            setup(dir);
            old = Some(Reference::of(dir, &stores));
        },
        |recorder, disk, dir| {
            recorder.set_gate(Some(fail_kind("rename", "opencode-sessions.json", 1, false)));
            let error = write(disk, &context(dir), input("batch-2", &stores)).unwrap_err();
            assert_eq!(error.class().as_str(), "HoldfastError", "{error}");
            recorder.mark("rejected");
        },
    );
    // The bytes that it would have had: a power cut before the undo began may still finish it.
    fs::create_dir_all(committed.path()).unwrap();
    setup(committed.path());
    commit(committed.path(), "batch-2", &stores);
    let new = Reference::of(committed.path(), &stores);
    Recorded {
        name: "undo after a failed publish",
        log,
        stores: stores.to_vec(),
        old: old.unwrap(),
        new,
        promises: vec![("rejected", Side::Old)],
        from: None,
    }
}

#[test]
fn undo_after_a_failed_publish() {
    prove(&undone(|dir| commit(dir, "batch-1", &[0, 1])));
}

#[test]
fn a_batch_after_a_batch() {
    let stores = [0, 1];
    let root = scratch();
    let dir = root.path().join("rt");
    let mut old = None;
    let log = record(
        root.path(),
        |dir| fs::create_dir_all(dir).unwrap(),
        |recorder, disk, dir| {
            write(disk, &context(dir), input("batch-1", &stores)).unwrap();
            old = Some(Reference::of(dir, &stores));
            recorder.mark("first");
            write(disk, &context(dir), input("batch-2", &stores)).unwrap();
            recorder.mark("acked");
        },
    );
    let new = Reference::of(&dir, &stores);
    // The first one's redo folder is gone for the living, but a power cut may bring it back beside the second one's.
    prove(&Recorded {
        name: "a batch after a batch",
        log,
        stores: stores.to_vec(),
        old: old.unwrap(),
        new,
        promises: vec![("acked", Side::New)],
        from: Some("first"),
    });
}

#[test]
fn rejected_before_the_commit_point() {
    for end in ["intent.json", "next-1", "/batch-2", "/stage"] {
        let stores = [0, 1];
        let (root, committed) = (scratch(), scratch());
        let mut old = None;
        let log = record(
            root.path(),
            |dir| {
                commit(dir, "batch-1", &stores);
                old = Some(Reference::of(dir, &stores));
            },
            |recorder, disk, dir| {
                let kind = if end.starts_with('/') { "syncDir" } else { "syncFile" };
                recorder.set_gate(Some(fail_kind(kind, end, 1, false)));
                let error = write(disk, &context(dir), input("batch-2", &stores)).unwrap_err();
                assert_eq!(error.class().as_str(), "HoldfastError", "{error}");
                recorder.mark("rejected");
            },
        );
        commit(committed.path(), "batch-1", &stores);
        commit(committed.path(), "batch-2", &stores);
        let new = Reference::of(committed.path(), &stores);
        prove(&Recorded {
            name: "rejected at a barrier",
            log,
            stores: stores.to_vec(),
            old: old.unwrap(),
            new,
            promises: vec![("rejected", Side::Old)],
            from: None,
        });
    }
}

#[test]
fn published_again_after_a_failed_third_barrier() {
    let stores = [0, 1];
    let root = scratch();
    let dir = root.path().join("rt");
    let mut old = None;
    let log = record(
        root.path(),
        |dir| {
            commit(dir, "batch-1", &stores);
            old = Some(Reference::of(dir, &stores));
        },
        |recorder, disk, dir| {
            recorder.set_gate(Some(fail_kind("syncDir", "/rt", 1, false)));
            let error = write(disk, &context(dir), input("batch-2", &stores)).unwrap_err();
            assert_eq!(error.class().as_str(), "RuntimeStoreBatchPendingError", "{error}");
            recorder.set_gate(None);
            let steps = recover_on(disk, &context(dir), &stores).unwrap();
            assert!(steps.iter().any(|step| step.kind == "roll_forward"), "{steps:?}");
            recorder.mark("recovered");
        },
    );
    let new = Reference::of(&dir, &stores);
    prove(&Recorded {
        name: "published again",
        log,
        stores: stores.to_vec(),
        old: old.unwrap(),
        new,
        promises: vec![("recovered", Side::New)],
        from: None,
    });
}
