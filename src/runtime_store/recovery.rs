//! Undoing what a crash left: read, decide, act.
//!
//! [`decide`] is a pure function from what a redo folder and the directory hold to what must be done; a crash while it is
//! carried out leads to the same decision again. Whoever needs a lock that a dead batch's folder names settles it first.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::batch_pending;
use super::format::{self, CONTROL_VERSION, SIDECAR, STAGE, SUPERSEDED, decode, open_envelope};
use super::manifest::Manifest;
use super::merge;
use super::publish::write_over;
use super::receipts::Batches;
use super::stage::{self, Content, EntryChange, Intent, Redo};
use super::{Context, archive};
use crate::clock;
use crate::durable::atomic::{Durability, folder_of, resolve};
use crate::durable::lock::{self, Continuation, FileLock, LockSet, SetRequest};
use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::{Code, HfError, Result};
use crate::hash::content_hash;

/// Something that recovery did, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was done: `roll_forward`, `roll_back`, `discard`, `keep_newer`, `supersede`, `quarantine` …
    pub kind: &'static str,
    /// To which store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_name: Option<String>,
    /// For which batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// In words.
    pub detail: String,
}

impl Step {
    /// Makes a step without a store.
    #[must_use]
    pub fn of_batch(kind: &'static str, batch_id: &str, detail: impl Into<String>) -> Self {
        Self { kind, schema_name: None, batch_id: Some(batch_id.to_owned()), detail: detail.into() }
    }

    /// Makes a step about a store.
    #[must_use]
    pub fn of_store(kind: &'static str, schema_name: &str, detail: impl Into<String>) -> Self {
        Self { kind, schema_name: Some(schema_name.to_owned()), batch_id: None, detail: detail.into() }
    }

    /// Makes a step about the directory.
    #[must_use]
    pub fn of_directory(kind: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, schema_name: None, batch_id: None, detail: detail.into() }
    }
}

/// The locks of a batch, with every older batch settled.
#[derive(Debug)]
pub struct Locked {
    /// The locks.
    pub set: LockSet,
    /// Folders that were made on the way and are not synced yet.
    pub sync_dirs: Vec<PathBuf>,
    /// What had to be settled.
    pub steps: Vec<Step>,
}

/// Takes the locks of `targets`, the receipts and the manifest, and settles what dead batches left. Calls `done` on a pool
/// thread. Creates the sidecar.
pub fn lock_and_recover(disk: Disk, context: Context, targets: Vec<PathBuf>, held: Vec<PathBuf>, done: Continuation<Locked>) {
    let stage = context.sidecar().join(STAGE);
    let made = disk.create_dirs(&stage).at("mkdir", &stage);
    let tries = 0;
    match made {
        Ok(sync_dirs) => Locking { disk, context, targets, held, sync_dirs, tries, done }.try_once(),
        Err(error) => done(Err(error)),
    }
}

struct Locking {
    disk: Disk,
    context: Context,
    targets: Vec<PathBuf>,
    held: Vec<PathBuf>,
    sync_dirs: Vec<PathBuf>,
    tries: u32,
    done: Continuation<Locked>,
}

impl Locking {
    fn try_once(mut self) {
        // A folder that another process leaves behind between this look and our locks is seen by the second look.
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(error) => return (self.done)(Err(error)),
        };
        let request = SetRequest {
            sidecar_lock: self.context.sidecar().join(format::LOCK),
            targets: in_lock_order(&self.context, &wanted),
            held: self.held.clone(),
            options: self.context.lock_options.clone(),
        };
        let disk = self.disk.clone();
        lock::lock_set(
            &disk,
            request,
            Box::new(move |set| {
                let set = match set {
                    Ok(set) => set,
                    Err(error) => return (self.done)(Err(error)),
                };
                match self.wanted() {
                    Err(error) => (self.done)(Err(error)),
                    Ok(now) if now.iter().any(|path| !wanted.contains(path)) && self.tries < 8 => {
                        drop(set);
                        self.tries += 1;
                        self.try_once();
                    }
                    Ok(_) => {
                        let settled = settle_all(&self.disk, &self.context);
                        let sync_dirs = self.sync_dirs;
                        (self.done)(settled.map(|steps| Locked { set, sync_dirs, steps }));
                    }
                }
            }),
        );
    }

    /// The caller's files and those that redo folders name.
    fn wanted(&self) -> Result<Vec<PathBuf>> {
        let mut wanted = self.targets.clone();
        let redos = stage::find(&self.disk, &self.context.sidecar())?;
        if !redos.is_empty() && !stage::is_trusted(&self.context.sidecar()) {
            let sidecar = self.context.sidecar();
            let text = format!(
                "{} belongs to another user or is writable by everybody, and holds unfinished batches: they will not be published over your files. Check and remove it",
                sidecar.display()
            );
            return Err(HfError::new(Code::Io, text).with_field("path", sidecar.to_string_lossy()));
        }
        for redo in redos {
            for target in redo.intent().map(|intent| intent.targets.as_slice()).unwrap_or_default() {
                wanted.extend(target_path(&self.context, &target.path));
            }
        }
        Ok(wanted)
    }
}

