//! Promise: a process killed at any step, also in the middle of a recovery, leaves a directory that recovers to all old or
//! all new data; what other programs wrote in between survives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, clippy::disallowed_methods, reason = "a test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::durable::Disk;
use holdfast::durable::fault::FaultPlan;
use serde_json::{Value, json};
use support::disks::{fail_kind, fail_nth, freeze_at, gated, operations};
use support::model::{Gate, Listing, Tree, materialise};
use support::original::{self, Until};
use support::store::{MANIFEST, RECEIPTS, STORES, commit, context, input, locked, plan, recover, recover_on, scratch, write};
use support::verify::{Expect, Reference, Side, check, data, never_a_healthy_mix, recover_and_check};

const OURS: [usize; 2] = [0, 1];

/// A step to be killed at, and what the directory must then become; `None`: all old or all new.
struct Kill {
    point: &'static str,
    nth: u32,
    undoing: bool,
    becomes: Option<Side>,
}

fn kills() -> Vec<Kill> {
    let kill = |point, nth, becomes| Kill { point, nth, undoing: point == "in_undo", becomes };
    vec![
        kill("after_lock", 1, Some(Side::Old)),
        // Complete in memory, although not on the disk: a kill may be finished, a power cut may not.
        kill("after_stage_files", 1, None),
        kill("after_commit_point", 1, Some(Side::New)),
        kill("between_publish", 1, Some(Side::New)),
        kill("between_publish", 2, Some(Side::New)),
        kill("between_publish", 3, Some(Side::New)),
        kill("between_publish", 4, Some(Side::New)),
        kill("after_publish", 1, Some(Side::New)),
        kill("before_cleanup", 1, Some(Side::New)),
        kill("in_undo", 1, Some(Side::Old)),
    ]
}

fn set_up(dir: &Path, healthy: bool) {
    fs::create_dir_all(dir).unwrap();
    if healthy {
        commit(dir, "batch-1", &OURS);
    }
}

fn references(healthy: bool) -> (Reference, Reference) {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir, healthy);
    let old = Reference::of(&dir, &OURS);
    commit(&dir, "batch-2", &OURS);
    (old, Reference::of(&dir, &OURS))
}

/// A disk that dies at the step; for the undo, after a rename that fails.
fn dying(kill: &Kill) -> Gate {
    let mut freeze = freeze_at(kill.point, kill.nth);
    let mut fail = fail_kind("rename", "opencode-sessions.json", 1, false);
    let undoing = kill.undoing;
    Box::new(move |op| if undoing { fail(op).and(freeze(op)) } else { freeze(op) })
}

/// What `.holdfast` and the rest hold after a batch that died there.
fn killed(kill: &Kill, healthy: bool) -> Listing {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir, healthy);
    let result = write(&gated(dying(kill)), &context(&dir), input("batch-2", &OURS));
    assert_eq!(result.is_ok(), kill.point == "before_cleanup", "{} {}", kill.point, kill.nth);
    Tree::read(&dir).listing()
}

fn must(kill: &Kill) -> String {
    format!("killed at {} {}", kill.point, kill.nth)
}

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
                assert!(before.actions.iter().all(|action| action.kind == "roll_forward"), "{}: {before:?}", must(&kill));
                assert_eq!(before.readiness_impact, "degraded");
            }
            recover_and_check(&dir, &expect).unwrap_or_else(|problem| panic!("{}, healthy {healthy}: {problem}", must(&kill)));
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
            recover_and_check(&dir, &expect).unwrap_or_else(|problem| panic!("{}, recovery killed at {nth} of {count}: {problem}", must(&kill)));
            fs::remove_dir_all(&dir).unwrap();
            runs += 1;
        }
    }
    println!("{{\"test\":\"kill_points\",\"recoveries killed\":{runs},\"violations\":0}}");
}

// --- a real process, killed for real: its locks stay ---

#[test]
fn child() {
    let Some(order) = std::env::var_os("HOLDFAST_TEST_CHILD") else { return };
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
        let output = Command::new(std::env::current_exe().unwrap()).args(["child", "--exact"]).env("HOLDFAST_TEST_CHILD", order).output().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{}: {output:?}", must(&kill));
        assert!(dir.join("manifest.json.lock").exists(), "the dead owner's locks are there");
        let started = std::time::Instant::now();
        let expect = Expect { stores: &OURS, old: &old, new: &new, must: kill.becomes };
        recover_and_check(&dir, &expect).unwrap_or_else(|problem| panic!("{}: {problem}", must(&kill)));
        assert!(started.elapsed().as_millis() < 1000, "waited for a dead owner");
        let left: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "lock")).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

