//! Writing a batch: several files, all or nothing, three sync barriers whatever their number.
//!
//! Lock, stage everything in a redo folder, sync it (barriers 1 and 2: the commit point), publish by renames, sync the
//! folders of the targets (barrier 3), clean up. What happens when any step fails is in `undo.rs` and [`super::recovery`].

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::archive;
use super::error::{batch_exists, batch_pending, batch_stale, file_too_large, lock_lost, team_mismatch};
use super::format::{self, STAGE};
use super::manifest::{EntryParts, Identity, Manifest};
use super::publish::link_over;
use super::receipts::Batches;
use super::records::{parsed, receipt_text, record_text};
use super::recovery::{self, Locked};
use super::sidecars::{knows_sidecar, remember_sidecar};
use super::stage::{self, EntryChange, Ids, Intent, Target};
use super::stores::{read_manifest, read_receipts};
use super::{Context, undo};
use crate::clock;
use crate::durable::atomic::{Durability, folder_of, inherit, resolve};
use crate::durable::lock::{Continuation, LockSet};
use crate::durable::sync::{self, Target as SyncTarget};
use crate::durable::{Disk, IoContext, OutFile, optional, pool};
use crate::error::{Code, HfError, Result};
use crate::hash::content_hash;
use crate::ids;

/// One store that a batch writes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// Which store.
    pub schema_name: String,
    /// Version of its file.
    pub schema_version: f64,
    /// Where it stands in the runtime directory.
    pub relative_path: String,
    /// When it is written, by the caller's clock.
    pub written_at: String,
    /// Id of its receipt.
    pub receipt_id: String,
    /// The data as JSON text; `None` leaves the key out.
    #[serde(skip)]
    pub data: Option<String>,
}

/// Everything that the caller's callbacks decided, before any lock.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Id of the batch.
    pub batch_id: String,
    /// Whose directory it must be.
    pub team_name: String,
    /// `runId` of the batch.
    pub run_id: Option<String>,
    /// `capabilitySnapshotId` of the batch.
    pub capability_snapshot_id: Option<String>,
    /// `behaviorFingerprint` of the batch.
    pub behavior_fingerprint: Option<String>,
    /// Why it is written.
    pub reason: String,
    /// The writer's clock at the start.
    pub started_at: String,
    /// The writer's clock at the end; what the caller gets back.
    pub completed_at: String,
    /// The receipt store's clock; what the record on disk says.
    pub recorded_at: String,
    /// Envelope time of the receipts file.
    pub receipts_updated_at: String,
    /// `updatedAt` in the manifest.
    pub manifest_updated_at: String,
    /// Envelope time of the manifest file.
    pub manifest_envelope_updated_at: String,
    /// The data of a manifest that does not exist yet, as JSON text.
    pub default_manifest: String,
    /// Refuse unless this run is the active one: absent = do not ask, `[null]` = no run may be active.
    #[serde(default)]
    pub expected_active_run_id: Option<Vec<Option<String>>>,
    /// How many committed batches the receipts keep; `None` keeps all.
    pub retention: Option<usize>,
    /// Largest file that may be written, in bytes.
    #[serde(default)]
    pub max_file_bytes: Option<u64>,
    /// The stores.
    pub writes: Vec<Write>,
}

impl Input {
    fn identity(&self) -> Identity {
        Identity {
            run_id: self.run_id.clone(),
            capability_snapshot_id: self.capability_snapshot_id.clone(),
            behavior_fingerprint: self.behavior_fingerprint.clone(),
        }
    }
}

/// Checks the paths of `input` and returns where its stores go, in order.
///
/// # Errors
/// `RuntimeStorePathError`; nothing was touched.
pub fn check_paths(context: &Context, input: &Input) -> Result<Vec<PathBuf>> {
    let fence = context.fence();
    input.writes.iter().map(|write| fence.confine(&write.relative_path)).collect()
}

/// Writes a batch and calls `done` with the record that the caller gets. Call it on a pool thread.
///
/// When `done` gets a record, every byte and every name is on the disk (unless the context's durability says otherwise).
pub fn write(disk: Disk, context: Context, input: Input, held: Vec<PathBuf>, done: Continuation<String>) {
    let paths = match check_paths(&context, &input) {
        Ok(paths) => paths,
        Err(error) => return done(Err(error)),
    };
    let (disk2, context2) = (disk.clone(), context.clone());
    recovery::lock_and_recover(
        disk,
        context,
        paths.clone(),
        held,
        Box::new(move |locked| {
            let result = locked.and_then(|locked| commit(&disk2, &context2, &input, &paths, locked));
            done(result);
        }),
    );
}

