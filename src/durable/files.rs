//! The atomic-file helpers that are public by themselves.

use std::path::Path;

use super::atomic::{Temp, folder_of, retry_delay};
use super::{Disk, IoContext};
use crate::error::{HfError, Result};
use crate::ids;

/// Writes a file atomically and syncs its bytes; a file system that cannot sync is tolerated, as the asynchronous form does.
///
/// # Errors
/// Any I/O failure; the target is then as before and no temporary file is left.
pub fn write_sync(disk: &Disk, target: &Path, bytes: &[u8], mode: Option<u32>) -> Result<()> {
    disk.create_dirs(folder_of(target)).at("mkdir", folder_of(target))?;
    let mut temp = Temp::create(disk, target, bytes, mode)?;
    let _ = temp.sync();
    temp.publish()
}

/// Creates a file that must not exist, durably, and returns its device and inode. The bytes are complete before the name
/// appears.
///
/// # Errors
/// `EEXIST`, or any other I/O failure; an existing target is untouched.
pub fn create(disk: &Disk, target: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(f64, f64)> {
    let folder = folder_of(target);
    let made = disk.create_dirs(folder).at("mkdir", folder)?;
    let temp = folder.join(format!(".review-create.{}.tmp", ids::uuid()));
    let out = disk.create_with(&temp, bytes, mode).at("open", &temp)?;
    let linked = disk
        .sync_file(&out)
        .at("fsync", &temp)
        .map_err(HfError::sync_failed)
        .and_then(|()| disk.hard_link(&temp, target).at("link", target));
    // What is left is found by its inode and removed by `cleanup_create_links`.
    let _ = disk.remove_file(&temp);
    linked?;
    super::sync::dirs(disk, made.into_iter().chain([folder.to_owned()]))?;
    let metadata = out.file.metadata().at("stat", target)?;
    Ok(identity(&metadata))
}

fn identity(metadata: &std::fs::Metadata) -> (f64, f64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev() as f64, metadata.ino() as f64)
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        (0.0, 0.0)
    }
}

/// Renames with retries. The folders are synced afterwards, outside of the retries: destination, then source.
///
/// # Errors
/// The rename's last failure, or, if `strict`, that of a sync.
pub fn rename(disk: &Disk, from: &Path, to: &Path, sync_directories: bool, strict: bool) -> Result<()> {
    let mut attempt = 1;
    while let Err(error) = disk.rename(from, to) {
        match retry_delay(&error, attempt) {
            Some(delay) => std::thread::sleep(delay),
            None => return Err(error).at("rename", from),
        }
        attempt += 1;
    }
    if sync_directories {
        for folder in [folder_of(to), folder_of(from)].iter().take(if folder_of(to) == folder_of(from) { 1 } else { 2 })
        {
            let synced = disk.sync_dir(folder).at("fsync", folder).map_err(HfError::sync_failed);
            if strict {
                synced?;
            }
        }
    }
    Ok(())
}

/// Removes a file and syncs its folder.
///
/// # Errors
/// Any I/O failure.
pub fn unlink(disk: &Disk, path: &Path) -> Result<()> {
    disk.remove_file(path).at("unlink", path)?;
    disk.sync_dir(folder_of(path)).at("fsync", folder_of(path)).map_err(HfError::sync_failed)
}

/// Removes siblings named `.review-create.<hex-and-dashes>.tmp` that are the same inode as `target`.
///
/// # Errors
/// Any I/O failure on the target or its folder.
pub fn cleanup_create_links(disk: &Disk, target: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let own = disk.symlink_metadata(target).at("lstat", target)?;
        if own.nlink() < 2 {
            return Ok(());
        }
        let folder = folder_of(target);
        for name in disk.list(folder).at("scandir", folder)? {
            let text = name.to_string_lossy();
            let middle = text.strip_prefix(".review-create.").and_then(|rest| rest.strip_suffix(".tmp"));
            if !middle
                .is_some_and(|middle| !middle.is_empty() && middle.chars().all(|c| c.is_ascii_hexdigit() || c == '-'))
            {
                continue;
            }
            let path = folder.join(&name);
            if disk
                .symlink_metadata(&path)
                .is_ok_and(|metadata| metadata.dev() == own.dev() && metadata.ino() == own.ino())
            {
                super::optional(disk.remove_file(&path)).at("unlink", &path)?;
            }
        }
    }
    #[cfg(not(unix))]
    let _ = (disk, target);
    Ok(())
}
