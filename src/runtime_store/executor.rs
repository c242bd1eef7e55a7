//! Acting on a plan: the native half of `recover()`.
//!
//! Order: unreadable control files, unfinished batches, quarantine moves; then the facade runs the caller's rebuild
//! callbacks and writes their data as one batch; then [`finish`] archives what is settled and sweeps leftovers.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Context;
use super::archive;
use super::format::{self, ObjectText, STAGE};
use super::inspector::{Descriptor, State};
use super::manifest::Manifest;
use super::planner::{self, Request};
use super::publish::write_over;
use super::receipts::{Batch, Batches};
use super::records::parsed;
use super::recovery::{Locked, Step, lock_and_recover};
use super::stores::{read_manifest, read_receipts};
use crate::clock;
use crate::durable::atomic::{Durability, folder_of};
use crate::durable::lock::Continuation;
use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::Result;
use crate::ids;
use crate::json::Object;

/// What the facade says of a recovery.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    /// The plan to act on.
    pub plan: Request,
    /// The caller's clock.
    pub now: String,
    /// Records of the original younger than this are left alone, in milliseconds.
    pub settle_ms: f64,
    /// Rebuild strategies for which the caller has a callback.
    #[serde(default)]
    pub rebuildable: Vec<String>,
    /// How many committed batches the receipts keep; `None` keeps all.
    pub retention: Option<usize>,
}

/// A store that a callback may make anew.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuild {
    /// Which store.
    pub schema_name: String,
    /// Its state.
    pub reason: String,
    /// Where the bad bytes are.
    pub quarantine_path: Option<String>,
}

/// What [`begin`] did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// In order.
    pub steps: Vec<Step>,
    /// What is left to the callbacks.
    pub rebuilds: Vec<Rebuild>,
}

/// Runs the first half of a recovery and calls `done` on a pool thread.
pub fn begin(disk: Disk, context: Context, orders: Orders, done: Continuation<Begun>) {
    with_all_locks(disk, context, orders, Box::new(|executor, locked| executor.begin(locked)), done);
}

/// Runs the last part of a recovery and calls `done` with its steps.
pub fn finish(disk: Disk, context: Context, orders: Orders, done: Continuation<Vec<Step>>) {
    with_all_locks(disk, context, orders, Box::new(|executor, locked| executor.finish(locked)), done);
}

type Work<T> = Box<dyn FnOnce(Executor, Locked) -> Result<T> + Send>;

fn with_all_locks<T: 'static>(disk: Disk, context: Context, orders: Orders, work: Work<T>, done: Continuation<T>) {
    let fence = context.fence();
    let paths: Result<Vec<PathBuf>> =
        orders.plan.descriptors.iter().map(|descriptor| fence.confine(&descriptor.relative_path)).collect();
    let paths = match paths {
        Ok(paths) => paths,
        Err(error) => return done(Err(error)),
    };
    let executor = Executor { disk: disk.clone(), context: context.clone(), orders, steps: Vec::new() };
    lock_and_recover(
        disk,
        context,
        paths,
        Vec::new(),
        Box::new(move |locked| done(locked.and_then(|locked| work(executor, locked)))),
    );
}

struct Executor {
    disk: Disk,
    context: Context,
    orders: Orders,
    steps: Vec<Step>,
}

impl Executor {
    fn syncs(&self) -> bool {
        self.context.durability == Durability::Full
    }

    fn begin(mut self, locked: Locked) -> Result<Begun> {
        self.steps.extend(locked.steps.iter().cloned());
        if self.syncs() {
            sync::dirs(&self.disk, locked.sync_dirs.clone())?;
        }
        self.repair_control_files()?;
        self.apply_committed()?;
        let rebuilds = self.quarantine()?;
        drop(locked);
        Ok(Begun { steps: self.steps, rebuilds })
    }

    fn default_manifest(&self) -> Manifest {
        let request = &self.orders.plan;
        Manifest::parse(&request.default_manifest, &self.context.extra_names)
            .unwrap_or_else(|_| Manifest::empty(&request.team_name, &self.orders.now))
    }

