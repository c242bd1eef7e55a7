//! Runtime directories to work on, through the engine's own entry points.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use holdfast::durable::atomic::Durability;
use holdfast::durable::{Disk, lock};
use holdfast::error::Result;
use holdfast::runtime_store::Context;
use holdfast::runtime_store::batch::{self, Input, Write};
use holdfast::runtime_store::executor::{self, Orders};
use holdfast::runtime_store::inspector::Descriptor;
use holdfast::runtime_store::planner::{self, Plan, Request};
use holdfast::runtime_store::recovery::{self, Locked, Step};

pub const NOW: &str = "2026-04-21T12:00:00.000Z";
pub const MANIFEST: &str = "manifest.json";
pub const RECEIPTS: &str = "opencode-runtime-receipts.json";
/// Schema name, path, strategy, criticality.
pub const STORES: [(&str, &str, &str, &str); 4] = [
    ("opencode.launchState", "launch-state.json", "none", "readiness_blocking"),
    ("opencode.sessionStore", "opencode-sessions.json", "poll_opencode_provider", "rebuildable_from_provider"),
    (
        "opencode.deliveryJournal",
        "sub/opencode-delivery-journal.json",
        "verify_canonical_destinations",
        "rebuildable_from_canonical_destination",
    ),
    ("opencode.hostLeases", "opencode-host-leases.json", "poll_opencode_provider", "rebuildable_from_provider"),
];

/// A scratch folder in memory where there is one, else where temporary files go.
pub fn scratch() -> tempfile::TempDir {
    let builder = || tempfile::Builder::new();
    builder().prefix("holdfast-").tempdir_in("/dev/shm").or_else(|_| builder().prefix("holdfast-").tempdir()).unwrap()
}

pub fn context(dir: &Path) -> Context {
    Context {
        dir: dir.to_owned(),
        manifest: dir.join(MANIFEST),
        receipts: dir.join(RECEIPTS),
        extra_names: Vec::new(),
        durability: Durability::Full,
        lock_options: lock::Options { acquire_timeout: Duration::from_secs(20), ..lock::Options::default() },
    }
}

pub fn default_manifest() -> String {
    format!(
        "{{\"schemaVersion\":1,\"teamName\":\"team-a\",\"activeRunId\":null,\"activeCapabilitySnapshotId\":null,\
         \"activeBehaviorFingerprint\":null,\"highWatermark\":0,\"lastCommittedBatchId\":null,\"lastPreparingBatchId\":null,\
         \"entries\":[],\"lastRecoveryPlanId\":null,\"updatedAt\":\"{NOW}\"}}"
    )
}

/// A batch that writes `{"batch": id, "pad": "…"}` to the stores with these indices in [`STORES`].
pub fn input(batch_id: &str, stores: &[usize]) -> Input {
    let write = |&store: &usize| Write {
        schema_name: STORES[store].0.into(),
        schema_version: 1.0,
        relative_path: STORES[store].1.into(),
        written_at: NOW.into(),
        receipt_id: format!("{batch_id}-receipt-{store}"),
        data: Some(format!("{{\"batch\":\"{batch_id}\",\"store\":{store},\"pad\":\"{}\"}}", "x".repeat(700))),
    };
    Input {
        batch_id: batch_id.into(),
        team_name: "team-a".into(),
        run_id: Some("run-1".into()),
        capability_snapshot_id: Some("cap-1".into()),
        behavior_fingerprint: Some("behavior-1".into()),
        reason: "launch_checkpoint".into(),
        started_at: NOW.into(),
        completed_at: NOW.into(),
        recorded_at: NOW.into(),
        receipts_updated_at: NOW.into(),
        manifest_updated_at: NOW.into(),
        manifest_envelope_updated_at: NOW.into(),
        default_manifest: default_manifest(),
        expected_active_run_id: None,
        retention: Some(16),
        max_file_bytes: None,
        writes: stores.iter().map(write).collect(),
    }
}

fn wait<T: Send + 'static>(start: impl FnOnce(Box<dyn FnOnce(Result<T>) + Send>)) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    start(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer within a minute")
}

pub fn write(disk: &Disk, context: &Context, input: Input) -> Result<String> {
    wait(|done| batch::write(disk.clone(), context.clone(), input, Vec::new(), done))
}

/// Writes a batch on a disk that works.
pub fn commit(dir: &Path, batch_id: &str, stores: &[usize]) {
    write(&Disk::real(), &context(dir), input(batch_id, stores)).unwrap();
}

pub fn locked(disk: &Disk, context: &Context, targets: Vec<PathBuf>) -> Result<Locked> {
    wait(|done| recovery::lock_and_recover(disk.clone(), context.clone(), targets, Vec::new(), done))
}

pub fn descriptors(stores: &[usize]) -> Vec<Descriptor> {
    let descriptor = |&store: &usize| Descriptor {
        schema_name: STORES[store].0.into(),
        schema_version: 1.0,
        relative_path: STORES[store].1.into(),
        rebuild_strategy: STORES[store].2.into(),
        criticality: STORES[store].3.into(),
    };
    stores.iter().map(descriptor).collect()
}

pub fn request(stores: &[usize], roll_forward: bool) -> Request {
    Request {
        plan_id: "plan-1".into(),
        created_at: NOW.into(),
        team_name: "team-a".into(),
        expected_run_id: Some("run-1".into()),
        expected_capability_snapshot_id: Some("cap-1".into()),
        expected_behavior_fingerprint: Some("behavior-1".into()),
        roll_forward,
        descriptors: descriptors(stores),
        default_manifest: default_manifest(),
    }
}

pub fn plan(context: &Context, stores: &[usize], roll_forward: bool) -> Result<Plan> {
    Ok(planner::build(&Disk::real(), context, &request(stores, roll_forward))?.plan)
}

/// Both halves of a recovery, without rebuild callbacks.
pub fn recover_on(disk: &Disk, context: &Context, stores: &[usize]) -> Result<Vec<Step>> {
    let orders = Orders {
        plan: request(stores, true),
        now: NOW.into(),
        settle_ms: 0.0,
        rebuildable: Vec::new(),
        retention: Some(16),
    };
    let begun = wait(|done| executor::begin(disk.clone(), context.clone(), orders.clone(), done))?;
    let finished = wait(|done| executor::finish(disk.clone(), context.clone(), orders, done))?;
    Ok(begun.steps.into_iter().chain(finished).collect())
}

pub fn recover(context: &Context, stores: &[usize]) -> Result<Vec<Step>> {
    recover_on(&Disk::real(), context, stores)
}
