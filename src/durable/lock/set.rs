//! The lock set of a batch: the sidecar's lock first, then one lock per file, all by the same inode.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::file::Inode;
use super::registry::{Continuation, FileLock, Options, Want, lock_with};
use crate::durable::Disk;
use crate::durable::atomic::folder_of;
use crate::error::Result;

/// What a batch needs locked.
#[derive(Debug, Clone)]
pub struct SetRequest {
    /// The lock of the whole folder: `.holdfast/lock`. Its folder must exist.
    pub sidecar_lock: PathBuf,
    /// The files, in the order in which their locks are taken.
    pub targets: Vec<PathBuf>,
    /// Canonical keys of locks that the caller holds already.
    pub held: Vec<PathBuf>,
    /// Waiting and breaking. The time limit is for the whole set.
    pub options: Options,
}

/// A held lock set. Dropping it gives everything back.
#[derive(Debug)]
pub struct LockSet {
    /// Declared before the turn: the file locks go first.
    locks: Vec<FileLock>,
    turn: FileLock,
}

impl LockSet {
    /// Tells whether every lock file is still ours.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.turn.is_owned() && self.locks.iter().all(FileLock::is_owned)
    }
}

struct Taking {
    disk: Disk,
    asked: Instant,
    options: Options,
    held: Vec<PathBuf>,
    inode: Option<Arc<Inode>>,
    rest: std::vec::IntoIter<PathBuf>,
    locks: Vec<FileLock>,
    turn: FileLock,
    done: Continuation<LockSet>,
}

/// Takes all locks of `request` and calls `done` on a pool thread. Call it on a pool thread.
pub fn lock_set(disk: &Disk, request: SetRequest, done: Continuation<LockSet>) {
    let asked = Instant::now();
    let SetRequest { sidecar_lock, targets, held, options } = request;
    let mut folders: Vec<PathBuf> = targets.iter().map(|target| folder_of(target).to_owned()).collect();
    folders.sort();
    folders.dedup();
    let (own_disk, own_options) = (disk.clone(), options.clone());
    let started = move |turn: Result<FileLock>| match turn {
        Ok(turn) => Taking { disk: own_disk, asked, options: own_options, held, inode: turn.inode(), rest: targets.into_iter(), locks: Vec::new(), turn, done }.next(),
        Err(error) => done(Err(error)),
    };
    lock_with(disk, &sidecar_lock, options, Want::Sidecar(folders), false, Box::new(started));
}

impl Taking {
    fn next(mut self) {
        let Some(target) = self.rest.next() else {
            let set = LockSet { locks: self.locks, turn: self.turn };
            return (self.done)(Ok(set));
        };
        if self.is_held(&target) {
            return self.next();
        }
        let disk = self.disk.clone();
        let mut options = self.options.clone();
        if !options.acquire_timeout.is_zero() {
            // At least one try for each, also at the very end of the time.
            options.acquire_timeout = options.acquire_timeout.saturating_sub(self.asked.elapsed()).max(std::time::Duration::from_millis(1));
        }
        let want = Want::File(self.inode.clone());
        lock_with(
            &disk,
            &target,
            options,
            want,
            false,
            Box::new(move |lock| match lock {
                Ok(lock) => {
                    self.locks.push(lock);
                    self.next();
                }
                Err(error) => {
                    let Taking { locks, turn, done, .. } = self;
                    drop(locks);
                    drop(turn);
                    done(Err(error));
                }
            }),
        );
    }

    fn is_held(&self, target: &Path) -> bool {
        let folder = std::fs::canonicalize(folder_of(target));
        match (folder, target.file_name()) {
            (Ok(folder), Some(name)) => {
                let key = folder.join(name);
                self.held.contains(&key) || self.locks.iter().any(|lock| lock.key() == key)
            }
            _ => false,
        }
    }
}