/// Stores in byte order, then receipts, then manifest: the one order in which everybody locks.
fn in_lock_order(context: &Context, wanted: &[PathBuf]) -> Vec<PathBuf> {
    let mut stores: Vec<PathBuf> = wanted.iter().filter(|path| **path != context.manifest && **path != context.receipts).cloned().collect();
    stores.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    stores.dedup();
    stores.extend([context.receipts.clone(), context.manifest.clone()]);
    stores
}

fn target_path(context: &Context, name: &str) -> Option<PathBuf> {
    let known = [context.manifest.clone(), context.receipts.clone()];
    stage::path_of(context.base(), name, &known).or_else(|| {
        // A store beside which there is no sidecar, because the manifest lies elsewhere.
        let inside = Path::new(name).strip_prefix(&context.dir).ok()?;
        stage::path_of(&context.dir, inside.to_str()?, &[])
    })
}

/// Takes the lock of one file; if a dead batch's folder names it, that batch is settled first.
pub fn lock_file(disk: Disk, path: PathBuf, options: lock::Options, done: Continuation<FileLock>) {
    let (disk2, path2, options2) = (disk.clone(), path.clone(), options.clone());
    lock::lock(
        &disk,
        &path,
        options,
        Box::new(move |locked| match locked {
            Err(error) => done(Err(error)),
            Ok(file_lock) => match pending_for(&disk2, &path2, &options2) {
                Err(error) => done(Err(error)),
                Ok(None) => done(Ok(file_lock)),
                Ok(Some(context)) => {
                    drop(file_lock);
                    let disk3 = disk2.clone();
                    let settled = move |locked: Result<Locked>| match locked {
                        Ok(locked) => {
                            drop(locked);
                            lock::lock(&disk2, &path2, options2, done);
                        }
                        Err(error) => done(Err(error)),
                    };
                    lock_and_recover(disk3, context, Vec::new(), Vec::new(), Box::new(settled));
                }
            },
        }),
    );
}

/// Finds the runtime directory whose dead batch names `path`. Makes nothing.
fn pending_for(disk: &Disk, path: &Path, options: &lock::Options) -> Result<Option<Context>> {
    for base in path.ancestors().skip(1).filter(|base| !base.as_os_str().is_empty()) {
        let sidecar = base.join(SIDECAR);
        // Asked for every lock: the usual answer is one failed look-up per level.
        if std::fs::symlink_metadata(sidecar.join(STAGE)).is_err() || !stage::is_trusted(&sidecar) {
            continue;
        }
        for redo in stage::find(disk, &sidecar)? {
            let Some(intent) = redo.intent() else { continue };
            let at = |i: usize| intent.targets.get(i).and_then(|target| stage::path_of(base, &target.path, &[]));
            let names_it = (0..intent.targets.len()).any(|i| at(i).as_deref() == Some(path));
            let (Some(receipts), Some(manifest)) = (at(intent.receipts()), at(intent.manifest())) else { continue };
            if names_it && lock::is_free(&sidecar.join(format::LOCK)) {
                return Ok(Some(Context {
                    dir: base.to_owned(),
                    manifest,
                    receipts,
                    extra_names: intent.entries.iter().map(|entry| entry.schema_name.clone()).collect(),
                    durability: Durability::Full,
                    lock_options: options.clone(),
                }));
            }
        }
    }
    Ok(None)
}