/// Writes a batch under locks that are held already.
///
/// # Errors
/// As the steps say; see the module.
pub fn commit(disk: &Disk, context: &Context, input: &Input, paths: &[PathBuf], locked: Locked) -> Result<String> {
    disk.point("after_lock").at("lock", &context.manifest)?;
    let fault = |fault: super::error::FileFault| fault.into_error(None);
    let missing = || {
        Manifest::parse(&input.default_manifest, &context.extra_names)
            .unwrap_or_else(|_| Manifest::empty(&input.team_name, &input.manifest_updated_at))
    };
    let manifest = read_manifest(disk, context, missing)?;
    let prior_manifest = manifest.value.map_err(fault)?;
    let receipts = read_receipts(disk, context)?;
    let prior_batches = receipts.value.map_err(fault)?;
    if prior_manifest.team_name != input.team_name {
        return Err(team_mismatch(&prior_manifest.team_name));
    }
    if let Some(expected) = input.expected_active_run_id.as_deref().and_then(<[_]>::first)
        && *expected != prior_manifest.active.run_id
    {
        return Err(batch_stale(prior_manifest.active.run_id.as_deref()));
    }
    if prior_batches.get(&input.batch_id).is_some() {
        return Err(batch_exists(&input.batch_id));
    }
    let mut run = Run {
        disk,
        context,
        input,
        folder: unused_folder(disk, context, &input.batch_id),
        intent_staged: false,
        sync_files: Vec::new(),
        sync_dirs: locked.sync_dirs,
    };
    let staged =
        match run.stage(paths, prior_manifest, manifest.bytes.as_deref(), prior_batches, receipts.bytes.as_deref()) {
            Ok(staged) => staged,
            Err(error) => return Err(run.give_up(error)),
        };
    if let Err(error) = run.make_durable() {
        return Err(run.give_up(error));
    }
    if let Err(error) = ensure_owned(&locked.set, context) {
        return Err(run.give_up(error));
    }
    run.publish(&staged, &locked.set)?;
    Ok(staged.returned)
}

fn ensure_owned(set: &LockSet, context: &Context) -> Result<()> {
    if set.is_owned() { Ok(()) } else { Err(lock_lost(&context.manifest)) }
}

fn unused_folder(disk: &Disk, context: &Context, batch_id: &str) -> PathBuf {
    let stage = context.sidecar().join(STAGE);
    let folder = stage.join(stage::folder_name(batch_id));
    if disk.symlink_metadata(&folder).is_ok() {
        stage.join(format!("{}-{}", stage::folder_name(batch_id), ids::uuid()))
    } else {
        folder
    }
}

struct Run<'a> {
    disk: &'a Disk,
    context: &'a Context,
    input: &'a Input,
    folder: PathBuf,
    /// Whether recovery would find a whole batch.
    intent_staged: bool,
    sync_files: Vec<OutFile>,
    sync_dirs: Vec<PathBuf>,
}

/// What was staged.
pub(super) struct Staged {
    pub intent: Intent,
    /// Where the targets are.
    pub paths: Vec<PathBuf>,
    /// Receipts before, for the record of a failure.
    pub prior_batches: Batches,
    /// The record that the caller gets.
    pub returned: String,
}

/// One store file on its way into the redo folder.
struct StoreFile {
    hash: String,
    prior_hash: Option<String>,
    size: usize,
    mtime_ms: f64,
    out: OutFile,
}

