//! Replacing one versioned file under its lock.

use std::path::Path;

use super::error::{file_too_large, lock_lost};
use crate::durable::atomic::{Durability, Temp, folder_of};
use crate::durable::lock::FileLock;
use crate::durable::{Disk, IoContext, sync};
use crate::error::Result;

/// Replaces `path` by `bytes`, durably unless told otherwise. Right before the new file gets its name the lock is checked:
/// a lock that somebody broke protects nothing.
///
/// # Errors
/// `HF_RUNTIME_FILE_TOO_LARGE`, `HF_RUNTIME_LOCK_LOST`, or any I/O failure. A failed folder sync, marked as such, comes
/// after the file was replaced.
pub fn replace_locked(
    disk: &Disk,
    path: &Path,
    bytes: &[u8],
    lock: &FileLock,
    max: Option<u64>,
    durability: Durability,
) -> Result<()> {
    if let Some(max) = max.filter(|&max| bytes.len() as u64 > max) {
        return Err(file_too_large(path, bytes.len(), max));
    }
    let made = disk.create_dirs(folder_of(path)).at("mkdir", folder_of(path))?;
    let mut temp = Temp::create(disk, path, bytes, None)?;
    if durability == Durability::Full {
        temp.sync()?;
    }
    if !lock.is_owned() {
        return Err(lock_lost(path));
    }
    temp.publish()?;
    if durability == Durability::Full {
        let folder = folder_of(temp.target()).to_owned();
        sync::dirs(disk, made.into_iter().chain([folder]))?;
    }
    Ok(())
}