fn settle_all(disk: &Disk, context: &Context) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for redo in stage::find(disk, &context.sidecar())? {
        steps.extend(settle(disk, context, &redo)?);
    }
    Ok(steps)
}

/// What stands where a target should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// The bytes from before the batch.
    Prior,
    /// The bytes of the batch.
    Next,
    /// Not a versioned file.
    Invalid,
    /// A versioned file that somebody wrote later.
    Foreign,
}

/// What to do with one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is as it should be, or not ours to change.
    Leave,
    /// Write the staged bytes.
    Write,
    /// Put the former bytes back.
    Restore,
    /// Work the batch into what somebody wrote later.
    Merge,
}

/// What to do with a redo folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Carry out one act per target, sync, remove the folder.
    Forward(Vec<Act>),
    /// As `Forward`, and the folder's removal is synced as well.
    Back(Vec<Act>),
    /// Everything was overwritten by others: put the folder aside.
    Superseded,
}

/// Decides about a batch that passed its commit point. `manifest` and `receipts` are the current ones, if they can be read;
/// `republish` says that a sync failed while it was published.
#[must_use]
pub fn decide(intent: &Intent, aborted: bool, found: &[Found], manifest: Option<&Manifest>, receipts: Option<&Batches>, republish: bool) -> Decision {
    let at = |i: usize| found.get(i).copied().unwrap_or(Found::Missing);
    let count = intent.targets.len();
    if aborted {
        return Decision::Back((0..count).map(|i| if at(i) == Found::Next { Act::Restore } else { Act::Leave }).collect());
    }
    let applied = manifest.is_some_and(|manifest| is_applied(intent, manifest, receipts));
    let (receipts, manifest_index) = (intent.receipts(), intent.manifest());
    let foreign_control = at(receipts) == Found::Foreign || at(manifest_index) == Found::Foreign;
    let other_team = manifest.is_some_and(|manifest| manifest.team_name != intent.team_name);
    let hopeless = intent.stores() > 0 && (0..intent.stores()).all(|i| at(i) == Found::Foreign);
    if !applied && (other_team || (hopeless && foreign_control)) {
        return Decision::Superseded;
    }
    let any_foreign = (0..count).any(|i| at(i) == Found::Foreign);
    let staged = |i: usize| match at(i) {
        Found::Next if !republish => Act::Leave,
        _ => Act::Write,
    };
    let acts = (0..count).map(|i| {
        if i < intent.stores() {
            let ours = intent.entries.iter().filter(|change| change.target == i).all(|change| owns(change, manifest));
            return match at(i) {
                Found::Foreign => Act::Leave,
                _ if ours => staged(i),
                _ => Act::Leave,
            };
        }
        match (i == receipts, at(i)) {
            // The manifest shows the batch; only a power cut can have lost the receipts' rename.
            (true, Found::Foreign) if applied && manifest.is_none_or(|m| m.last_committed_batch_id.as_ref() != Some(&intent.batch_id)) => Act::Leave,
            (true, Found::Foreign) => Act::Merge,
            (true, _) => staged(i),
            (false, Found::Next) => staged(i),
            (false, _) if applied => Act::Leave,
            (false, _) if any_foreign => Act::Merge,
            (false, _) => staged(i),
        }
    });
    Decision::Forward(acts.collect())
}

/// Tells whether the manifest shows the batch: by its id, by all of its receipts, or by later batches. The last needs more
/// than a high watermark, because the original counts on without looking at redo folders: no entry is the one from before,
/// and the receipts know the batch, unless retention may have taken it out.
fn is_applied(intent: &Intent, manifest: &Manifest, receipts: Option<&Batches>) -> bool {
    let entry = |change: &EntryChange| manifest.entry(&change.schema_name).map(|entry| (entry.last_write_receipt_id.clone(), entry.content_hash.clone()));
    let all_receipts = !intent.entries.is_empty()
        && intent.entries.iter().all(|change| entry(change).is_some_and(|(receipt_id, _)| receipt_id.as_ref() == Some(&change.receipt_id)));
    if manifest.last_committed_batch_id.as_ref() == Some(&intent.batch_id) || all_receipts {
        return true;
    }
    let later = manifest.high_watermark - intent.prior_watermark - 1.0;
    let untouched = intent.entries.iter().any(|change| entry(change).unwrap_or_default() == (change.prior_receipt_id.clone(), change.prior_content_hash.clone()));
    let recorded = receipts.is_none_or(|receipts| receipts.get(&intent.batch_id).is_some());
    let pruned = intent.retention.is_some_and(|kept| later >= kept as f64);
    later > 0.0 && !untouched && (recorded || pruned)
}

