//! Where the file goes.

use std::path::Path;

use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::Result;

/// Makes folders that only their owner may enter, and a file that only he may read; SQLite gives its other files the same rights.
pub(super) fn make(path: &Path) -> Result<()> {
    let disk = Disk::real();
    let path = std::path::absolute(path).at("resolve", path)?;
    if optional(disk.symlink_metadata(&path)).at("stat", &path)?.is_some() {
        return Ok(());
    }
    let Some(folder) = path.parent() else { return Ok(()) };
    let mut missing: Vec<&Path> = folder.ancestors().take_while(|folder| disk.metadata(folder).is_err()).collect();
    missing.reverse();
    let made = disk.create_dirs(folder).at("mkdir", folder)?;
    #[cfg(unix)]
    for folder in missing {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).at("chmod", folder)?;
    }
    sync::dirs(&disk, made)?;
    match disk.create(&path, Some(0o600)) {
        Ok(_) => Ok(()),
        // Somebody else opens it at the same time.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).at("open", &path),
    }
}
