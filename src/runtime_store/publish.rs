//! Giving staged bytes their public names.

use std::path::Path;

use crate::clock;
use crate::durable::atomic::{folder_of, inherit, resolve, retry_delay};
use crate::durable::{Disk, IoContext, OutFile, optional};
use crate::error::Result;

/// Gives `staged` (synced already) the name `target`: a link beside it, renamed over it. Where links do not work, a synced
/// copy. `temp` is the name of the link, known to recovery.
///
/// # Errors
/// Any I/O failure; `target` is then as before.
pub fn link_over(disk: &Disk, staged: &Path, target: &Path, temp: &str, sync: bool) -> Result<()> {
    let target = resolve(disk, target).at("readlink", target)?;
    let temp = folder_of(&target).join(temp);
    match disk.hard_link(staged, &temp) {
        Ok(()) => {}
        Err(error) if cannot_link(&error) => copy(disk, staged, &temp, sync)?,
        Err(error) => return Err(error).at("link", &temp),
    }
    rename_over(disk, &temp, &target)
}

/// Writes `bytes` under a fresh inode over `target`, keeping `mtime_ms` and the mode of `like`.
///
/// # Errors
/// Any I/O failure; `target` is then as before.
pub fn write_over(
    disk: &Disk,
    bytes: &[u8],
    target: &Path,
    temp: &str,
    like: Option<&Path>,
    mtime_ms: Option<f64>,
    sync: bool,
) -> Result<()> {
    let target = resolve(disk, target).at("readlink", target)?;
    let folder = folder_of(&target);
    disk.create_dirs(folder).at("mkdir", folder)?;
    let temp = folder.join(temp);
    optional(disk.remove_file(&temp)).at("unlink", &temp)?;
    let out = disk.create_with(&temp, bytes, None).at("write", &temp)?;
    if let Some(metadata) = like.and_then(|like| disk.metadata(like).ok()) {
        inherit(&out, &metadata);
    }
    finish(disk, out, mtime_ms, sync)?;
    rename_over(disk, &temp, &target)
}

fn copy(disk: &Disk, staged: &Path, temp: &Path, sync: bool) -> Result<()> {
    let (bytes, metadata) = disk.read_with_metadata(staged).at("read", staged)?;
    let out = disk.create_with(temp, &bytes, None).at("write", temp)?;
    inherit(&out, &metadata);
    finish(disk, out, metadata.modified().ok().map(clock::millis_since_epoch), sync)
}

fn finish(disk: &Disk, out: OutFile, mtime_ms: Option<f64>, sync: bool) -> Result<()> {
    if let Some(ms) = mtime_ms {
        // Recorded, never compared: a file system that refuses costs nothing.
        let _ = out.file.set_modified(clock::from_millis(ms));
    }
    if sync {
        disk.sync_file(&out).at("fsync", &out.path).map_err(crate::error::HfError::sync_failed)?;
    }
    Ok(())
}

fn cannot_link(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::Unsupported | ErrorKind::TooManyLinks)
        || (error.kind() == ErrorKind::PermissionDenied && error.raw_os_error() == Some(1))
}

fn rename_over(disk: &Disk, temp: &Path, target: &Path) -> Result<()> {
    let mut attempt = 1;
    loop {
        match disk.rename(temp, target) {
            Ok(()) => return Ok(()),
            Err(error) => match retry_delay(&error, attempt) {
                Some(delay) => std::thread::sleep(delay),
                None => {
                    let _ = disk.remove_file(temp);
                    return Err(error).at("rename", target);
                }
            },
        }
        attempt += 1;
    }
}