/// Tells whether the manifest's entry of a store is still the one from before the batch, or the batch's own: then nobody
/// committed that store since.
pub(super) fn owns(change: &EntryChange, manifest: Option<&Manifest>) -> bool {
    let Some(manifest) = manifest else { return true };
    match manifest.entry(&change.schema_name) {
        None => change.prior_content_hash.is_none() && change.prior_receipt_id.is_none(),
        Some(entry) => {
            let prior = entry.last_write_receipt_id == change.prior_receipt_id && entry.content_hash == change.prior_content_hash;
            prior || entry.last_write_receipt_id.as_ref() == Some(&change.receipt_id)
        }
    }
}

/// The files that a redo folder speaks of, as they are now.
struct View {
    paths: Vec<PathBuf>,
    bytes: Vec<Option<Vec<u8>>>,
    found: Vec<Found>,
    manifest: Option<Manifest>,
    receipts: Option<Batches>,
}

fn look(disk: &Disk, context: &Context, intent: &Intent) -> Result<View> {
    let mut view = View { paths: Vec::new(), bytes: Vec::new(), found: Vec::new(), manifest: None, receipts: None };
    let mut extra = context.extra_names.clone();
    extra.extend(intent.entries.iter().map(|change| change.schema_name.clone()));
    for (i, target) in intent.targets.iter().enumerate() {
        let path = target_path(context, &target.path).ok_or_else(|| {
            let cause = HfError::new(Code::RuntimePathEscapes, format!("its redo folder names {}, which lies outside of {}", target.path, context.base().display()));
            batch_pending(&intent.batch_id, "committed", &cause)
        })?;
        let bytes = optional(disk.read(&path)).at("open", &path)?;
        let mut found = classify(bytes.as_deref(), &target.prior_hash, &target.next_hash);
        if let (Found::Foreign | Found::Prior | Found::Next, Some(bytes)) = (found, &bytes) {
            let text = decode(bytes.clone());
            let is_control = i >= intent.stores();
            let envelope = open_envelope(&text, &path, if is_control { CONTROL_VERSION } else { f64::INFINITY });
            let sound = match envelope {
                Err(fault) if fault.reason == "future_schema" => return Err(fault.into_error(None)),
                Err(_) => false,
                Ok(envelope) if i == intent.receipts() => {
                    view.receipts = Batches::parse(envelope.data, &extra).ok();
                    view.receipts.is_some()
                }
                Ok(envelope) if i == intent.manifest() => {
                    view.manifest = Manifest::parse(envelope.data, &extra).ok();
                    view.manifest.is_some()
                }
                Ok(_) => true,
            };
            if !sound && found == Found::Foreign {
                found = Found::Invalid;
            }
        }
        view.paths.push(path);
        view.bytes.push(bytes);
        view.found.push(found);
    }
    Ok(view)
}

fn classify(bytes: Option<&[u8]>, prior: &Option<String>, next: &str) -> Found {
    let Some(bytes) = bytes else { return Found::Missing };
    let hash = content_hash(bytes);
    if hash == next {
        Found::Next
    } else if prior.as_ref() == Some(&hash) {
        Found::Prior
    } else {
        Found::Foreign
    }
}

