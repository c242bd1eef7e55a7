//! Sync barriers: many files and folders, one wait.

use std::path::{Path, PathBuf};

use super::{Disk, IoContext, OutFile, pool};
use crate::error::{Code, HfError, Result};

/// Something whose bytes or names must reach the disk.
#[derive(Debug)]
pub enum Target {
    /// The bytes of a file, through the handle that wrote them.
    File(OutFile),
    /// The names in a folder.
    Dir(PathBuf),
}

/// Syncs all `targets` side by side and returns when every one is on the disk: one barrier, whatever their number.
///
/// # Errors
/// The first failure, marked as a failed sync. Which of the others reached the disk is unknown.
pub fn barrier(disk: &Disk, targets: Vec<Target>) -> Result<()> {
    let jobs = targets
        .into_iter()
        .map(|target| {
            let disk = disk.clone();
            Box::new(move || sync_one(&disk, &target)) as Box<dyn FnOnce() -> Result<()> + Send>
        })
        .collect();
    for result in pool::parallel(pool::THREADS_MAX, jobs) {
        result.unwrap_or_else(|| Err(HfError::new(Code::Panic, "a sync panicked; please report this")))?;
    }
    Ok(())
}

fn sync_one(disk: &Disk, target: &Target) -> Result<()> {
    let (result, path): (_, &Path) = match target {
        Target::File(out) => (disk.sync_file(out), &out.path),
        Target::Dir(path) => (disk.sync_dir(path), path),
    };
    result.at("fsync", path).map_err(HfError::sync_failed)
}

/// Syncs each folder once.
///
/// # Errors
/// As [`barrier`].
pub fn dirs(disk: &Disk, paths: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    let mut paths: Vec<PathBuf> = paths.into_iter().collect();
    paths.sort();
    paths.dedup();
    barrier(disk, paths.into_iter().map(Target::Dir).collect())
}