    /// Moves unreadable control files aside and makes new ones from what the others say. A file of a newer version stays.
    fn repair_control_files(&mut self) -> Result<()> {
        let receipts = read_receipts(&self.disk, &self.context)?;
        let batches = match receipts.value {
            Ok(batches) => batches,
            Err(fault) if fault.reason == "future_schema" => return Err(fault.into_error(None)),
            Err(fault) => {
                let moved = self.move_aside(&self.context.receipts.clone(), fault.reason)?;
                self.steps.push(Step::of_directory(
                    "quarantine",
                    format!("the receipts were unreadable ({}); they are in {}", fault.reason, moved.display()),
                ));
                Batches::default()
            }
        };
        let manifest = read_manifest(&self.disk, &self.context, || self.default_manifest())?;
        let fault = match manifest.value {
            Ok(_) => return Ok(()),
            Err(fault) if fault.reason == "future_schema" => return Err(fault.into_error(None)),
            Err(fault) => fault,
        };
        // The new one takes the name in one step: a crash between would leave no manifest, which is not an unreadable one.
        let kept = self.keep_copy(&self.context.manifest, fault.reason)?;
        let rebuilt = self.rebuild_manifest(&batches)?;
        self.write_manifest(&rebuilt)?;
        let detail = format!(
            "the manifest was unreadable ({}); it is in {} and was made anew from receipts and files",
            fault.reason,
            kept.display()
        );
        self.steps.push(Step::of_directory("rebuild_manifest", detail));
        Ok(())
    }

    /// Entries: the newest receipt of each store whose hash is that of the file. Watermark: the last good copy's, plus the
    /// committed batches behind it.
    fn rebuild_manifest(&self, batches: &Batches) -> Result<Manifest> {
        let mut manifest = self.default_manifest();
        let previous_path = self.context.sidecar().join(format::MANIFEST_PREVIOUS);
        let previous = optional(self.disk.read(&previous_path)).at("open", &previous_path)?.and_then(|bytes| {
            let text = format::decode(bytes);
            let envelope = format::open_envelope(&text, &previous_path, format::CONTROL_VERSION).ok()?;
            Manifest::parse(envelope.data, &self.context.extra_names).ok()
        });
        let committed: Vec<&Batch> = batches
            .records
            .iter()
            .filter(|batch| batch.is_committed() && batch.team_name == manifest.team_name)
            .collect();
        let base = previous.filter(|previous| previous.team_name == manifest.team_name);
        let behind = base
            .as_ref()
            .and_then(|base| base.last_committed_batch_id.as_ref())
            .and_then(|id| committed.iter().position(|batch| batch.batch_id == *id));
        let later = committed.len() - behind.map_or(0, |index| index + 1);
        manifest.high_watermark = base.as_ref().map_or(0.0, |base| base.high_watermark) + later as f64;
        match (&base, committed.last()) {
            // The copy is as new as the receipts: what was set since the newest batch is in it.
            (Some(base), _) if later == 0 => {
                manifest.last_committed_batch_id.clone_from(&base.last_committed_batch_id);
                manifest.active = base.active.clone();
            }
            (_, Some(newest)) => {
                manifest.last_committed_batch_id = Some(newest.batch_id.clone());
                manifest.active = newest.identity.clone();
            }
            (_, None) => {}
        }
        for entry in base.iter().flat_map(|base| base.entries.clone()) {
            manifest.set_entry(entry);
        }
        for descriptor in &self.orders.plan.descriptors {
            let found = planner_inspect(&self.disk, &self.context, descriptor)?;
            let Some(hash) = found else { continue };
            let receipt = committed
                .iter()
                .rev()
                .flat_map(|batch| &batch.receipts)
                .find(|receipt| receipt.schema_name == descriptor.schema_name && receipt.content_hash == hash);
            if let Some(receipt) = receipt {
                manifest.set_entry(receipt.entry_parts().entry());
            }
        }
        manifest.updated_at.clone_from(&self.orders.now);
        Ok(manifest)
    }

    /// Applies batches that were committed but never reached the manifest, oldest first, each once.
    fn apply_committed(&mut self) -> Result<()> {
        let built = planner::build(&self.disk, &self.context, &self.orders.plan)?;
        let pending: Vec<&planner::Action> =
            built.plan.actions.iter().filter(|action| action.kind == "roll_forward").collect();
        if pending.is_empty() {
            return Ok(());
        }
        let mut manifest = built.manifest.clone();
        let mut applied = Vec::new();
        for batch in &built.batches.records {
            if !pending.iter().any(|action| action.batch_id.as_ref() == Some(&batch.batch_id)) {
                continue;
            }
            let prior = manifest.active.clone();
            let follows = manifest.last_preparing_batch_id.as_ref() == Some(&batch.batch_id)
                || built.batches.records.last() == Some(batch);
            for receipt in &batch.receipts {
                let wanted = pending.iter().any(|action| {
                    action.schema_name == receipt.schema_name && action.batch_id.as_ref() == Some(&batch.batch_id)
                });
                if wanted {
                    manifest.set_entry(receipt.entry_parts().entry());
                }
            }
            manifest.active = if follows { batch.identity.clone() } else { prior };
            manifest.high_watermark += 1.0;
            manifest.last_committed_batch_id = Some(batch.batch_id.clone());
            if manifest.last_preparing_batch_id.as_ref() == Some(&batch.batch_id) {
                manifest.last_preparing_batch_id = None;
            }
            applied.push(batch.batch_id.clone());
        }
        manifest.updated_at.clone_from(&self.orders.now);
        self.settle_committing(&built.batches, &applied)?;
        self.write_manifest(&manifest)?;
        for batch_id in applied {
            self.steps.push(Step::of_batch(
                "roll_forward",
                &batch_id,
                "was committed but not in the manifest; it is now",
            ));
        }
        Ok(())
    }