/// Settles one redo folder. The caller holds the locks of all files that it names.
///
/// # Errors
/// Any failure; the folder stays, and the next recovery decides anew.
pub fn settle(disk: &Disk, context: &Context, redo: &Redo) -> Result<Vec<Step>> {
    let (intent, aborted) = match &redo.content {
        Content::Incomplete => {
            stage::remove(disk, &redo.folder)?;
            let name = redo.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(vec![Step::of_batch("discard", &name, "a batch that never reached its commit point; nothing of it was published")]);
        }
        Content::Committed(intent) => (intent, false),
        Content::Aborted(intent) => (intent, true),
    };
    let view = look(disk, context, intent)?;
    for (target, path) in intent.targets.iter().zip(&view.paths) {
        let real = resolve(disk, path).at("readlink", path)?;
        let leftover = folder_of(&real).join(&target.temp);
        if target.temp.starts_with(".tmp.") && !target.temp.contains(['/', '\\']) {
            optional(disk.remove_file(&leftover)).at("unlink", &leftover)?;
        }
    }
    let marker = redo.folder.join(stage::REPUBLISH);
    let republish = optional(disk.symlink_metadata(&marker)).at("lstat", &marker)?.is_some();
    let decision = decide(intent, aborted, &view.found, view.manifest.as_ref(), view.receipts.as_ref(), republish);
    Settling { disk, context, redo, intent, view, syncs: context.durability == Durability::Full, steps: Vec::new() }.carry_out(&decision)
}

/// Says what [`settle`] would do with a committed or aborted batch, and whether nothing is left to do for its targets.
/// `None` for a batch that never was committed.
///
/// # Errors
/// Any I/O failure.
pub fn preview(disk: &Disk, context: &Context, redo: &Redo) -> Result<Option<(Decision, bool)>> {
    let Some(intent) = redo.intent() else { return Ok(None) };
    let view = look(disk, context, intent)?;
    let aborted = matches!(redo.content, Content::Aborted(_));
    let decision = decide(intent, aborted, &view.found, view.manifest.as_ref(), view.receipts.as_ref(), false);
    if let Decision::Forward(acts) = &decision
        && staged(disk, redo, intent, &view, acts)?.is_none()
        && !was_published(intent, &view.found)
    {
        return Ok(None);
    }
    let settled = match &decision {
        Decision::Forward(acts) | Decision::Back(acts) => acts.iter().all(|act| *act == Act::Leave),
        Decision::Superseded => false,
    };
    Ok(Some((decision, settled)))
}

/// Tells whether a target holds bytes that only the batch can have put there.
fn was_published(intent: &Intent, found: &[Found]) -> bool {
    intent.targets.iter().zip(found).any(|(target, found)| *found == Found::Next && target.prior_hash.as_ref() != Some(&target.next_hash))
}

/// Reads and checks the staged bytes that the acts need. `None` if one is damaged.
fn staged(disk: &Disk, redo: &Redo, intent: &Intent, view: &View, acts: &[Act]) -> Result<Option<Vec<Option<Vec<u8>>>>> {
    let mut staged = Vec::new();
    for (i, (act, target)) in acts.iter().zip(&intent.targets).enumerate() {
        let unreadable = if i == intent.receipts() { view.receipts.is_none() } else { view.manifest.is_none() };
        let needed = *act == Act::Write || (*act == Act::Merge && unreadable);
        let path = redo.next_file(i);
        let mut bytes = if needed { optional(disk.read(&path)).at("open", &path)? } else { None };
        if needed && bytes.is_none() && view.found.get(i) == Some(&Found::Next) {
            // The folder was being removed: to be published again, the target itself will do.
            bytes = view.bytes.get(i).cloned().flatten();
        }
        if needed && bytes.as_deref().map(content_hash).as_ref() != Some(&target.next_hash) {
            return Ok(None);
        }
        staged.push(bytes);
    }
    Ok(Some(staged))
}

struct Settling<'a> {
    disk: &'a Disk,
    context: &'a Context,
    redo: &'a Redo,
    intent: &'a Intent,
    view: View,
    syncs: bool,
    steps: Vec<Step>,
}

