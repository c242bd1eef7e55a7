//! Promise: a directory that the JSON-file implementation left at any step of a batch is planned as that implementation
//! would, and recovers without losing a byte.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use holdfast::runtime_store::planner::Plan;
use serde_json::{Value, json};
use support::original::{self, STEPS, Until};
use support::store::{MANIFEST, RECEIPTS, STORES, context, input, plan, recover, scratch, write};
use support::verify::data;

const BOTH: [usize; 2] = [0, 1];

/// The directory, with a lock that the dead process left.
fn left(dir: &Path, healthy: bool, until: Option<Until>) {
    fs::create_dir_all(dir).unwrap();
    if healthy {
        original::batch(dir, "batch-1", &BOTH, Until::Applied);
    }
    if let Some(until) = until {
        original::batch(dir, "batch-2", &BOTH, until);
    }
    fs::File::create(dir.join("manifest.json.lock")).unwrap().write_all(b"9999999\n1795226252656\n").unwrap();
}

fn summary(plan: &Plan) -> Vec<String> {
    plan.actions
        .iter()
        .map(|action| {
            format!(
                "{} {} {}",
                action.kind,
                action.schema_name.trim_start_matches("opencode."),
                action.reason.as_deref().unwrap_or("-")
            )
        })
        .collect()
}

/// The crash table of the original.
fn table(healthy: bool, until: Option<Until>) -> (Vec<&'static str>, &'static str) {
    const UB: &str = "block_readiness launchTransaction uncommitted_batch:batch-2";
    let none = ["none launchState -", "none sessionStore -"];
    let missing = ["block_readiness launchState missing", "rebuild_from_provider sessionStore missing"];
    let first = ["block_readiness launchState uncommitted_write", "rebuild_from_provider sessionStore missing"];
    let both =
        ["block_readiness launchState uncommitted_write", "rebuild_from_provider sessionStore uncommitted_write"];
    let hash_first = ["quarantine launchState hash_mismatch", "none sessionStore -"];
    let hash_both = ["quarantine launchState hash_mismatch", "quarantine sessionStore hash_mismatch"];
    let (stores, open) = match (until, healthy) {
        (None, false) => (missing, false),
        (None, true) | (Some(Until::Applied), _) => (none, false),
        (Some(Until::Begun | Until::Marked), false) => (missing, true),
        (Some(Until::Begun | Until::Marked), true) => (none, true),
        (Some(Until::FirstFile), false) => (first, true),
        (Some(Until::FirstFile), true) => (hash_first, true),
        (Some(Until::SecondFile), false) => (both, true),
        (Some(Until::SecondFile), true) => (hash_both, true),
        (Some(Until::ReceiptsCommitted), false) => (both, false),
        (Some(Until::ReceiptsCommitted), true) => (hash_both, false),
    };
    let impact = if stores == none && !open { "none" } else { "blocked" };
    (stores.into_iter().chain(open.then_some(UB)).collect(), impact)
}

fn rows() -> impl Iterator<Item = (bool, Option<Until>)> {
    [false, true]
        .into_iter()
        .flat_map(|healthy| std::iter::once(None).chain(STEPS.into_iter().map(Some)).map(move |until| (healthy, until)))
}

#[test]
fn planned_as_the_original_would() {
    for (healthy, until) in rows() {
        let scratch = scratch();
        left(scratch.path(), healthy, until);
        let context = context(scratch.path());
        let before = list(scratch.path());
        let found = plan(&context, &BOTH, false).unwrap();
        let (actions, impact) = table(healthy, until);
        assert_eq!(
            (summary(&found), found.readiness_impact),
            (actions.iter().map(|text| (*text).to_owned()).collect(), impact),
            "{healthy} {until:?}"
        );
        // With roll-forward only the row where receipts and files agree reads otherwise.
        let forward = plan(&context, &BOTH, true).unwrap();
        if until == Some(Until::ReceiptsCommitted) {
            assert_eq!(forward.readiness_impact, "degraded");
            assert!(
                forward
                    .actions
                    .iter()
                    .all(|action| action.kind == "roll_forward" && action.batch_id.as_deref() == Some("batch-2")),
                "{forward:?}"
            );
            assert!(
                forward.actions.iter().all(|action| action.reason.as_deref() == Some("committed_batch_not_applied"))
            );
        } else {
            assert_eq!(forward.actions, found.actions);
        }
        assert_eq!(list(scratch.path()), before, "planning writes nothing");
    }
}

fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every store byte that was there, in place or in quarantine.
fn nothing_lost(dir: &Path, before: &[Vec<u8>], row: &str) {
    let now: Vec<Vec<u8>> = list(dir).iter().filter_map(|name| fs::read(dir.join(name)).ok()).collect();
    for bytes in before {
        assert!(now.contains(bytes), "{row}: lost {}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn recovered_without_loss() {
    for (healthy, until) in rows() {
        let row = format!("healthy {healthy}, {until:?}");
        let scratch = scratch();
        let dir = scratch.path();
        left(dir, healthy, until);
        let watermark = original::manifest(dir)["highWatermark"].as_u64().unwrap();
        let stores: Vec<Vec<u8>> = BOTH.iter().filter_map(|&store| fs::read(dir.join(STORES[store].1)).ok()).collect();
        let steps = recover(&context(dir), &BOTH).unwrap();
        let after = plan(&context(dir), &BOTH, true).unwrap();
        nothing_lost(dir, &stores, &row);
        let record = |id: &str| {
            original::receipts(dir).as_array().unwrap().iter().find(|record| record["batchId"] == id).cloned()
        };
        match until {
            None | Some(Until::Applied) => assert!(steps.is_empty(), "{row}: {steps:?}"),
            Some(Until::ReceiptsCommitted) => {
                assert!(after.manifest_healthy, "{row}: {after:?}");
                assert_eq!(original::manifest(dir)["highWatermark"], json!(watermark + 1), "{row}");
                assert_eq!(original::manifest(dir)["lastCommittedBatchId"], json!("batch-2"), "{row}");
                assert_eq!(original::manifest(dir)["lastPreparingBatchId"], Value::Null, "{row}");
            }
            Some(Until::Begun | Until::Marked) if healthy => {
                assert!(after.manifest_healthy, "{row}: {after:?}");
                assert!(record("batch-2").is_none(), "{row}");
                let archive = fs::read_to_string(dir.join(".holdfast/receipts.archive.jsonl")).unwrap();
                assert!(archive.contains("\"batch-2\"") && archive.contains("abandoned"), "{archive}");
            }
            Some(_) => assert!(!after.manifest_healthy, "{row}: a half batch must not look healthy: {after:?}"),
        }
        let again = recover(&context(dir), &BOTH).unwrap();
        assert!(again.is_empty(), "{row}: a second recovery did {again:?}");
        // Life goes on: the next batch commits, and the plan is healthy once nothing of the original is open.
        write(&holdfast::durable::Disk::real(), &context(dir), input("batch-3", &BOTH)).unwrap();
        recover(&context(dir), &BOTH).unwrap();
        assert!(plan(&context(dir), &BOTH, true).unwrap().manifest_healthy, "{row}");
    }
}

#[test]
fn young_records_are_left_alone() {
    let scratch = scratch();
    left(scratch.path(), true, Some(Until::Begun));
    let mut orders = support::store::request(&BOTH, true);
    orders.plan_id = "plan-2".into();
    let orders = holdfast::runtime_store::executor::Orders {
        plan: orders,
        now: "2026-04-21T12:00:30.000Z".into(),
        settle_ms: 60_000.0,
        rebuildable: Vec::new(),
        retention: Some(16),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let context = context(scratch.path());
    holdfast::runtime_store::executor::finish(
        holdfast::durable::Disk::real(),
        context,
        orders,
        Box::new(move |steps| sender.send(steps).unwrap()),
    );
    assert_eq!(receiver.recv().unwrap().unwrap(), Vec::new());
    let receipts = data(&scratch.path().join(RECEIPTS));
    assert_eq!(receipts[1]["state"], "preparing");
    assert!(scratch.path().join(MANIFEST).exists());
}