    /// A record that stayed `committing` although its bytes are published becomes `committed`.
    fn settle_committing(&self, batches: &Batches, applied: &[String]) -> Result<()> {
        let mut changed = false;
        let mut settled = batches.clone();
        for batch in &mut settled.records {
            if batch.state == "committing" && applied.contains(&batch.batch_id) {
                *batch = with_fields(batch, "committed", None, &self.context.extra_names)?;
                changed = true;
            }
        }
        if changed { self.write_receipts(&settled) } else { Ok(()) }
    }

    fn quarantine(&mut self) -> Result<Vec<Rebuild>> {
        let built = planner::build(&self.disk, &self.context, &self.orders.plan)?;
        let mut rebuilds = Vec::new();
        let descriptors = self.orders.plan.descriptors.clone();
        for (descriptor, found) in descriptors.iter().zip(&built.found) {
            let name = &descriptor.schema_name;
            let acted = built
                .plan
                .actions
                .iter()
                .any(|action| action.schema_name == *name && !matches!(action.kind, "none" | "roll_forward"));
            if found.state == State::Healthy || !acted {
                continue;
            }
            let path = self.context.fence().confine(&descriptor.relative_path)?;
            let rebuildable = self.orders.rebuildable.contains(&descriptor.rebuild_strategy);
            let reason = found.fault.unwrap_or(found.state.as_str());
            let moved = match found.state {
                State::Quarantined | State::FutureSchema | State::HashMismatch => Some(self.move_aside(&path, reason)?),
                // Nobody committed these bytes, but somebody wrote them: a copy stays when a rebuild replaces them.
                State::UncommittedWrite if rebuildable => {
                    let bytes = self.disk.read(&path).at("open", &path)?;
                    Some(format::quarantine_copy(
                        &self.disk,
                        &path,
                        &bytes,
                        reason,
                        &self.orders.now,
                        folder_of(&path),
                    )?)
                }
                _ => None,
            };
            if let Some(moved) = &moved {
                self.steps.push(Step::of_store("quarantine", name, format!("{reason}: {}", moved.display())));
            }
            if rebuildable {
                rebuilds.push(Rebuild {
                    schema_name: name.clone(),
                    reason: found.state.as_str().to_owned(),
                    quarantine_path: moved.map(|path| path.to_string_lossy().into_owned()),
                });
            }
        }
        Ok(rebuilds)
    }

    fn finish(mut self, locked: Locked) -> Result<Vec<Step>> {
        self.steps.extend(locked.steps.iter().cloned());
        if self.syncs() {
            sync::dirs(&self.disk, locked.sync_dirs.clone())?;
        }
        self.archive_settled()?;
        self.sweep()?;
        drop(locked);
        Ok(self.steps)
    }

    /// Archives records that recovery settled, and unfinished ones of the original once every store is healthy.
    fn archive_settled(&mut self) -> Result<()> {
        let built = planner::build(&self.disk, &self.context, &self.orders.plan)?;
        let healthy = built.found.iter().all(|inspection| inspection.state == State::Healthy);
        let now = clock::parse_iso(&self.orders.now).unwrap_or_else(|| clock::epoch_ms() as i64) as f64;
        let mut batches = built.batches.clone();
        for batch in &mut batches.records {
            let age = clock::parse_iso(&batch.started_at).map_or(f64::INFINITY, |started| now - started as f64);
            let settles = batch.marked || age >= self.orders.settle_ms;
            if batch.is_unresolved() && healthy && settles && batch.team_name == self.orders.plan.team_name {
                *batch = with_fields(batch, &batch.state.clone(), Some("abandoned"), &self.context.extra_names)?;
            }
        }
        let (kept, settled): (Vec<Batch>, Vec<Batch>) =
            batches.records.into_iter().partition(|batch| batch.is_committed() || batch.resolution.is_none());
        if settled.is_empty() {
            return Ok(());
        }
        if let Some(out) = archive::append(&self.disk, &self.context.sidecar(), &settled)?
            && self.syncs()
        {
            self.disk.sync_file(&out).at("fsync", &out.path).map_err(crate::error::HfError::sync_failed)?;
            sync::dirs(&self.disk, [self.context.sidecar()])?;
        }
        self.write_receipts(&Batches { records: kept })?;
        for batch in settled {
            let how = batch.resolution.unwrap_or_default();
            self.steps.push(Step::of_batch(
                "archive",
                &batch.batch_id,
                format!("an unfinished batch, {how}; its record is in {}", format::ARCHIVE),
            ));
        }
        Ok(())
    }

