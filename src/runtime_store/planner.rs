//! The recovery plan: what is wrong after a restart, and what must be done per store.
//!
//! [`decide`] is pure. Around it, [`build`] takes a snapshot without locks: it reads again until the control files did not
//! change under it, and waits for a batch that is being published right now.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Context;
use super::decide::Decision;
use super::inspector::{Descriptor, Inspection, State, inspect};
use super::manifest::{Identity, Manifest};
use super::receipts::{Batch, Batches};
use super::settle;
use super::snapshot::{Open, Snapshot, hold_off_writers};
use crate::durable::{Disk, pool};
use crate::error::{Code, HfError, Result};

/// What the caller expects to find.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Id of the plan.
    pub plan_id: String,
    /// When it is made.
    pub created_at: String,
    /// Whose directory it must be.
    pub team_name: String,
    /// The run that the caller is about to continue.
    pub expected_run_id: Option<String>,
    /// Its capability snapshot.
    pub expected_capability_snapshot_id: Option<String>,
    /// Its behaviour fingerprint.
    pub expected_behavior_fingerprint: Option<String>,
    /// Whether committed batches that were not applied are reported as `roll_forward`.
    pub roll_forward: bool,
    /// The stores, in the order of the report.
    pub descriptors: Vec<Descriptor>,
    /// The data of a manifest that does not exist, as JSON text.
    pub default_manifest: String,
}

impl Request {
    fn expected(&self) -> Identity {
        Identity {
            run_id: self.expected_run_id.clone(),
            capability_snapshot_id: self.expected_capability_snapshot_id.clone(),
            behavior_fingerprint: self.expected_behavior_fingerprint.clone(),
        }
    }
}

/// What to do about one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// `none`, `quarantine`, `rebuild_from_provider` …
    pub kind: &'static str,
    /// Which store.
    pub schema_name: String,
    /// The batch of a `roll_forward`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// Why; absent for `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Id of the plan.
    pub plan_id: String,
    /// Whose.
    pub team_name: String,
    /// The expected run.
    pub run_id: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Whether nothing has to be done.
    pub manifest_healthy: bool,
    /// `none`, `degraded` or `blocked`.
    pub readiness_impact: &'static str,
    /// In the order: team, stores, unfinished batches.
    pub actions: Vec<Action>,
    /// In words, in the same order.
    pub diagnostics: Vec<String>,
}

/// Returns what a state means for a store with this rebuild strategy.
#[must_use]
pub fn action_kind(state: &str, strategy: &str) -> &'static str {
    match (state, strategy) {
        ("future_schema" | "hash_mismatch", _) => "quarantine",
        (_, "poll_opencode_provider") => "rebuild_from_provider",
        (_, "verify_canonical_destinations") => "rebuild_from_canonical_destination",
        ("quarantined", _) => "quarantine",
        (_, "rerun_capability_discovery") => "rerun_capability_discovery",
        (_, "drop_after_quarantine") => "quarantine",
        _ => "block_readiness",
    }
}

/// Makes the plan from what was read.
#[must_use]
pub fn decide(request: &Request, manifest: &Manifest, batches: &Batches, open: &[Open], found: &[Inspection]) -> Plan {
    let mut plan = Plan {
        plan_id: request.plan_id.clone(),
        team_name: request.team_name.clone(),
        run_id: request.expected_run_id.clone(),
        created_at: request.created_at.clone(),
        manifest_healthy: false,
        readiness_impact: "none",
        actions: Vec::new(),
        diagnostics: Vec::new(),
    };
    if manifest.team_name != request.team_name {
        plan.actions.push(action("block_readiness", "opencode.launchState", "manifest_team_mismatch"));
        plan.diagnostics.push(format!("Runtime store manifest team mismatch: {}", manifest.team_name));
    }
    let facts = Facts { request, manifest, batches, open, found };
    for (descriptor, inspection) in request.descriptors.iter().zip(found) {
        facts.judge(&mut plan, descriptor, inspection);
    }
    for batch in batches.records.iter().filter(|batch| batch.is_unresolved() && batch.team_name == request.team_name) {
        plan.actions.push(action(
            "block_readiness",
            "opencode.launchTransaction",
            &format!("uncommitted_batch:{}", batch.batch_id),
        ));
        plan.diagnostics.push(format!("Uncommitted runtime store batch detected: {}", batch.batch_id));
    }
    plan.manifest_healthy = plan.actions.iter().all(|action| action.kind == "none");
    plan.readiness_impact = impact(&plan.actions, &request.descriptors);
    plan
}

