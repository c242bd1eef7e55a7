//! Bringing complete entries from staging into the cache.
//!
//! Order: the entry's folder and its index record, a barrier, then the marker, another barrier. So a marker that is on the disk
//! has its files on the disk. Whoever holds the lock publishes for all who wait for it: their syncs are shared.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Store;
use super::index::{self, Found};
use super::leftovers::Staging;
use super::lock::{RootLock, guard};
use super::rows::Row;
use super::{Context, markers};
use crate::durable::{Disk, IoContext, atomic, sync};
use crate::error::{Code, HfError, Result};
use crate::ids;

/// An entry that is complete and synced, with its index record and its marker, in staging.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) staging: Staging,
    /// The entry's folder in staging.
    pub(super) folder: PathBuf,
    /// Where it goes, relative to the cache.
    pub(super) dir: String,
    pub(super) integrity: String,
    pub(super) index_record: PathBuf,
    pub(super) marker: PathBuf,
    pub(super) files: Vec<Row>,
    /// Replace an entry even if it looks sound.
    pub(super) force: bool,
}

type Outcome = Arc<Mutex<Option<Result<()>>>>;

/// An entry that waits for the next holder of the lock.
#[derive(Debug)]
pub(super) struct Waiting {
    prepared: Prepared,
    outcome: Outcome,
}

/// Publishes an entry, or waits until another caller has.
///
/// # Errors
/// As [`RootLock::take`], and any I/O failure. The cache is as before unless the failure is that of a sync.
pub(super) fn publish(store: &Store, prepared: Prepared, context: &Context<'_>) -> Result<()> {
    let shared = store.shared()?;
    let outcome = Outcome::default();
    guard(&shared.waiting).push(Waiting { prepared, outcome: Arc::clone(&outcome) });
    let done = || guard(&outcome).is_some();
    let locked = RootLock::take(store.disk(), store.paths(), &shared, store.options().lock_timeout, context, done);
    match locked {
        Err(error) => {
            guard(&shared.waiting).retain(|waiting| !Arc::ptr_eq(&waiting.outcome, &outcome));
            Err(error)
        }
        Ok(lock) => {
            if let Some(lock) = lock {
                let batch = std::mem::take(&mut *guard(&shared.waiting));
                publish_all(store, batch);
                drop(lock);
            }
            // The one in whose turn it was taken has left an outcome, unless it panicked.
            guard(&outcome).take().unwrap_or_else(|| {
                let message =
                    "a bug in holdfast: an entry was to be published and nobody says whether it was; please report it";
                Err(HfError::new(Code::Panic, message))
            })
        }
    }
}

fn publish_all(store: &Store, batch: Vec<Waiting>) {
    let (disk, paths, full) = (store.disk(), store.paths(), store.options().durability_full);
    let mut moved = Vec::new();
    let mut touched = Vec::new();
    for waiting in batch {
        match move_entry(store, &waiting.prepared, &mut touched) {
            Ok(true) => moved.push(waiting),
            result => settle(&waiting, result.map(drop)),
        }
    }
    let synced = if full { sync::dirs(disk, touched) } else { Ok(()) };
    let marked =
        synced.and_then(|()| disk.create_dirs(&paths.markers()).at("mkdir", &paths.markers())).and_then(|made| {
            let mut results = Vec::new();
            for waiting in &moved {
                let marker = paths.marker(&waiting.prepared.integrity);
                results.push(disk.rename(&waiting.prepared.marker, &marker).at("rename", &marker));
            }
            if full {
                sync::dirs(disk, made.into_iter().chain([paths.markers()]))?;
            }
            Ok(results)
        });
    match marked {
        Ok(results) => moved.iter().zip(results).for_each(|(waiting, result)| settle(waiting, result)),
        Err(error) => moved.iter().for_each(|waiting| settle(waiting, Err(error.clone()))),
    }
}

fn settle(waiting: &Waiting, result: Result<()>) {
    *guard(&waiting.outcome) = Some(result);
}

