//! Pins: while somebody holds one, no sweep takes the tree away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::paths::Paths;
use crate::durable::{Disk, IoContext};
use crate::error::Result;

/// A shared kernel lock on `.hf/pins/<hash>`. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Pin {
    _file: File,
}

/// Pins a tree. The caller must look afterwards whether the tree is still there: a sweep may have been faster.
///
/// # Errors
/// Any I/O failure.
pub fn pin(disk: &Disk, paths: &Paths, hash: &str) -> Result<Pin> {
    let folder = paths.pins();
    disk.create_dirs(&folder).at("mkdir", &folder)?;
    let path = folder.join(hash);
    loop {
        let file = open(&path, true).at("open", &path)?;
        // A sweep holds the exclusive lock for no longer than a rename.
        file.lock_shared().at("lock", &path)?;
        // It removes the file with the tree; a lock on a file without name would protect nothing.
        if is_named(&file, &path) {
            return Ok(Pin { _file: file });
        }
    }
}

/// The exclusive right to take a tree away: nobody has pinned it, nobody can.
#[derive(Debug)]
pub(super) struct Unpinned {
    file: Option<File>,
}

impl Unpinned {
    /// Returns `None` if the tree is pinned.
    pub(super) fn take(paths: &Paths, hash: &str) -> io::Result<Option<Self>> {
        let folder = paths.pins();
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
        }
        let path = folder.join(hash);
        let file = open(&path, true)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Removes the file of the pins, because the tree is gone, then gives the right back.
    pub(super) fn finish(mut self, disk: &Disk, paths: &Paths, hash: &str) {
        // Windows cannot remove an open file; there it stays and is used again.
        if cfg!(unix) {
            let _ = disk.remove_file(&paths.pins().join(hash));
        }
        drop(self.file.take());
    }
}

/// Tells whether a tree is pinned by anybody.
#[cfg(test)]
pub(super) fn is_pinned(paths: &Paths, hash: &str) -> bool {
    match open(&paths.pins().join(hash), false) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)
}

fn is_named(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (file.metadata(), fs::symlink_metadata(path)) {
            (Ok(own), Ok(named)) => (own.dev(), own.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_tree_cannot_be_taken() {
        let root = tempfile::tempdir().unwrap();
        let (paths, disk) = (Paths::new(root.path()), Disk::real());
        assert!(!is_pinned(&paths, "h"));
        let (one, two) = (pin(&disk, &paths, "h").unwrap(), pin(&disk, &paths, "h").unwrap());
        assert!(Unpinned::take(&paths, "h").unwrap().is_none() && is_pinned(&paths, "h"));
        assert!(Unpinned::take(&paths, "other").unwrap().is_some());
        drop(one);
        assert!(Unpinned::take(&paths, "h").unwrap().is_none());
        drop(two);
        Unpinned::take(&paths, "h").unwrap().unwrap().finish(&disk, &paths, "h");
        assert!(!paths.pins().join("h").exists() || cfg!(windows));
    }

    #[test]
    fn a_pin_taken_while_the_tree_goes_is_on_a_file_that_counts() {
        let root = tempfile::tempdir().unwrap();
        let (paths, disk) = (Paths::new(root.path()), Disk::real());
        let taken = Unpinned::take(&paths, "h").unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pin(&disk, &paths, "h").unwrap());
            std::thread::sleep(std::time::Duration::from_millis(30));
            taken.finish(&disk, &paths, "h");
            let pin = waiting.join().unwrap();
            assert!(is_pinned(&paths, "h"));
            drop(pin);
        });
    }
}
