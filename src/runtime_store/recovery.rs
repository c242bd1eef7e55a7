//! Undoing what a crash left: whoever needs a lock that a dead batch's folder names settles that batch first.
//!
//! Read and act are in [`super::settle`], the decision between them in [`super::decide`].

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::format::{self, SIDECAR, STAGE};
use super::settle::settle;
use super::{Context, stage};
use crate::durable::atomic::Durability;
use crate::durable::lock::{self, Continuation, FileLock, LockSet, SetRequest};
use crate::durable::{Disk, IoContext};
use crate::error::{Code, HfError, Result};

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
pub fn lock_and_recover(
    disk: Disk,
    context: Context,
    targets: Vec<PathBuf>,
    held: Vec<PathBuf>,
    done: Continuation<Locked>,
) {
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
    let mut stores: Vec<PathBuf> =
        wanted.iter().filter(|path| **path != context.manifest && **path != context.receipts).cloned().collect();
    stores.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    stores.dedup();
    stores.extend([context.receipts.clone(), context.manifest.clone()]);
    stores
}

pub(super) fn target_path(context: &Context, name: &str) -> Option<PathBuf> {
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
            let (Some(receipts), Some(manifest)) = (at(intent.receipts()), at(intent.manifest())) else {
                continue;
            };
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