    /// Removes temporary files that nobody can be writing any more.
    fn sweep(&mut self) -> Result<()> {
        let mut folders = vec![
            self.context.dir.clone(),
            self.context.base().to_owned(),
            folder_of(&self.context.receipts).to_owned(),
        ];
        folders.sort();
        folders.dedup();
        for folder in folders {
            for name in optional(self.disk.list(&folder)).at("scandir", &folder)?.into_iter().flatten() {
                let path = folder.join(&name);
                if is_temporary(&name.to_string_lossy()) && self.is_old(&path) {
                    optional(self.disk.remove_file(&path)).at("unlink", &path)?;
                    self.steps.push(Step::of_directory("remove_leftover", path.to_string_lossy().into_owned()));
                }
            }
        }
        Ok(())
    }

    fn is_old(&self, path: &Path) -> bool {
        const OLD: Duration = Duration::from_secs(3600);
        let Ok(metadata) = self.disk.symlink_metadata(path) else {
            return false;
        };
        metadata.is_file()
            && metadata.modified().is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > OLD))
    }

    /// Copies a bad file to its quarantine name, durably: whoever takes the original away loses nothing.
    fn keep_copy(&self, path: &Path, reason: &str) -> Result<PathBuf> {
        let bytes = self.disk.read(path).at("open", path)?;
        let folder = folder_of(path);
        let copy = format::quarantine_copy(&self.disk, path, &bytes, reason, &self.orders.now, folder)?;
        if self.syncs() {
            sync::dirs(&self.disk, [folder.to_owned()])?;
        }
        Ok(copy)
    }

    fn move_aside(&self, path: &Path, reason: &str) -> Result<PathBuf> {
        let copy = self.keep_copy(path, reason)?;
        optional(self.disk.remove_file(path)).at("unlink", path)?;
        if self.syncs() {
            sync::dirs(&self.disk, [folder_of(path).to_owned()])?;
        }
        Ok(copy)
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.write_control(&self.context.manifest, &manifest.file_text(&self.orders.now))
    }

    fn write_receipts(&self, batches: &Batches) -> Result<()> {
        self.write_control(&self.context.receipts, &batches.file_text(&self.orders.now))
    }

    fn write_control(&self, path: &Path, text: &str) -> Result<()> {
        let temp = format!(".tmp.{}", ids::uuid());
        write_over(&self.disk, text.as_bytes(), path, &temp, Some(path), None, self.syncs())?;
        self.disk.point("in_recovery").at("recover", path)?;
        if self.syncs() { sync::dirs(&self.disk, [folder_of(path).to_owned()]) } else { Ok(()) }
    }
}

/// Names that holdfast and the original give to files that are being written.
pub(super) fn is_temporary(name: &str) -> bool {
    let uuid = |text: &str| text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    name.strip_prefix(".tmp.").is_some_and(uuid)
}

/// Folder of open batches, for reports.
pub(super) fn stage_folder(context: &Context) -> PathBuf {
    context.sidecar().join(STAGE)
}

fn planner_inspect(disk: &Disk, context: &Context, descriptor: &Descriptor) -> Result<Option<String>> {
    let path = context.fence().confine(&descriptor.relative_path)?;
    let found = super::inspector::inspect(disk, &path, descriptor, None)?;
    Ok(found.file.map(|file| file.content_hash))
}

fn with_fields(batch: &Batch, state: &str, resolution: Option<&str>, extra: &[String]) -> Result<Batch> {
    let Ok(object) = Object::parse(&batch.raw) else {
        return Ok(batch.clone());
    };
    let mut text = object.members().iter().fold(ObjectText::new(), |text, member| match member.key.as_ref() {
        "state" => text.string("state", state),
        key => text.raw(key, member.raw),
    });
    if let Some(resolution) = resolution {
        text = text.string("hfResolution", resolution);
    }
    parsed(&text.finish(), extra)
}
