//! Where the file goes.

use std::path::Path;

use crate::durable::{Disk, IoContext, optional};
use crate::error::Result;

/// Makes a file that only its owner may read, in a folder that exists; SQLite gives its other files the same rights.
pub(super) fn make(path: &Path) -> Result<()> {
    let disk = Disk::real();
    let path = std::path::absolute(path).at("resolve", path)?;
    if optional(disk.symlink_metadata(&path)).at("stat", &path)?.is_some() {
        return Ok(());
    }
    match disk.create(&path, Some(0o600)) {
        Ok(_) => Ok(()),
        // Somebody else opens it at the same time.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).at("open", &path),
    }
}