fn action(kind: &'static str, schema_name: &str, reason: &str) -> Action {
    Action { kind, schema_name: schema_name.to_owned(), batch_id: None, reason: Some(reason.to_owned()) }
}

/// What [`decide`] decides from.
struct Facts<'a> {
    request: &'a Request,
    manifest: &'a Manifest,
    batches: &'a Batches,
    open: &'a [Open],
    found: &'a [Inspection],
}

impl Facts<'_> {
    fn judge(&self, plan: &mut Plan, descriptor: &Descriptor, inspection: &Inspection) {
        let name = descriptor.schema_name.as_str();
        if self.request.roll_forward {
            let pending = self
                .open
                .iter()
                .find(|open| open.names(name))
                .map(|open| (open.batch_id.clone(), "batch_publish_interrupted"));
            if let Some((batch_id, reason)) = pending.or_else(|| self.unapplied(name, inspection)) {
                plan.diagnostics.push(format!("Runtime store {name} rolls forward to batch {batch_id}"));
                plan.actions.push(Action { batch_id: Some(batch_id), ..action("roll_forward", name, reason) });
                return;
            }
        }
        plan.diagnostics.extend(inspection.message.clone());
        if inspection.state != State::Healthy {
            let state = inspection.state.as_str();
            plan.actions.push(action(action_kind(state, &descriptor.rebuild_strategy), name, state));
            return;
        }
        let identity = self.manifest.entry(name).map(|entry| entry.identity.clone()).unwrap_or_default();
        let expected = self.request.expected();
        let stale = [
            (identity.run_id != expected.run_id, "run id"),
            (identity.capability_snapshot_id != expected.capability_snapshot_id, "capability snapshot"),
            (identity.behavior_fingerprint != expected.behavior_fingerprint, "behavior fingerprint"),
        ];
        match stale.iter().find(|(differs, _)| *differs && descriptor.criticality != "diagnostic_only") {
            Some((_, what)) => {
                let text = format!("Runtime store {name} has stale {what}");
                plan.diagnostics.push(text.clone());
                plan.actions.push(action("block_readiness", name, &text));
            }
            None => {
                plan.actions.push(Action { kind: "none", schema_name: name.to_owned(), batch_id: None, reason: None })
            }
        }
    }

    /// Finds the newest committed batch, later than the owner of the manifest entry, that wrote the bytes which are there.
    fn unapplied(&self, name: &str, inspection: &Inspection) -> Option<(String, &'static str)> {
        if !matches!(inspection.state, State::HashMismatch | State::UncommittedWrite) {
            return None;
        }
        let hash = &inspection.file.as_ref()?.content_hash;
        let start = self.batches.after_owner(self.manifest, name);
        let later = self.batches.records.get(start..)?;
        let index = later.iter().rposition(|batch| {
            matches!(batch.state.as_str(), "committed" | "committing") && wrote(batch, name, hash)
        })?;
        let batch = later.get(index).filter(|_| self.is_whole(start + index))?;
        let reason = if batch.is_committed() { "committed_batch_not_applied" } else { "batch_publish_interrupted" };
        Some((batch.batch_id.clone(), reason))
    }

    /// Tells whether no other store of the batch still holds bytes from before it: after a power cut a committed batch of
    /// the original may have lost some of its files, and half a batch must not become a healthy one.
    fn is_whole(&self, index: usize) -> bool {
        let (before, since) = self.batches.records.split_at(index);
        let receipts = since.first().map(|batch| batch.receipts.as_slice()).unwrap_or_default();
        receipts.iter().all(|receipt| {
            let name = &receipt.schema_name;
            let found =
                self.request.descriptors.iter().zip(self.found).find(|(descriptor, _)| descriptor.schema_name == *name);
            let Some((state, file)) =
                found.and_then(|(_, inspection)| Some((inspection.state, inspection.file.as_ref()?)))
            else {
                return true;
            };
            let held_by = |batch: &Batch| wrote(batch, name, &file.content_hash);
            since.iter().any(held_by) || !(state == State::Healthy || before.iter().any(held_by))
        })
    }
}

fn wrote(batch: &Batch, schema_name: &str, hash: &str) -> bool {
    batch.receipts.iter().any(|receipt| receipt.schema_name == schema_name && receipt.content_hash == hash)
}