// --- other programs in between ---

/// What somebody does to the directory between the kill and the recovery.
struct Foreign {
    name: &'static str,
    act: fn(&Path),
    /// Stores whose bytes are then theirs.
    stores: &'static [usize],
    /// Batches that they applied to the manifest.
    applied: &'static [&'static str],
}

fn hand_edit(dir: &Path, store: usize) {
    use std::io::Write as _;
    let path = dir.join(STORES[store].1);
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&original::store_bytes("by-hand", store)).unwrap();
}

fn set_active_run(dir: &Path) {
    let mut manifest = original::manifest(dir);
    manifest["activeRunId"] = json!("run-9");
    original::put(&dir.join(MANIFEST), &manifest);
}

fn foreigners() -> Vec<Foreign> {
    let foreign = |name, act, stores, applied| Foreign { name, act, stores, applied };
    vec![
        foreign("nothing", |_| {}, &[], &[]),
        foreign("hand edit of the first store", |dir| hand_edit(dir, 0), &[0], &[]),
        foreign("atomic replace of the second store", |dir| original::replace(&dir.join(STORES[1].1), &original::store_bytes("by-hand", 1)), &[1], &[]),
        foreign("another active run", set_active_run, &[], &[]),
        foreign("hand edit and another active run", |dir| { hand_edit(dir, 1); set_active_run(dir) }, &[1], &[]),
        foreign("the first store removed", |dir| fs::remove_file(dir.join(STORES[0].1)).unwrap(), &[], &[]),
        foreign("original batch on another store", |dir| original::batch(dir, "theirs-1", &[3], Until::Applied), &[3], &["theirs-1"]),
        foreign("two original batches on another store", |dir| {
            original::batch(dir, "theirs-1", &[3], Until::Applied);
            original::batch(dir, "theirs-2", &[3], Until::Applied);
        }, &[3], &["theirs-1", "theirs-2"]),
        foreign("three original batches", |dir| {
            original::batch(dir, "theirs-1", &[3], Until::Applied);
            original::batch(dir, "theirs-2", &[1], Until::Applied);
            original::batch(dir, "theirs-3", &[3], Until::Applied);
        }, &[1, 3], &["theirs-1", "theirs-2", "theirs-3"]),
        foreign("original batch on the first store", |dir| original::batch(dir, "theirs-1", &[0], Until::Applied), &[0], &["theirs-1"]),
        foreign("original batch on the second store", |dir| original::batch(dir, "theirs-1", &[1], Until::Applied), &[1], &["theirs-1"]),
        foreign("original batch on both", |dir| original::batch(dir, "theirs-1", &[0, 1], Until::Applied), &[0, 1], &["theirs-1"]),
        foreign("an original batch on each", |dir| {
            original::batch(dir, "theirs-1", &[0], Until::Applied);
            original::batch(dir, "theirs-2", &[1], Until::Applied);
        }, &[0, 1], &["theirs-1", "theirs-2"]),
        foreign("original batch begun", |dir| original::batch(dir, "theirs-1", &[0, 1], Until::Begun), &[], &[]),
        foreign("original batch marked", |dir| original::batch(dir, "theirs-1", &[0, 1], Until::Marked), &[], &[]),
    ]
}

#[test]
fn what_others_wrote_in_between_survives() {
    let (_, new) = references(true);
    let mut runs = 0;
    let mut problems = Vec::new();
    for kill in kills().iter().filter(|kill| kill.becomes == Some(Side::New)) {
        let listing = killed(kill, true);
        for foreign in foreigners() {
            for crash_first in [false, true] {
                let scratch = scratch();
                let dir = scratch.path().join("rt");
                materialise(&listing, &dir, |_| true);
                (foreign.act)(&dir);
                if crash_first {
                    // The first recovery dies after it wrote one file.
                    let _ = locked(&gated(freeze_at("in_recovery", 1)), &context(&dir), Vec::new());
                }
                runs += 1;
                if let Err(problem) = survives(&dir, &foreign, &new) {
                    problems.push(format!("{}, then {} (recovery killed first: {crash_first}): {problem}", must(kill), foreign.name));
                }
            }
        }
    }
    println!("{{\"test\":\"kill_points\",\"foreign writes\":{runs},\"violations\":{}}}", problems.len());
    assert!(problems.is_empty(), "{} of {runs}:\n{}", problems.len(), problems.join("\n"));
}