/// Moves one entry and its index record; false if what is there already is the same and sound.
fn move_entry(store: &Store, prepared: &Prepared, touched: &mut Vec<PathBuf>) -> Result<bool> {
    let (disk, paths) = (store.disk(), store.paths());
    if !prepared.force && is_present(store, &prepared.integrity, &prepared.dir, &prepared.files) {
        return Ok(false);
    }
    let target = paths.cache.join(&prepared.dir);
    let folder = atomic::folder_of(&target).to_owned();
    touched.extend(disk.create_dirs(&folder).at("mkdir", &folder)?);
    touched.extend(disk.create_dirs(&paths.index()).at("mkdir", &paths.index())?);
    put_in_place(disk, prepared.staging.path(), &prepared.folder, &target).at("rename", &target)?;
    let record = paths.index_record(&prepared.integrity);
    disk.rename(&prepared.index_record, &record).at("rename", &record)?;
    touched.push(folder);
    touched.push(paths.index());
    Ok(true)
}

/// Tells whether the cache holds exactly these files under this integrity, undamaged as far as a glance can tell.
pub(super) fn is_present(store: &Store, integrity: &str, dir: &str, files: &[Row]) -> bool {
    let (disk, paths) = (store.disk(), store.paths());
    if !markers::is_local(disk, paths, integrity) {
        return false;
    }
    match index::read(disk, paths, integrity) {
        Ok(Found::Record(dated)) => {
            dated.record.dir == dir && dated.record.files == files && index::is_sound(paths, &dated)
        }
        _ => false,
    }
}

/// Renames the folder `from` to `to`. Whatever stands there is exchanged for it, never merged into, and ends up in `staging`.
///
/// # Errors
/// Any I/O failure. Where the file system cannot exchange two names there is a moment without `to`; a kill in that moment
/// leaves it missing, never half there.
pub(super) fn put_in_place(disk: &Disk, staging: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let Some(found) = crate::durable::optional(disk.symlink_metadata(to))? else { return rename(disk, from, to) };
    if !found.is_dir() {
        // An exchange would do, too, but not on every system for unequal kinds.
        disk.rename(to, &staging.join(format!("old-{}", ids::uuid())))?;
        return rename(disk, from, to);
    }
    match exchange(disk, from, to) {
        Ok(()) => Ok(()),
        Err(error) if is_unsupported(&error) => {
            let aside = staging.join(format!("old-{}", ids::uuid()));
            rename(disk, to, &aside)?;
            if let Err(error) = rename(disk, from, to) {
                rename(disk, &aside, to)?;
                return Err(error);
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Virus scanners hold folders for moments, on Windows.
fn rename(disk: &Disk, from: &Path, to: &Path) -> io::Result<()> {
    let mut attempt = 1;
    while let Err(error) = disk.rename(from, to) {
        match atomic::retry_delay(&error, attempt) {
            Some(delay) => std::thread::sleep(delay),
            None => return Err(error),
        }
        attempt += 1;
    }
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(disk: &Disk, from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    disk.run(crate::durable::Op::Rename(from, to), || Ok(renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?))
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_disk: &Disk, _from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_are_exchanged_and_never_merged() {
        let dir = tempfile::tempdir().unwrap();
        let (staging, from, to) = (dir.path().join("s"), dir.path().join("s/new"), dir.path().join("there"));
        for round in 0..3 {
            fs::create_dir_all(&from).unwrap();
            fs::write(from.join(format!("f{round}")), "").unwrap();
            put_in_place(&Disk::real(), &staging, &from, &to).unwrap();
            let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, [format!("f{round}").as_str()]);
            if from.exists() {
                fs::remove_dir_all(&from).unwrap();
            }
        }
        fs::remove_dir_all(&to).unwrap();
        fs::write(&to, "a file").unwrap();
        fs::create_dir_all(&from).unwrap();
        put_in_place(&Disk::real(), &staging, &from, &to).unwrap();
        assert!(to.is_dir());
    }
}
