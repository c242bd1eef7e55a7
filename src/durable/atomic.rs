//! Files that are replaced whole or not at all.
//!
//! The sequence is: temporary file in the target's folder, all bytes, file sync, rename, folder sync. A reader sees the old
//! bytes or the new ones; after a power cut the disk holds the old or the new ones. See `docs/durability.md`.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Disk, IoContext, OutFile, optional, pool, sync};
use crate::error::Result;
use crate::ids;

/// How hard a write insists on reaching the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// File and folder are synced; a failed sync is an error.
    Full,
    /// Nothing is synced: survives the process, not a power cut.
    Process,
}

/// Returns the file that a write to `path` must replace: `path` itself, or what a symlink there leads to.
///
/// # Errors
/// Any I/O failure while following links.
pub fn resolve(disk: &Disk, path: &Path) -> io::Result<PathBuf> {
    let mut current = path.to_owned();
    // As many links as Linux follows.
    for _ in 0..40 {
        match optional(disk.symlink_metadata(&current))? {
            Some(metadata) if metadata.file_type().is_symlink() => {
                let link = std::fs::read_link(&current)?;
                current = match current.parent() {
                    Some(parent) => parent.join(link),
                    None => link,
                };
            }
            _ => return Ok(current),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Returns the folder of `path`.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Gives a new file the permission bits, and where the system allows it the owner, of the file that it will replace.
pub fn inherit(out: &OutFile, replaced: &Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        if let Ok(own) = out.file.metadata() {
            if own.uid() != replaced.uid() || own.gid() != replaced.gid() {
                // Only root may give files away; for everybody else the new owner is the writer, as before.
                let _ = fchown(&out.file, Some(replaced.uid()), Some(replaced.gid()));
            }
            if own.mode() & 0o7777 != replaced.mode() & 0o7777 {
                let _ = out.file.set_permissions(std::fs::Permissions::from_mode(replaced.mode() & 0o7777));
            }
        }
    }
    #[cfg(not(unix))]
    let _ = (out, replaced);
}

/// A complete temporary file beside its target. Dropping it unpublished removes it.
#[derive(Debug)]
pub struct Temp {
    disk: Disk,
    out: Option<OutFile>,
    path: PathBuf,
    target: PathBuf,
}

impl Temp {
    /// Writes `bytes` to `.tmp.<uuid>` in the folder of `target`, which must exist. Without `mode` the file takes the mode
    /// and owner of the one that it will replace.
    ///
    /// # Errors
    /// Any I/O failure; no temporary file is left.
    pub fn create(disk: &Disk, target: &Path, bytes: &[u8], mode: Option<u32>) -> Result<Self> {
        let target = resolve(disk, target).at("readlink", target)?;
        let path = folder_of(&target).join(format!(".tmp.{}", ids::uuid()));
        let out = disk.create_with(&path, bytes, mode).at("write", &path)?;
        let temp = Self { disk: disk.clone(), out: Some(out), path, target };
        if mode.is_none()
            && let (Some(out), Ok(Some(replaced))) = (&temp.out, optional(disk.metadata(&temp.target)))
        {
            inherit(out, &replaced);
        }
        Ok(temp)
    }

    /// Forces the bytes to the disk.
    ///
    /// # Errors
    /// Any I/O failure, marked as a failed sync.
    pub fn sync(&self) -> Result<()> {
        match &self.out {
            Some(out) => self.disk.sync_file(out).at("fsync", &self.path).map_err(crate::error::HfError::sync_failed),
            None => Ok(()),
        }
    }

    /// Returns the final name.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Tries once to rename the file to its target.
    ///
    /// # Errors
    /// The rename's failure; the temporary file stays, to try again or to be dropped.
    pub fn publish_once(&mut self) -> io::Result<()> {
        let replaced = self.disk.keep_inode(&self.target);
        self.disk.rename(&self.path, &self.target)?;
        self.out = None;
        pool::close_later(replaced.into_iter().collect());
        Ok(())
    }

    /// Renames the file to its target, with the usual retries.
    ///
    /// # Errors
    /// The last failure; the temporary file is removed when `self` is dropped.
    pub fn publish(&mut self) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.publish_once() {
                Ok(()) => return Ok(()),
                Err(error) => match retry_delay(&error, attempt) {
                    Some(delay) => std::thread::sleep(delay),
                    None => return Err(error).at("rename", &self.target),
                },
            }
            attempt += 1;
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = self.disk.remove_file(&self.path);
        }
    }
}

/// Returns how long to wait after the `attempt`-th failed rename (from 1), or `None` when another try is pointless: on
/// Windows virus scanners hold files for moments (20 tries), elsewhere only `EBUSY` passes by itself (5 tries).
#[must_use]
pub fn retry_delay(error: &io::Error, attempt: u64) -> Option<Duration> {
    let (passes, tries) = if cfg!(windows) {
        (matches!(error.raw_os_error(), Some(5 | 32 | 33 | 1224)), 20)
    } else {
        (error.kind() == io::ErrorKind::ResourceBusy, 5)
    };
    let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) % 26;
    (passes && attempt < tries).then(|| Duration::from_millis((40 * attempt).min(250) + jitter))
}

/// Replaces `target` by `bytes`: durable when it returns, unless `durability` says otherwise. Missing folders are made, and
/// their names synced too.
///
/// # Errors
/// Any I/O failure. Before the rename nothing has changed; a failed folder sync (marked as such) comes after it.
pub fn replace(disk: &Disk, target: &Path, bytes: &[u8], mode: Option<u32>, durability: Durability) -> Result<()> {
    let made = disk.create_dirs(folder_of(target)).at("mkdir", folder_of(target))?;
    let mut temp = Temp::create(disk, target, bytes, mode)?;
    if durability == Durability::Full {
        temp.sync()?;
    }
    temp.publish()?;
    if durability == Durability::Full {
        let folder = folder_of(temp.target()).to_owned();
        sync::dirs(disk, made.into_iter().chain([folder]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn keeps_mode_and_symlink() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        let disk = Disk::real();
        replace(&disk, &real, b"1", Some(0o600), Durability::Full).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        replace(&disk, &link, b"2", None, Durability::Full).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
