//! Promise: what other programs write between a kill and the recovery survives it, and so does what they left of the batch.
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
use serde_json::json;
use support::disks::{freeze_at, gated};
use support::kills::{OURS, killed, kills, must, references};
use support::model::materialise;
use support::original::{self, Until};
use support::store::{MANIFEST, RECEIPTS, STORES, context, locked, plan, recover, scratch};
use support::verify::{Reference, Side, data};

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
        foreign(
            "atomic replace of the second store",
            |dir| original::replace(&dir.join(STORES[1].1), &original::store_bytes("by-hand", 1)),
            &[1],
            &[],
        ),
        foreign("another active run", set_active_run, &[], &[]),
        foreign(
            "hand edit and another active run",
            |dir| {
                hand_edit(dir, 1);
                set_active_run(dir)
            },
            &[1],
            &[],
        ),
        foreign("the first store removed", |dir| fs::remove_file(dir.join(STORES[0].1)).unwrap(), &[], &[]),
        foreign(
            "original batch on another store",
            |dir| original::batch(dir, "theirs-1", &[3], Until::Applied),
            &[3],
            &["theirs-1"],
        ),
        foreign(
            "two original batches on another store",
            |dir| {
                original::batch(dir, "theirs-1", &[3], Until::Applied);
                original::batch(dir, "theirs-2", &[3], Until::Applied);
            },
            &[3],
            &["theirs-1", "theirs-2"],
        ),
        foreign(
            "three original batches",
            |dir| {
                original::batch(dir, "theirs-1", &[3], Until::Applied);
                original::batch(dir, "theirs-2", &[1], Until::Applied);
                original::batch(dir, "theirs-3", &[3], Until::Applied);
            },
            &[1, 3],
            &["theirs-1", "theirs-2", "theirs-3"],
        ),
        foreign(
            "original batch on the first store",
            |dir| original::batch(dir, "theirs-1", &[0], Until::Applied),
            &[0],
            &["theirs-1"],
        ),
        foreign(
            "original batch on the second store",
            |dir| original::batch(dir, "theirs-1", &[1], Until::Applied),
            &[1],
            &["theirs-1"],
        ),
        foreign(
            "original batch on both",
            |dir| original::batch(dir, "theirs-1", &[0, 1], Until::Applied),
            &[0, 1],
            &["theirs-1"],
        ),
        foreign(
            "an original batch on each",
            |dir| {
                original::batch(dir, "theirs-1", &[0], Until::Applied);
                original::batch(dir, "theirs-2", &[1], Until::Applied);
            },
            &[0, 1],
            &["theirs-1", "theirs-2"],
        ),
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
                    problems.push(format!(
                        "{}, then {} (recovery killed first: {crash_first}): {problem}",
                        must(kill),
                        foreign.name
                    ));
                }
            }
        }
    }
    println!("{{\"test\":\"kill_points\",\"foreign writes\":{runs},\"violations\":{}}}", problems.len());
    assert!(problems.is_empty(), "{} of {runs}:\n{}", problems.len(), problems.join("\n"));
}

fn survives(dir: &Path, foreign: &Foreign, new: &Reference) -> Result<(), String> {
    let theirs: Vec<(usize, Vec<u8>)> =
        foreign.stores.iter().map(|&store| (store, fs::read(dir.join(STORES[store].1)).unwrap())).collect();
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
    let record = |id: &str| {
        receipts.as_array().unwrap().iter().filter(|record| record["batchId"] == id).cloned().collect::<Vec<_>>()
    };
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
        return if OURS.iter().all(|store| foreign.stores.contains(store)) {
            Ok(())
        } else {
            fail("superseded although stores were ours".into())
        };
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