fn survives(dir: &Path, foreign: &Foreign, new: &Reference) -> Result<(), String> {
    let theirs: Vec<(usize, Vec<u8>)> = foreign.stores.iter().map(|&store| (store, fs::read(dir.join(STORES[store].1)).unwrap())).collect();
    let run_before = original::manifest(dir)["activeRunId"].clone();
    let steps = locked(&Disk::real(), &context(dir), Vec::new()).map_err(|error| error.to_string())?.steps;
    let fail = |problem: String| Err(format!("{problem}; steps {steps:?}"));
    for (store, bytes) in &theirs {
        if fs::read(dir.join(STORES[*store].1)).ok().as_ref() != Some(bytes) {
            return fail(format!("the foreign bytes of {} are gone", STORES[*store].1));
        }
    }
    let superseded = dir.join(".holdfast/superseded").exists();
    let receipts = data(&dir.join(RECEIPTS));
    let manifest = data(&dir.join(MANIFEST));
    let record = |id: &str| receipts.as_array().unwrap().iter().filter(|record| record["batchId"] == id).cloned().collect::<Vec<_>>();
    for id in foreign.applied {
        if record(id).len() != 1 {
            return fail(format!("the record of {id} is gone"));
        }
    }
    if run_before == "run-9" && manifest["activeRunId"] != "run-9" {
        return fail("the other active run is gone".into());
    }
    if superseded {
        // Allowed only where nothing of ours is left to show.
        return if OURS.iter().all(|store| foreign.stores.contains(store)) { Ok(()) } else { fail("superseded although stores were ours".into()) };
    }
    let ours = record("batch-2");
    if ours.len() != 1 || ours[0]["state"] != "committed" {
        return fail(format!("the record of our batch: {ours:?}"));
    }
    for store in OURS.iter().filter(|store| !foreign.stores.contains(store)) {
        if fs::read(dir.join(STORES[*store].1)).ok() != new.files[store] {
            return fail(format!("{} does not hold our bytes", STORES[*store].1));
        }
    }
    let watermark = 2 + foreign.applied.len() as u64;
    // A batch whose every store was replaced by later batches shows in the receipts alone.
    let shows = OURS.iter().any(|store| !foreign.stores.contains(store));
    if manifest["highWatermark"].as_u64().is_none_or(|found| found > watermark || (shows && found < watermark)) {
        return fail(format!("watermark {} instead of {watermark}", manifest["highWatermark"]));
    }
    // Every store that a batch wrote last is healthy; a hand edit may be called what it is.
    let unfinished = foreign.name.contains("begun") || foreign.name.contains("marked");
    let by_hand = foreign.applied.is_empty() && !foreign.stores.is_empty();
    let plan = plan(&context(dir), &[0, 1], true).map_err(|error| error.to_string())?;
    if !by_hand && !unfinished && run_before != "run-9" && !plan.manifest_healthy {
        return fail(format!("not healthy: {plan:?}"));
    }
    let again = locked(&Disk::real(), &context(dir), Vec::new()).map_err(|error| error.to_string())?.steps;
    if !again.is_empty() {
        return fail(format!("a second recovery still did {again:?}"));
    }
    Ok(())
}

#[test]
fn garbage_over_a_store_is_kept_in_quarantine() {
    for kill in kills().iter().filter(|kill| kill.becomes == Some(Side::New) && kill.point != "before_cleanup") {
        let scratch = scratch();
        let dir = scratch.path().join("rt");
        materialise(&killed(kill, true), &dir, |_| true);
        original::replace(&dir.join(STORES[0].1), b"{torn");
        let steps = recover(&context(&dir), &OURS).unwrap();
        assert!(steps.iter().any(|step| step.kind == "quarantine"), "{}: {steps:?}", must(kill));
        let kept = fs::read_dir(&dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            path.extension().is_some_and(|extension| extension == "quarantine") && fs::read(path).unwrap() == b"{torn"
        });
        assert!(kept, "{}", must(kill));
        assert!(plan(&context(&dir), &OURS, true).unwrap().manifest_healthy, "{}", must(kill));
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
            let error = write(&gated(fail_kind("rename", end, 1, false)), &context(&dir), input("batch-2", &OURS)).unwrap_err();
            assert_eq!(error.node_code(), Some("EIO"), "position {position}: {error}");
            let record = data(&dir.join(RECEIPTS)).as_array().unwrap().last().unwrap().clone();
            assert_eq!((&record["state"], &record["hfResolution"]), (&json!("failed"), &json!("rolled_back")), "{record}");
            assert_eq!(plan(&context(&dir), &OURS, true).unwrap(), old.plan);
            recover(&context(&dir), &OURS).unwrap();
            check(&dir, &Expect { stores: &OURS, old: &old, new: &new, must: Some(Side::Old) }).unwrap();
        }
    }
}