impl Settling<'_> {
    fn carry_out(mut self, decision: &Decision) -> Result<Vec<Step>> {
        match decision {
            Decision::Superseded => {
                self.put_aside("other programs replaced all that it wrote; its redo folder was put aside")?;
                return Ok(self.steps);
            }
            Decision::Forward(acts) => {
                let Some(staged) = staged(self.disk, self.redo, self.intent, &self.view, acts)? else {
                    self.drop_damaged()?;
                    return Ok(self.steps);
                };
                self.make_durable(acts)?;
                self.forward(acts, staged)?;
            }
            Decision::Back(acts) => {
                self.make_durable(acts)?;
                self.back(acts)?;
            }
        }
        if self.syncs {
            let folders = self.view.paths.iter().map(|path| resolve(self.disk, path).map(|real| folder_of(&real).to_owned()));
            let folders = folders.collect::<std::io::Result<Vec<_>>>().at("readlink", &self.redo.folder)?;
            sync::dirs(self.disk, folders)?;
        }
        self.disk.point("in_recovery").at("recover", &self.redo.folder)?;
        stage::remove(self.disk, &self.redo.folder)?;
        if self.syncs {
            sync::dirs(self.disk, [folder_of(&self.redo.folder).to_owned()])?;
        }
        Ok(self.steps)
    }

    /// The owner may have been killed before its barriers: then the folder is complete, but only in memory. It must be on the
    /// disk before the first change that a power cut would leave unexplained without it.
    fn make_durable(&self, acts: &[Act]) -> Result<()> {
        if !self.syncs || acts.iter().all(|act| *act == Act::Leave) {
            return Ok(());
        }
        let intent = if matches!(self.redo.content, Content::Aborted(_)) { stage::ABORTED } else { stage::INTENT };
        let staged = (0..acts.len()).filter(|&i| acts.get(i) == Some(&Act::Write)).map(|i| self.redo.next_file(i));
        let mut files = Vec::new();
        for path in staged.chain([self.redo.folder.join(intent)]) {
            files.extend(optional(self.disk.reopen(&path)).at("open", &path)?.map(sync::Target::File));
        }
        sync::barrier(self.disk, files)?;
        let sidecar = self.context.sidecar();
        sync::dirs(self.disk, [self.redo.folder.clone(), sidecar.join(STAGE), sidecar, self.context.base().to_owned()])
    }

    /// Staged files that do not match their hashes mean a power cut before the commit point, unless a target was published.
    fn drop_damaged(&mut self) -> Result<()> {
        if was_published(self.intent, &self.view.found) {
            return self.put_aside("its staged files are damaged; the redo folder was put aside");
        }
        stage::remove(self.disk, &self.redo.folder)?;
        self.steps.push(Step::of_batch("discard", &self.intent.batch_id, "a batch that never reached its commit point; nothing of it was published"));
        Ok(())
    }

    fn forward(&mut self, acts: &[Act], staged: Vec<Option<Vec<u8>>>) -> Result<()> {
        let (intent, stores) = (self.intent, self.intent.stores());
        let published = acts.iter().all(|act| *act == Act::Leave);
        for (i, (act, bytes)) in acts.iter().zip(&staged).enumerate() {
            let found = self.view.found.get(i).copied().unwrap_or(Found::Missing);
            if i < stores && found == Found::Foreign {
                let path = self.view.paths.get(i).map(|path| path.display().to_string()).unwrap_or_default();
                for change in intent.entries.iter().filter(|change| change.target == i) {
                    self.steps.push(Step {
                        batch_id: Some(intent.batch_id.clone()),
                        ..Step::of_store("keep_newer", &change.schema_name, format!("{path} was written by somebody else after the batch; that write stays"))
                    });
                }
            }
            let text = match act {
                Act::Leave | Act::Restore => continue,
                Act::Write => bytes.clone().unwrap_or_default(),
                Act::Merge if i == intent.receipts() => self.merged_receipts(bytes.as_deref())?.into_bytes(),
                Act::Merge => self.merged_manifest(bytes.as_deref())?.into_bytes(),
            };
            if found == Found::Invalid {
                self.quarantine(i)?;
            }
            if i == intent.receipts() {
                self.archive_dropped(&text)?;
            }
            self.write(i, &text, *act == Act::Write)?;
        }
        let detail = if published { "was published already; its redo folder was removed" } else { "was committed but not published; it is now" };
        self.steps.push(Step::of_batch("roll_forward", &intent.batch_id, detail));
        Ok(())
    }

    /// What retention takes out of the receipts is in the archive before it goes.
    fn archive_dropped(&self, next: &[u8]) -> Result<()> {
        let Some(current) = &self.view.receipts else { return Ok(()) };
        let kept = merge::receipts_in(next, self.intent, &self.context.extra_names)?;
        let dropped: Vec<_> = current.records.iter().filter(|batch| kept.get(&batch.batch_id).is_none()).cloned().collect();
        if dropped.is_empty() { Ok(()) } else { archive::append_missing(self.disk, &self.context.sidecar(), dropped, self.syncs) }
    }

    fn back(&mut self, acts: &[Act]) -> Result<()> {
        for (i, act) in acts.iter().enumerate() {
            let (Some(target), Some(path)) = (self.intent.targets.get(i), self.view.paths.get(i).cloned()) else { continue };
            if *act != Act::Restore || target.prior_hash.as_ref() == Some(&target.next_hash) {
                continue;
            }
            let kept = self.redo.prior_file(i);
            let prior = match target.prior_hash {
                Some(_) => Some(self.disk.read(&kept).at("open", &kept)?),
                None => None,
            };
            if i == self.intent.receipts() {
                let text = merge::failed_receipts(prior, self.intent, &self.context.extra_names, &path)?;
                self.write(i, text.as_bytes(), false)?;
            } else if let Some(bytes) = prior {
                let mtime = self.disk.metadata(&kept).ok().and_then(|metadata| metadata.modified().ok()).map(clock::millis_since_epoch);
                write_over(self.disk, &bytes, &path, &target.temp, Some(&kept), mtime, self.syncs)?;
            } else {
                optional(self.disk.remove_file(&path)).at("unlink", &path)?;
            }
            self.disk.point("in_recovery").at("recover", &path)?;
        }
        self.steps.push(Step::of_batch("roll_back", &self.intent.batch_id, "its undo was interrupted; it is complete now"));
        Ok(())
    }

    fn write(&self, i: usize, bytes: &[u8], as_staged: bool) -> Result<()> {
        let (Some(target), Some(path)) = (self.intent.targets.get(i), self.view.paths.get(i)) else { return Ok(()) };
        let like = if as_staged { self.redo.next_file(i) } else { path.clone() };
        write_over(self.disk, bytes, path, &target.temp, Some(&like), as_staged.then_some(target.mtime_ms), self.syncs)?;
        self.disk.point("in_recovery").at("recover", path)
    }

    fn quarantine(&mut self, i: usize) -> Result<()> {
        let (Some(path), Some(Some(bytes))) = (self.view.paths.get(i), self.view.bytes.get(i)) else { return Ok(()) };
        let copy = format::quarantine_copy(self.disk, path, bytes, "invalid_envelope", &clock::iso_now(), folder_of(path))?;
        if self.syncs {
            // Before the rename that takes the bytes away.
            sync::dirs(self.disk, [folder_of(path).to_owned()])?;
        }
        self.steps.push(Step::of_directory("quarantine", format!("{} was not a versioned file; its bytes are in {}", path.display(), copy.display())));
        Ok(())
    }

    fn merged_receipts(&self, staged: Option<&[u8]>) -> Result<String> {
        merge::receipts(self.view.receipts.clone(), staged, self.intent, &self.context.extra_names)
    }

    fn merged_manifest(&self, staged: Option<&[u8]>) -> Result<String> {
        let foreign = self.intent.entries.iter().filter_map(|change| {
            let kept = self.view.found.get(change.target) == Some(&Found::Foreign);
            let bytes = self.view.bytes.get(change.target).and_then(Option::as_deref).filter(|_| kept)?;
            let mtime = self.view.paths.get(change.target).and_then(|path| self.disk.metadata(path).ok()).and_then(|metadata| metadata.modified().ok());
            Some((change.schema_name.as_str(), merge::Kept { bytes, mtime_ms: mtime.map_or(0.0, clock::millis_since_epoch) }))
        });
        merge::manifest(self.view.manifest.clone(), staged, self.intent, &foreign.collect::<Vec<_>>(), &self.context.extra_names)
    }

    fn put_aside(&mut self, why: &str) -> Result<()> {
        let superseded = self.context.sidecar().join(SUPERSEDED);
        self.disk.create_dirs(&superseded).at("mkdir", &superseded)?;
        let name = self.redo.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = superseded.join(format!("{name}.{}", crate::ids::uuid()));
        self.disk.rename(&self.redo.folder, &target).at("rename", &target)?;
        if self.syncs {
            sync::dirs(self.disk, [folder_of(&self.redo.folder).to_owned(), superseded])?;
        }
        self.steps.push(Step::of_batch("supersede", &self.intent.batch_id, format!("{why}: {}", target.display())));
        Ok(())
    }
}
