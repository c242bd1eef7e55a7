//! Who is alive: each open store holds the OS lock of a small file beside the database, named after the store.
//!
//! The operating system lets go of the lock when the process ends, however it ends, so "is that owner dead?" has an exact
//! answer: its file is gone, or can be locked. Process ids are not asked, because they are used again.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::durable::{Disk, IoContext, optional};
use crate::error::Result;
use crate::ids;

/// The mark of a live store. Dropping it tells others that the store is closed.
#[derive(Debug)]
pub struct Owner {
    name: String,
    mark: Mutex<Option<(File, PathBuf)>>,
}

impl Owner {
    /// Marks a new owner of the database at `path`; one of a private database has no file.
    ///
    /// # Errors
    /// Where the file cannot be made or locked.
    pub fn new(database: Option<&Path>) -> Result<Self> {
        let Some(database) = database else { return Ok(Self { name: ids::uuid(), mark: Mutex::new(None) }) };
        loop {
            let name = ids::uuid();
            let path = mark_of(database, &name);
            let file = OpenOptions::new().write(true).create_new(true).open(&path).at("open", &path)?;
            file.lock().at("lock", &path)?;
            // Somebody who swept between the two lines above took the new file for a dead owner's.
            if path.try_exists().at("stat", &path)? {
                return Ok(Self { name, mark: Mutex::new(Some((file, path))) });
            }
        }
    }

    /// The owner's name, as it stands in the database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells others that the store is closed. Idempotent.
    pub fn end(&self) {
        if let Some((_, path)) = self.mark.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Removed while still locked: nobody can take the name over in between. A file that stays is harmless.
            let _ = Disk::real().remove_file(&path);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells whether the owner called `name` is gone, and cleans up after it.
///
/// # Errors
/// Where its file can be neither opened nor missed.
pub fn is_dead(database: &Path, name: &str) -> Result<bool> {
    // The name comes from the database: it must not lead elsewhere.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(true);
    }
    let path = mark_of(database, name);
    let Some(file) = optional(OpenOptions::new().write(true).open(&path)).at("open", &path)? else {
        return Ok(true);
    };
    match file.try_lock() {
        Ok(()) => {
            let _ = Disk::real().remove_file(&path);
            Ok(true)
        }
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).at("lock", &path),
    }
}

/// Removes the marks of dead owners. What they left in the database stays: an owner without a mark is dead.
pub fn sweep(database: &Path, me: &Owner) {
    let (Some(folder), Some(name)) = (database.parent(), database.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let prefix = format!("{name}-owner-");
    for entry in Disk::real().list(folder).unwrap_or_default() {
        if let Some(owner) = entry.to_str().and_then(|entry| entry.strip_prefix(&prefix))
            && owner != me.name
        {
            // What cannot be looked at stays; it does no harm.
            let _ = is_dead(database, owner);
        }
    }
}

fn mark_of(database: &Path, name: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-owner-");
    path.push(name);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_alive_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("e.db");
        let owner = Owner::new(Some(&database)).unwrap();
        let name = owner.name().to_owned();
        assert!(!is_dead(&database, &name).unwrap());
        drop(owner);
        assert!(is_dead(&database, &name).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mark_without_a_lock_is_dead_and_swept() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("e.db");
        let me = Owner::new(Some(&database)).unwrap();
        File::create(mark_of(&database, "gone")).unwrap();
        sweep(&database, &me);
        assert!(!mark_of(&database, "gone").exists());
        assert!(mark_of(&database, me.name()).exists());
        assert!(is_dead(&database, "../../etc/passwd").unwrap());
    }
}