impl Run<'_> {
    fn stage(
        &mut self,
        paths: &[PathBuf],
        prior_manifest: Manifest,
        manifest_bytes: Option<&[u8]>,
        prior_batches: Batches,
        receipts_bytes: Option<&[u8]>,
    ) -> Result<Staged> {
        let (disk, context, input) = (self.disk, self.context, self.input);
        for folder in
            [paths.iter().map(|path| folder_of(path)).collect::<Vec<_>>(), vec![folder_of(&context.receipts)]].concat()
        {
            self.sync_dirs.extend(disk.create_dirs(folder).at("mkdir", folder)?);
            // A folder below the base may have been made by somebody who died before syncing it.
            let between = folder.ancestors().skip(1).take_while(|above| above.starts_with(context.base()));
            if folder != context.base() && folder.starts_with(context.base()) {
                self.sync_dirs.extend(between.map(Path::to_owned));
            }
        }
        disk.create_dir(&self.folder).at("mkdir", &self.folder)?;

        // Of several writes to one file only the last is published.
        let last: Vec<usize> = (0..paths.len())
            .filter(|&i| paths.get(i + 1..).is_none_or(|later| paths.get(i).is_none_or(|path| !later.contains(path))))
            .collect();
        let files = self.stage_stores(&last, paths)?;

        let identity = input.identity();
        let mut next_manifest = prior_manifest.clone();
        let mut changes = Vec::new();
        let mut receipts = Vec::new();
        for (i, write) in input.writes.iter().enumerate() {
            let target = last.iter().position(|&l| paths.get(l) == paths.get(i)).unwrap_or_default();
            let Some(file) = files.get(target) else { continue };
            let own = if last.contains(&i) { None } else { Some(store_text(write)) };
            let (hash, size) = match &own {
                Some(text) => (content_hash(text.as_bytes()), text.len()),
                None => (file.hash.clone(), file.size),
            };
            let parts = EntryParts {
                schema_name: &write.schema_name,
                schema_version: write.schema_version,
                relative_path: &write.relative_path,
                content_hash: &hash,
                file_size: size as f64,
                mtime_ms: file.mtime_ms,
                identity: &identity,
                receipt_id: Some(&write.receipt_id),
            };
            receipts.push(receipt_text(input, write, &parts));
            next_manifest.set_entry(parts.entry());
            let prior = prior_manifest.entry(&write.schema_name);
            changes.retain(|change: &EntryChange| change.schema_name != write.schema_name);
            changes.push(EntryChange {
                schema_name: write.schema_name.clone(),
                target,
                schema_version: write.schema_version,
                relative_path: write.relative_path.clone(),
                receipt_id: write.receipt_id.clone(),
                prior_receipt_id: prior.and_then(|entry| entry.last_write_receipt_id.clone()),
                prior_content_hash: prior.and_then(|entry| entry.content_hash.clone()),
            });
        }
        next_manifest.active = identity;
        next_manifest.high_watermark += 1.0;
        next_manifest.last_committed_batch_id = Some(input.batch_id.clone());
        next_manifest.updated_at.clone_from(&input.manifest_updated_at);
        if next_manifest.last_preparing_batch_id.as_ref() == Some(&input.batch_id) {
            next_manifest.last_preparing_batch_id = None;
        }

        let record = record_text(input, &receipts, "committed", Some(&input.recorded_at), None, None);
        let mut next_batches = prior_batches.clone();
        next_batches.records.push(parsed(&record, &context.extra_names)?);
        let (next_batches, dropped) = next_batches.prune(&next_manifest, input.retention);
        if let Some(out) = archive::append(disk, &context.sidecar(), &dropped)? {
            self.sync_files.push(out);
            self.sync_dirs.push(context.sidecar());
        }

        let receipts_target = self.stage_control(
            last.len(),
            &context.receipts,
            &next_batches.file_text(&input.receipts_updated_at),
            receipts_bytes,
        )?;
        let manifest_target = self.stage_control(
            last.len() + 1,
            &context.manifest,
            &next_manifest.file_text(&input.manifest_envelope_updated_at),
            manifest_bytes,
        )?;

        let mut targets = Vec::new();
        let mut all_paths = Vec::new();
        for (&index, file) in last.iter().zip(files) {
            let Some(path) = paths.get(index) else { continue };
            targets.push(Target {
                path: stage::name_of(context.base(), path),
                prior_hash: file.prior_hash,
                next_hash: file.hash,
                temp: temp_name(),
                mtime_ms: file.mtime_ms,
            });
            all_paths.push(path.clone());
            self.sync_files.push(file.out);
        }
        targets.extend([receipts_target, manifest_target]);
        all_paths.extend([context.receipts.clone(), context.manifest.clone()]);

        let intent = Intent {
            batch_id: input.batch_id.clone(),
            team_name: input.team_name.clone(),
            targets,
            entries: changes,
            record,
            prior_watermark: prior_manifest.high_watermark,
            prior_active: Ids::from(&prior_manifest.active),
            active: Ids::from(&next_manifest.active),
            updated_at: input.manifest_updated_at.clone(),
            retention: input.retention,
        };
        self.sync_files.push(stage::put(disk, &self.folder, stage::INTENT, intent.file_text().as_bytes())?);
        self.intent_staged = true;
        disk.point("after_stage_files").at("stage", &self.folder)?;
        let returned = record_text(input, &receipts, "committed", Some(&input.completed_at), None, None);
        Ok(Staged { intent, paths: all_paths, prior_batches, returned })
    }

    /// Writes the store files side by side where they are large enough to share the work.
    fn stage_stores(&self, last: &[usize], paths: &[PathBuf]) -> Result<Vec<StoreFile>> {
        let mut jobs: Vec<Box<dyn FnOnce() -> Result<StoreFile> + Send>> = Vec::new();
        let mut bytes = 0;
        for (target, &index) in last.iter().enumerate() {
            let (Some(path), Some(write)) = (paths.get(index).cloned(), self.input.writes.get(index).cloned()) else {
                continue;
            };
            let (disk, folder, max) = (self.disk.clone(), self.folder.clone(), self.input.max_file_bytes);
            bytes += write.data.as_ref().map_or(0, String::len);
            jobs.push(Box::new(move || stage_store(&disk, &folder, target, &path, &write, max)));
        }
        let width = if bytes > 64 * 1024 { 4 } else { 1 };
        pool::parallel(width, jobs)
            .into_iter()
            .map(|result| {
                result.unwrap_or_else(|| {
                    Err(HfError::new(Code::Panic, "staging a store panicked; nothing was written, please report this"))
                })
            })
            .collect()
    }

    fn stage_control(&mut self, index: usize, path: &Path, text: &str, prior: Option<&[u8]>) -> Result<Target> {
        let out = stage::put(self.disk, &self.folder, &stage::next_name(index), text.as_bytes())?;
        if prior.is_some() {
            keep_prior(self.disk, &self.folder, index, path, &out)?;
        }
        let mtime_ms =
            out.file.metadata().and_then(|metadata| metadata.modified()).map_or(0.0, clock::millis_since_epoch);
        self.sync_files.push(out);
        Ok(Target {
            path: stage::name_of(self.context.base(), path),
            prior_hash: prior.map(content_hash),
            next_hash: content_hash(text.as_bytes()),
            temp: temp_name(),
            mtime_ms,
        })
    }

    fn syncs(&self) -> bool {
        self.context.durability == Durability::Full
    }

    /// Barriers 1 and 2. When this returns, the batch is committed.
    fn make_durable(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.sync_files);
        if self.syncs() {
            sync::barrier(self.disk, files.into_iter().map(SyncTarget::File).collect())?;
            let stage = self.context.sidecar().join(STAGE);
            let mut dirs = std::mem::take(&mut self.sync_dirs);
            dirs.extend([self.folder.clone(), stage]);
            if !knows_sidecar(self.disk, self.context) {
                dirs.extend([self.context.sidecar(), self.context.base().to_owned()]);
            }
            sync::dirs(self.disk, dirs)?;
            remember_sidecar(self.disk, self.context);
        }
        self.disk.point("after_commit_point").at("stage", &self.folder)
    }

    /// Before the commit point: nothing happened, and nothing is left. A folder that cannot be removed for good may still be
    /// published by recovery, so its batch must not be called failed.
    fn give_up(&self, error: HfError) -> HfError {
        let removed = stage::remove(self.disk, &self.folder);
        if !self.intent_staged {
            return error;
        }
        let intent = self.folder.join(stage::INTENT);
        let gone = optional(self.disk.symlink_metadata(&intent)).at("lstat", &intent).and_then(|found| match found {
            Some(_) => removed.clone(),
            // A power cut must not bring it back either.
            None if self.syncs() => sync::dirs(
                self.disk,
                [if removed.is_ok() { self.context.sidecar().join(STAGE) } else { self.folder.clone() }],
            ),
            None => Ok(()),
        });
        match gone {
            Ok(()) => error,
            Err(_) => batch_pending(&self.input.batch_id, "unknown", &error),
        }
    }

    fn publish(&self, staged: &Staged, set: &LockSet) -> Result<()> {
        let batch_id = &self.input.batch_id;
        for (i, (target, path)) in staged.intent.targets.iter().zip(&staged.paths).enumerate() {
            let step = link_over(self.disk, &self.folder.join(stage::next_name(i)), path, &target.temp, self.syncs());
            let step = step.and_then(|()| self.disk.point("between_publish").at("publish", path));
            let Err(cause) = step else { continue };
            if !set.is_owned() {
                return Err(batch_pending(batch_id, "unknown", &cause));
            }
            return Err(match undo::undo(self.disk, self.context, self.input, &self.folder, staged, &cause) {
                Ok(()) => cause,
                Err(failed) => batch_pending(batch_id, "unknown", &failed),
            });
        }
        let rest = || -> Result<()> {
            self.disk.point("after_publish").at("publish", &self.folder)?;
            if self.syncs() {
                let folders =
                    staged.paths.iter().map(|path| resolve(self.disk, path).map(|real| folder_of(&real).to_owned()));
                let folders = folders.collect::<std::io::Result<Vec<_>>>().at("readlink", &self.folder)?;
                sync::dirs(self.disk, folders)?;
            }
            Ok(())
        };
        if let Err(cause) = rest() {
            // What the disk holds is unknown now, and asking again would lie: recovery writes fresh files.
            let _ = self.disk.create_with(&self.folder.join(stage::REPUBLISH), b"", None);
            return Err(batch_pending(batch_id, "unknown", &cause));
        }
        // Committed and published: what fails from here on costs only a leftover that recovery removes.
        let cleaned =
            self.disk.point("before_cleanup").at("cleanup", &self.folder).and_then(|()| self.clean_up(staged));
        let _ = cleaned;
        Ok(())
    }

    fn clean_up(&self, staged: &Staged) -> Result<()> {
        let intent = self.folder.join(stage::INTENT);
        let priors = (0..staged.intent.targets.len()).map(|i| self.folder.join(stage::prior_name(i)));
        let last_copy = self.context.sidecar().join(format::MANIFEST_PREVIOUS);
        let inodes =
            priors.chain([intent.clone(), last_copy.clone()]).filter_map(|path| self.disk.keep_inode(&path)).collect();
        self.disk.remove_file(&intent).at("unlink", &intent)?;
        // The former manifest becomes the last good copy, which costs one rename.
        let prior = self.folder.join(stage::prior_name(staged.intent.manifest()));
        let _ = self.disk.rename(&prior, &last_copy);
        let removed = stage::remove(self.disk, &self.folder);
        pool::close_later(inodes);
        removed
    }
}

