//! Promise: a process killed at any step, also in the middle of a recovery, leaves a directory that recovers to all old or
//! all new data.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::durable::Disk;
use holdfast::durable::fault::FaultPlan;
use serde_json::{Value, json};
use support::disks::{fail_kind, fail_nth, gated, operations};
use support::kills::{OURS, dying, killed, kills, must, references, set_up};
use support::model::materialise;
use support::store::{MANIFEST, RECEIPTS, context, input, plan, recover, recover_on, scratch, write};
use support::verify::{Expect, Side, check, data, never_a_healthy_mix, recover_and_check};

#[test]
fn every_row_of_the_crash_table() {
    for healthy in [false, true] {
        let (old, new) = references(healthy);
        for kill in kills() {
            let scratch = scratch();
            let expect = Expect { stores: &OURS, old: &old, new: &new, must: kill.becomes };
            let listing = killed(&kill, healthy);
            let bare = scratch.path().join("bare");
            materialise(&listing, &bare, |path| !path.starts_with(".holdfast"));
            never_a_healthy_mix(&bare, &expect).unwrap();
            let dir = scratch.path().join("rt");
            materialise(&listing, &dir, |_| true);
            // Planned before recovery: the open batch explains what looks wrong.
            let before = plan(&context(&dir), &OURS, true).unwrap();
            if kill.becomes == Some(Side::New) && kill.nth < 4 && kill.point.starts_with("between") {
                assert!(
                    before.actions.iter().all(|action| action.kind == "roll_forward"),
                    "{}: {before:?}",
                    must(&kill)
                );
                assert_eq!(before.readiness_impact, "degraded");
            }
            recover_and_check(&dir, &expect)
                .unwrap_or_else(|problem| panic!("{}, healthy {healthy}: {problem}", must(&kill)));
        }
    }
}

#[test]
fn recovery_killed_at_each_of_its_operations() {
    let (old, new) = references(true);
    let mut runs = 0;
    for kill in kills() {
        let listing = killed(&kill, true);
        let expect = Expect { stores: &OURS, old: &old, new: &new, must: kill.becomes };
        let fresh = |name: &str, root: &Path| {
            let dir = root.join(name);
            materialise(&listing, &dir, |_| true);
            dir
        };
        let scratch = scratch();
        let counting = fresh("count", scratch.path());
        let count = operations(|disk| drop(recover_on(&disk, &context(&counting), &OURS).unwrap())).len();
        for nth in 0..count {
            let dir = fresh(&nth.to_string(), scratch.path());
            // What it answers does not matter: the process is dead.
            let _ = recover_on(&gated(fail_nth(nth, 5, true)), &context(&dir), &OURS);
            recover_and_check(&dir, &expect)
                .unwrap_or_else(|problem| panic!("{}, recovery killed at {nth} of {count}: {problem}", must(&kill)));
            fs::remove_dir_all(&dir).unwrap();
            runs += 1;
        }
    }
    println!("{{\"test\":\"kill_points\",\"recoveries killed\":{runs},\"violations\":0}}");
}

#[test]
fn child() {
    let Some(order) = std::env::var_os("HOLDFAST_TEST_CHILD") else {
        return;
    };
    let order: Value = serde_json::from_str(order.to_str().unwrap()).unwrap();
    let rules = serde_json::from_value(order["rules"].clone()).unwrap();
    let disk = Disk::intercepted(std::sync::Arc::new(FaultPlan::new(rules)));
    let _ = write(&disk, &context(Path::new(order["dir"].as_str().unwrap())), input("batch-2", &OURS));
    panic!("should have been killed");
}

#[test]
fn a_real_kill_at_every_point() {
    let (old, new) = references(true);
    for kill in kills() {
        let scratch = scratch();
        let dir = scratch.path().join("rt");
        set_up(&dir, true);
        let mut rules = vec![json!({ "point": kill.point, "nth": kill.nth, "action": "kill" })];
        if kill.undoing {
            rules.push(json!({ "op": "rename", "pathEnds": "opencode-sessions.json", "action": { "errno": 5 } }));
        }
        let order = json!({ "dir": dir, "rules": rules }).to_string();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact"])
            .env("HOLDFAST_TEST_CHILD", order)
            .output()
            .unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&output.status),
            Some(9),
            "{}: {output:?}",
            must(&kill)
        );
        assert!(dir.join("manifest.json.lock").exists(), "the dead owner's locks are there");
        let started = std::time::Instant::now();
        let expect = Expect { stores: &OURS, old: &old, new: &new, must: kill.becomes };
        recover_and_check(&dir, &expect).unwrap_or_else(|problem| panic!("{}: {problem}", must(&kill)));
        assert!(started.elapsed().as_millis() < 1000, "waited for a dead owner");
        let left: Vec<PathBuf> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "lock"))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

#[test]
fn control_files_in_a_folder_of_their_own() {
    for kill in kills().iter().filter(|kill| kill.becomes == Some(Side::New)) {
        let scratch = scratch();
        let mut context = context(&scratch.path().join("rt"));
        context.manifest = scratch.path().join("control/manifest.json");
        context.receipts = scratch.path().join("elsewhere/receipts.json");
        let stores = [0, 1, 2];
        let _ = write(&gated(dying(kill)), &context, input("batch-1", &stores));
        recover(&context, &stores).unwrap_or_else(|error| panic!("{}: {error:?}", must(kill)));
        let plan = plan(&context, &stores, true).unwrap();
        assert!(plan.manifest_healthy, "{}: {plan:?}", must(kill));
        assert!(recover(&context, &stores).unwrap().is_empty());
    }
}

#[test]
fn an_undo_leaves_the_batch_failed_and_harmless() {
    for healthy in [false, true] {
        let (old, new) = references(healthy);
        for (end, position) in [("launch-state.json", 0), ("opencode-sessions.json", 1), (RECEIPTS, 2), (MANIFEST, 3)] {
            let scratch = scratch();
            let dir = scratch.path().join("rt");
            set_up(&dir, healthy);
            let error =
                write(&gated(fail_kind("rename", end, 1, false)), &context(&dir), input("batch-2", &OURS)).unwrap_err();
            assert_eq!(error.node_code(), Some("EIO"), "position {position}: {error}");
            let record = data(&dir.join(RECEIPTS)).as_array().unwrap().last().unwrap().clone();
            assert_eq!(
                (&record["state"], &record["hfResolution"]),
                (&json!("failed"), &json!("rolled_back")),
                "{record}"
            );
            assert_eq!(plan(&context(&dir), &OURS, true).unwrap(), old.plan);
            recover(&context(&dir), &OURS).unwrap();
            check(&dir, &Expect { stores: &OURS, old: &old, new: &new, must: Some(Side::Old) }).unwrap();
        }
    }
}
