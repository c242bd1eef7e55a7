//! The lock set of a batch: the sidecar's lock first, then one lock per file, all by the same inode.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::registry::{Continuation, FileLock, Options, Want, lock_with};
use crate::durable::atomic::folder_of;
use crate::durable::{Disk, pool, timer};
use crate::error::{Code, HfError, Result};

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

/// How long a set that is half taken waits for one file. Then it gives everything back and begins anew: the holder of that
/// file may itself be waiting for this directory, as a caller who writes a batch inside a file lock does.
const PATIENCE: Duration = Duration::from_millis(50);

struct Taking {
    disk: Disk,
    request: SetRequest,
    deadline: Instant,
    next: usize,
    locks: Vec<FileLock>,
    turn: FileLock,
    done: Continuation<LockSet>,
}

/// Takes all locks of `request` and calls `done` on a pool thread. Call it on a pool thread.
pub fn lock_set(disk: &Disk, request: SetRequest, done: Continuation<LockSet>) {
    let deadline = Instant::now() + request.options.acquire_timeout;
    begin(disk.clone(), request, deadline, done);
}

fn begin(disk: Disk, request: SetRequest, deadline: Instant, done: Continuation<LockSet>) {
    let mut folders: Vec<PathBuf> = request.targets.iter().map(|target| folder_of(target).to_owned()).collect();
    folders.sort();
    folders.dedup();
    let options = Options { acquire_timeout: time_left(&request, deadline), ..request.options.clone() };
    let sidecar_lock = request.sidecar_lock.clone();
    let own = disk.clone();
    let started = move |turn: Result<FileLock>| match turn {
        Ok(turn) => Taking { disk: own, request, deadline, next: 0, locks: Vec::new(), turn, done }.go_on(),
        Err(error) => done(Err(error)),
    };
    lock_with(&disk, &sidecar_lock, options, Want::Sidecar(folders), false, Box::new(started));
}

/// Zero means one try, and stays so; else there is at least one try for each lock, also at the very end.
fn time_left(request: &SetRequest, deadline: Instant) -> Duration {
    if request.options.acquire_timeout.is_zero() {
        return Duration::ZERO;
    }
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

impl Taking {
    fn go_on(mut self) {
        let target = loop {
            let Some(target) = self.request.targets.get(self.next).cloned() else {
                let set = LockSet { locks: self.locks, turn: self.turn };
                return (self.done)(Ok(set));
            };
            self.next += 1;
            if !self.is_held(&target) {
                break target;
            }
        };
        let disk = self.disk.clone();
        let acquire_timeout = time_left(&self.request, self.deadline).min(PATIENCE);
        let options = Options { acquire_timeout, ..self.request.options.clone() };
        let want = Want::File(self.turn.inode());
        let taken = move |lock: Result<FileLock>| match lock {
            Ok(lock) => {
                self.locks.push(lock);
                // Each lock that is free at once adds a few frames to the stack: now and then a new one begins.
                if self.next.is_multiple_of(32) {
                    pool::spawn(move || self.go_on());
                } else {
                    self.go_on();
                }
            }
            Err(error) => self.fail(error),
        };
        lock_with(&disk, &target, options, want, false, Box::new(taken));
    }

    fn fail(self, error: HfError) {
        let Self { disk, request, deadline, locks, turn, done, .. } = self;
        drop(locks);
        drop(turn);
        let again = error.code() == Code::LockTimeout
            && !request.options.acquire_timeout.is_zero()
            && Instant::now() < deadline;
        if again {
            timer::schedule(Instant::now() + Duration::from_millis(1), move || begin(disk, request, deadline, done));
        } else {
            done(Err(error));
        }
    }

    fn is_held(&self, target: &Path) -> bool {
        let folder = std::fs::canonicalize(folder_of(target));
        match (folder, target.file_name()) {
            (Ok(folder), Some(name)) => {
                let key = folder.join(name);
                self.request.held.contains(&key) || self.locks.iter().any(|lock| lock.key() == key)
            }
            _ => false,
        }
    }
}
