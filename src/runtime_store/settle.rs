//! Carrying out what [`super::decide`] decided about one redo folder. A crash in here leads to the same decision again.

use std::path::PathBuf;

use super::decide::{Act, Decision, Found, decide, was_published};
use super::error::batch_pending;
use super::format::{self, CONTROL_VERSION, STAGE, SUPERSEDED, decode, open_envelope};
use super::manifest::Manifest;
use super::publish::write_over;
use super::receipts::Batches;
use super::recovery::{Step, target_path};
use super::stage::{self, Content, Intent, Redo};
use super::{Context, archive, merge};
use crate::clock;
use crate::durable::atomic::{Durability, folder_of, resolve};
use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::{Code, HfError, Result};
use crate::hash::content_hash;

/// The files that a redo folder speaks of, as they are now.
struct View {
    paths: Vec<PathBuf>,
    bytes: Vec<Option<Vec<u8>>>,
    found: Vec<Found>,
    manifest: Option<Manifest>,
    receipts: Option<Batches>,
}

fn look(disk: &Disk, context: &Context, redo: &Redo, intent: &Intent) -> Result<View> {
    let mut view = View { paths: Vec::new(), bytes: Vec::new(), found: Vec::new(), manifest: None, receipts: None };
    let mut extra = context.extra_names.clone();
    extra.extend(intent.entries.iter().map(|change| change.schema_name.clone()));
    for (i, target) in intent.targets.iter().enumerate() {
        let path = target_path(context, &target.path).ok_or_else(|| {
            let cause = HfError::new(
                Code::RuntimePathEscapes,
                format!("its redo folder names {}, which lies outside of {}", target.path, context.base().display()),
            );
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
            // A published file and its staged copy are one inode until recovery: an edit in place, also one that broke the
            // file, is somebody's later write, and has taken the staged bytes with it.
            let edited_in_place = found == Found::Foreign
                && optional(disk.read(&redo.next_file(i))).at("open", &path)?.as_ref() == Some(bytes);
            if !sound && found == Found::Foreign && !edited_in_place {
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
            return Ok(vec![Step::of_batch(
                "discard",
                &name,
                "a batch that never reached its commit point; nothing of it was published",
            )]);
        }
        Content::Committed(intent) => (intent, false),
        Content::Aborted(intent) => (intent, true),
    };
    let view = look(disk, context, redo, intent)?;
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
    Settling { disk, context, redo, intent, view, syncs: context.durability == Durability::Full, steps: Vec::new() }
        .carry_out(&decision)
}

/// Says what [`settle`] would do with a committed or aborted batch, and whether nothing is left to do for its targets.
/// `None` for a batch that never was committed.
///
/// # Errors
/// Any I/O failure.
pub fn preview(disk: &Disk, context: &Context, redo: &Redo) -> Result<Option<(Decision, bool)>> {
    let Some(intent) = redo.intent() else { return Ok(None) };
    let view = look(disk, context, redo, intent)?;
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

/// Reads and checks the staged bytes that the acts need. `None` if one is damaged; a control file that somebody edited in
/// place has none, and is merged from its former bytes.
fn staged(
    disk: &Disk,
    redo: &Redo,
    intent: &Intent,
    view: &View,
    acts: &[Act],
) -> Result<Option<Vec<Option<Vec<u8>>>>> {
    let mut staged = Vec::new();
    for (i, (act, target)) in acts.iter().zip(&intent.targets).enumerate() {
        let edited = view.found.get(i) == Some(&Found::Foreign);
        let needed = *act == Act::Write || (*act == Act::Merge && view.is_unreadable(intent, i) && !edited);
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

impl View {
    /// Tells whether a control file is there and says nothing.
    fn is_unreadable(&self, intent: &Intent, i: usize) -> bool {
        if i == intent.receipts() { self.receipts.is_none() } else { self.manifest.is_none() }
    }
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
            let folders =
                self.view.paths.iter().map(|path| resolve(self.disk, path).map(|real| folder_of(&real).to_owned()));
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
        self.steps.push(Step::of_batch(
            "discard",
            &self.intent.batch_id,
            "a batch that never reached its commit point; nothing of it was published",
        ));
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
                        ..Step::of_store(
                            "keep_newer",
                            &change.schema_name,
                            format!("{path} was written by somebody else after the batch; that write stays"),
                        )
                    });
                }
            }
            let text = match act {
                Act::Leave | Act::Restore => continue,
                Act::Write => bytes.clone().unwrap_or_default(),
                Act::Merge if i == intent.receipts() => self.merged_receipts(bytes.as_deref())?.into_bytes(),
                Act::Merge => self.merged_manifest(bytes.as_deref())?.into_bytes(),
            };
            if found == Found::Invalid
                || (found == Found::Foreign && *act == Act::Merge && self.view.is_unreadable(intent, i))
            {
                self.quarantine(i)?;
            }
            if i == intent.receipts() {
                self.archive_dropped(&text)?;
            }
            self.write(i, &text, *act == Act::Write)?;
        }
        let detail = if published {
            "was published already; its redo folder was removed"
        } else {
            "was committed but not published; it is now"
        };
        self.steps.push(Step::of_batch("roll_forward", &intent.batch_id, detail));
        Ok(())
    }

    /// What retention takes out of the receipts is in the archive before it goes.
    fn archive_dropped(&self, next: &[u8]) -> Result<()> {
        let Some(current) = &self.view.receipts else {
            return Ok(());
        };
        let kept = merge::receipts_in(next, self.intent, &self.context.extra_names)?;
        let dropped: Vec<_> =
            current.records.iter().filter(|batch| kept.get(&batch.batch_id).is_none()).cloned().collect();
        if dropped.is_empty() {
            Ok(())
        } else {
            archive::append_missing(self.disk, &self.context.sidecar(), dropped, self.syncs)
        }
    }

    fn back(&mut self, acts: &[Act]) -> Result<()> {
        for (i, act) in acts.iter().enumerate() {
            let (Some(target), Some(path)) = (self.intent.targets.get(i), self.view.paths.get(i).cloned()) else {
                continue;
            };
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
                let mtime = self
                    .disk
                    .metadata(&kept)
                    .ok()
                    .and_then(|metadata| metadata.modified().ok())
                    .map(clock::millis_since_epoch);
                write_over(self.disk, &bytes, &path, &target.temp, Some(&kept), mtime, self.syncs)?;
            } else {
                optional(self.disk.remove_file(&path)).at("unlink", &path)?;
            }
            self.disk.point("in_recovery").at("recover", &path)?;
        }
        self.steps.push(Step::of_batch(
            "roll_back",
            &self.intent.batch_id,
            "its undo was interrupted; it is complete now",
        ));
        Ok(())
    }

    fn write(&self, i: usize, bytes: &[u8], as_staged: bool) -> Result<()> {
        let (Some(target), Some(path)) = (self.intent.targets.get(i), self.view.paths.get(i)) else {
            return Ok(());
        };
        let like = if as_staged { self.redo.next_file(i) } else { path.clone() };
        write_over(
            self.disk,
            bytes,
            path,
            &target.temp,
            Some(&like),
            as_staged.then_some(target.mtime_ms),
            self.syncs,
        )?;
        self.disk.point("in_recovery").at("recover", path)
    }

    fn quarantine(&mut self, i: usize) -> Result<()> {
        let (Some(path), Some(Some(bytes))) = (self.view.paths.get(i), self.view.bytes.get(i)) else {
            return Ok(());
        };
        let copy =
            format::quarantine_copy(self.disk, path, bytes, "invalid_envelope", &clock::iso_now(), folder_of(path))?;
        if self.syncs {
            // Before the rename that takes the bytes away.
            sync::dirs(self.disk, [folder_of(path).to_owned()])?;
        }
        self.steps.push(Step::of_directory(
            "quarantine",
            format!("{} was not a versioned file; its bytes are in {}", path.display(), copy.display()),
        ));
        Ok(())
    }

    fn merged_receipts(&self, staged: Option<&[u8]>) -> Result<String> {
        let current = match &self.view.receipts {
            None if staged.is_none() => Some(
                self.former(self.intent.receipts(), |data, extra| Batches::parse(data, extra).ok())?
                    .unwrap_or_default(),
            ),
            current => current.clone(),
        };
        merge::receipts(current, staged, self.intent, &self.context.extra_names)
    }

    /// Reads what a control file held before the batch: what a merge starts from when the present one says nothing.
    fn former<T>(&self, i: usize, parse: impl FnOnce(&str, &[String]) -> Option<T>) -> Result<Option<T>> {
        let path = self.redo.prior_file(i);
        let Some(bytes) = optional(self.disk.read(&path)).at("open", &path)? else {
            return Ok(None);
        };
        let text = decode(bytes);
        let names: Vec<String> = self.intent.entries.iter().map(|change| change.schema_name.clone()).collect();
        let extra = [names, self.context.extra_names.clone()].concat();
        let opened = open_envelope(&text, &path, CONTROL_VERSION);
        Ok(opened.ok().and_then(|envelope| parse(envelope.data, &extra)))
    }

    fn merged_manifest(&self, staged: Option<&[u8]>) -> Result<String> {
        let foreign = self.intent.entries.iter().filter_map(|change| {
            let kept = self.view.found.get(change.target) == Some(&Found::Foreign);
            let bytes = self.view.bytes.get(change.target).and_then(Option::as_deref).filter(|_| kept)?;
            let mtime = self
                .view
                .paths
                .get(change.target)
                .and_then(|path| self.disk.metadata(path).ok())
                .and_then(|metadata| metadata.modified().ok());
            Some((
                change.schema_name.as_str(),
                merge::Kept { bytes, mtime_ms: mtime.map_or(0.0, clock::millis_since_epoch) },
            ))
        });
        let current = match &self.view.manifest {
            None if staged.is_none() => {
                let former = self.former(self.intent.manifest(), |data, extra| Manifest::parse(data, extra).ok())?;
                Some(former.unwrap_or_else(|| Manifest::empty(&self.intent.team_name, &self.intent.updated_at)))
            }
            current => current.clone(),
        };
        merge::manifest(current, staged, self.intent, &foreign.collect::<Vec<_>>(), &self.context.extra_names)
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