fn temp_name() -> String {
    format!(".tmp.{}", ids::uuid())
}

fn store_text(write: &Write) -> String {
    format::envelope(write.schema_version, &write.written_at, write.data.as_deref())
}

fn stage_store(
    disk: &Disk,
    folder: &Path,
    target: usize,
    path: &Path,
    write: &Write,
    max: Option<u64>,
) -> Result<StoreFile> {
    let prior = optional(disk.read(path)).at("open", path)?;
    let text = store_text(write);
    if let Some(max) = max.filter(|&max| text.len() as u64 > max) {
        return Err(file_too_large(path, text.len(), max));
    }
    let out = stage::put(disk, folder, &stage::next_name(target), text.as_bytes())?;
    if prior.is_some() {
        keep_prior(disk, folder, target, path, &out)?;
    }
    let mtime_ms = out.file.metadata().and_then(|metadata| metadata.modified()).map_or(0.0, clock::millis_since_epoch);
    Ok(StoreFile {
        hash: content_hash(text.as_bytes()),
        prior_hash: prior.as_deref().map(content_hash),
        size: text.len(),
        mtime_ms,
        out,
    })
}

/// Keeps the file that will be replaced, and gives its mode and owner to the new one.
fn keep_prior(disk: &Disk, folder: &Path, index: usize, path: &Path, next: &OutFile) -> Result<()> {
    let real = resolve(disk, path).at("readlink", path)?;
    let kept = folder.join(stage::prior_name(index));
    if disk.hard_link(&real, &kept).is_err() {
        let bytes = disk.read(&real).at("open", &real)?;
        let out = disk.create_with(&kept, &bytes, None).at("write", &kept)?;
        disk.sync_file(&out).at("fsync", &kept).map_err(HfError::sync_failed)?;
    }
    if let Some(metadata) = optional(disk.metadata(&real)).at("stat", &real)? {
        inherit(next, &metadata);
    }
    Ok(())
}