fn impact(actions: &[Action], descriptors: &[Descriptor]) -> &'static str {
    let criticality = |action: &Action| {
        descriptors
            .iter()
            .find(|descriptor| descriptor.schema_name == action.schema_name)
            .map(|descriptor| descriptor.criticality.as_str())
    };
    let open: Vec<&Action> = actions.iter().filter(|action| action.kind != "none").collect();
    let blocks = |action: &&Action| {
        action.kind == "block_readiness"
            || (action.kind != "roll_forward" && criticality(action) == Some("readiness_blocking"))
    };
    if open.iter().any(blocks) {
        "blocked"
    } else if open.iter().any(|action| criticality(action) != Some("diagnostic_only")) {
        "degraded"
    } else {
        "none"
    }
}

/// How long a snapshot may take to settle before writers are asked to wait for a moment.
const PATIENCE: Duration = Duration::from_millis(100);

/// What [`build`] read and decided.
#[derive(Debug)]
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// The manifest that it was made from.
    pub manifest: Manifest,
    /// The receipts that it was made from.
    pub batches: Batches,
    /// Per descriptor, what was found.
    pub found: Vec<Inspection>,
}

/// Reads the directory and makes the plan. Writes nothing and takes no lock, except that a reader which writers never leave
/// a quiet moment holds them off while it reads once.
///
/// # Errors
/// An unreadable control file, a path outside of the directory, or any I/O failure.
pub fn build(disk: &Disk, context: &Context, request: &Request) -> Result<Built> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let waited = started.elapsed();
        let quiet = if waited > PATIENCE { hold_off_writers(context, PATIENCE) } else { None };
        let snapshot = Snapshot::read(disk, context, &request.default_manifest)?;
        let found = inspect_all(disk, context, request, &snapshot.manifest)?;
        let calm = quiet.is_some() || snapshot.is_still_true(disk, context)?;
        drop(quiet);
        let publishing = snapshot.open.iter().any(|open| open.alive)
            && found.iter().any(|inspection| inspection.state != State::Healthy);
        if calm && !publishing {
            let open: Vec<Open> = snapshot.open.into_iter().filter(|open| !open.alive).collect();
            let plan = decide(request, &snapshot.manifest, &snapshot.batches, &open, &found);
            return Ok(Built { plan, manifest: snapshot.manifest, batches: snapshot.batches, found });
        }
        if waited > PATIENCE * 20 {
            let text = format!(
                "{} is being changed all the time, or by a process that stands still; there is no plan to be had now, try again",
                context.dir.display()
            );
            return Err(HfError::new(Code::Busy, text).with_field("path", context.dir.to_string_lossy()));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Above this many bytes the files are read side by side.
const PARALLEL_BYTES: u64 = 256 * 1024;

fn inspect_all(disk: &Disk, context: &Context, request: &Request, manifest: &Manifest) -> Result<Vec<Inspection>> {
    let mut bytes = 0;
    let mut jobs: Vec<Box<dyn FnOnce() -> Result<Inspection> + Send>> = Vec::new();
    let fence = context.fence();
    for descriptor in &request.descriptors {
        let path = fence.confine(&descriptor.relative_path)?;
        bytes += disk.metadata(&path).map_or(0, |metadata| metadata.len());
        let (disk, descriptor, entry) =
            (disk.clone(), descriptor.clone(), manifest.entry(&descriptor.schema_name).cloned());
        jobs.push(Box::new(move || inspect(&disk, &path, &descriptor, entry.as_ref())));
    }
    // Two at a time bound the memory: each holds one file.
    let width = if bytes > PARALLEL_BYTES { 2 } else { 1 };
    pool::parallel(width, jobs)
        .into_iter()
        .map(|result| {
            result.unwrap_or_else(|| {
                Err(HfError::new(Code::Panic, "inspecting a store panicked; nothing was changed, please report this"))
            })
        })
        .collect()
}

/// Says which stores an interrupted batch will change, for [`Snapshot`].
pub(super) fn pending_names(disk: &Disk, context: &Context, redo: &super::stage::Redo) -> Result<Option<Open>> {
    let (Some(intent), Some((decision, applied))) = (redo.intent(), settle::preview(disk, context, redo)?) else {
        return Ok(None);
    };
    if matches!(decision, Decision::Superseded) || applied {
        return Ok(None);
    }
    Ok(Some(Open {
        batch_id: intent.batch_id.clone(),
        schema_names: intent.entries.iter().map(|change| change.schema_name.clone()).collect(),
        alive: false,
    }))
}
