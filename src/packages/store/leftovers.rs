//! What calls that were killed have left: half-made entries and trees, things on their way out, links never renamed.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::paths::Paths;
use crate::clock;
use crate::durable::{Disk, optional};
use crate::ids;

/// How old a left-over must be: long enough that no sane call is still at it, whatever the clocks of two hosts say.
const AGE_MS: f64 = 3_600_000.0;

/// Finds left-overs that may be removed: older than an hour, and without a living owner. Failures are not worth a word: the
/// next locked call looks again.
pub(super) fn find(disk: &Disk, paths: &Paths) -> Vec<PathBuf> {
    let now = clock::epoch_ms() as f64;
    let old = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| now - changed_ms(&metadata) > AGE_MS);
    let mut found: Vec<PathBuf> = children(disk, &paths.staging()).filter(old).filter(|path| is_orphan(path)).collect();
    found.extend(children(disk, &paths.trash()).filter(old));
    found.extend(children(disk, &paths.root).filter(|path| is_temporary_link(path)).filter(old));
    found
}

fn children(disk: &Disk, folder: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = folder.to_owned();
    disk.list(&folder).unwrap_or_default().into_iter().map(move |name| folder.join(name))
}

fn is_temporary_link(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".current-"));
    named && fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir() || cfg!(windows))
}

/// When something was last written. Trash keeps the time that it had before; it needs no grace, since nothing in it ever
/// comes back once the lock that put it there is free.
fn changed_ms(metadata: &Metadata) -> f64 {
    metadata.modified().map_or(f64::MAX, clock::millis_since_epoch)
}

/// A folder in staging. Its owner holds a kernel lock on it, which ends with the process; dropping it removes the folder.
#[derive(Debug)]
pub(super) struct Staging {
    disk: Disk,
    path: PathBuf,
    owner: Option<File>,
}

impl Staging {
    /// Makes a folder `.hf/staging/<uuid>`.
    ///
    /// # Errors
    /// Any I/O failure.
    pub(super) fn create(disk: &Disk, paths: &Paths) -> io::Result<Self> {
        let folder = paths.staging();
        disk.create_dirs(&folder)?;
        let path = folder.join(ids::uuid());
        disk.create_dir(&path)?;
        let owner = owner_file(&path, true).and_then(|file| match file.try_lock() {
            Ok(()) => Ok(file),
            Err(error) => Err(error.into()),
        });
        // Without the lock the folder is only as safe as its age makes it, which is an hour.
        Ok(Self { disk: disk.clone(), path, owner: owner.ok() })
    }

    /// Returns the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        drop(self.owner.take());
        // What cannot be removed now is a left-over.
        let _ = remove(&self.disk, &self.path);
    }
}

/// The file whose lock says that a staging folder has an owner: the folder itself where folders can be locked.
fn owner_file(staging: &Path, create: bool) -> io::Result<File> {
    if cfg!(windows) {
        File::options().read(true).write(true).create(create).truncate(false).open(staging.join(".owner"))
    } else {
        File::open(staging)
    }
}

fn is_orphan(staging: &Path) -> bool {
    match owner_file(staging, false) {
        Ok(file) => file.try_lock().is_ok(),
        // Something else than a folder, or one that was killed before it had an owner.
        Err(_) => true,
    }
}

/// Removes `path` and everything below it; that it is gone already is fine.
///
/// # Errors
/// Any other I/O failure.
pub(super) fn remove(disk: &Disk, path: &Path) -> io::Result<()> {
    match optional(disk.symlink_metadata(path))? {
        None => Ok(()),
        Some(metadata) if metadata.is_dir() => {
            optional(disk.run(crate::durable::Op::RemoveDir(path), || fs::remove_dir_all(path))).map(drop)
        }
        Some(_) => optional(disk.remove_file(path)).map(drop),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn age(path: &Path) {
        let then = clock::from_millis(clock::epoch_ms() as f64 - AGE_MS - 1000.0);
        File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn only_a_staging_folder_without_owner_is_an_orphan() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let disk = Disk::real();
        let staging = Staging::create(&disk, &paths).unwrap();
        assert!(!is_orphan(staging.path()));
        let dead = paths.staging().join("dead");
        fs::create_dir_all(dead.join("x/y")).unwrap();
        assert!(is_orphan(&dead));
        let live = staging.path().to_owned();
        assert!(find(&disk, &paths).is_empty(), "young ones are never touched");
        for path in [&dead, &live] {
            age(path);
        }
        assert_eq!(find(&disk, &paths), std::slice::from_ref(&dead), "nor are those of the living");
        drop(staging);
        assert!(!live.exists());
        remove(&disk, &dead).unwrap();
        remove(&disk, &dead).unwrap();
        assert!(!dead.exists());
    }

    #[test]
    fn temporary_links_are_told_from_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let link = |name: &str| {
            let path = dir.path().join(name);
            std::os::unix::fs::symlink("trees/x", &path).unwrap();
            path
        };
        assert!(is_temporary_link(&link(".current-1")));
        assert!(!is_temporary_link(&link("current")));
        let folder = dir.path().join(".current-folder");
        fs::create_dir(&folder).unwrap();
        assert!(!is_temporary_link(&folder));
    }
}
