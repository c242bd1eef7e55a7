//! One writer per store root: a queue inside of this process, a kernel lock between processes.
//!
//! The kernel releases its lock when the holder dies, so nothing here can be left behind. Readers take no lock.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::leftovers::Staging;
use super::paths::Paths;
use super::publish::Waiting;
use super::{Context, leftovers};
use crate::durable::{Disk, IoContext, sync};
use crate::error::{Code, HfError, Result};

/// What all handles of one root in this process share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    turns: Mutex<Turns>,
    given_back: Condvar,
    /// Set once the file system has refused to clone a file: it is not asked again.
    pub(super) no_reflink: AtomicBool,
    /// Whether two names that differ only in case are one file here.
    pub(super) folds_case: OnceLock<bool>,
    /// Entries that are complete in staging and wait for whoever holds the lock next.
    pub(super) waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug, Default)]
struct Turns {
    held: bool,
    queue: VecDeque<u64>,
    next: u64,
}

static ROOTS: Mutex<Option<HashMap<PathBuf, Weak<Shared>>>> = Mutex::new(None);

pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these mutexes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what all handles of `paths.root` share, making the private folder first: only then do all spellings of the root
/// meet under one canonical name.
pub(super) fn shared(disk: &Disk, paths: &Paths) -> Result<Arc<Shared>> {
    let private = paths.private();
    let made = disk.create_dirs(&private).at("mkdir", &private)?;
    sync::dirs(disk, made)?;
    let key = std::fs::canonicalize(&paths.root).at("realpath", &paths.root)?;
    let mut roots = guard(&ROOTS);
    let roots = roots.get_or_insert_default();
    if let Some(shared) = roots.get(&key).and_then(Weak::upgrade) {
        return Ok(shared);
    }
    roots.retain(|_, shared| shared.strong_count() > 0);
    let shared = Arc::<Shared>::default();
    roots.insert(key, Arc::downgrade(&shared));
    Ok(shared)
}

/// The turn inside of this process. Dropping it lets the next waiter go.
#[derive(Debug)]
pub(super) struct Turn(Arc<Shared>);

impl Drop for Turn {
    fn drop(&mut self) {
        guard(&self.0.turns).held = false;
        self.0.given_back.notify_all();
    }
}

impl Turn {
    /// Waits for the turn, first come first served.
    fn take(shared: &Arc<Shared>, paths: &Paths, deadline: Instant, context: &Context<'_>) -> Result<Self> {
        let mut turns = guard(&shared.turns);
        let ticket = turns.next;
        turns.next += 1;
        turns.queue.push_back(ticket);
        loop {
            if !turns.held && turns.queue.front() == Some(&ticket) {
                turns.queue.pop_front();
                turns.held = true;
                return Ok(Self(Arc::clone(shared)));
            }
            // Short, because an abort must be noticed soon.
            let (next, _) = shared
                .given_back
                .wait_timeout(turns, Duration::from_millis(20))
                .unwrap_or_else(PoisonError::into_inner);
            turns = next;
            let late = if Instant::now() >= deadline { Err(timeout(paths)) } else { Ok(()) };
            if let Err(error) = late.and_then(|()| (context.cancel)()) {
                turns.queue.retain(|waiting| *waiting != ticket);
                drop(turns);
                shared.given_back.notify_all();
                return Err(error);
            }
        }
    }
}

/// The exclusive right to change a root. Dropping it gives the right back, then removes what left-overs were found.
#[derive(Debug)]
pub(super) struct RootLock {
    disk: Disk,
    // Fields are dropped in this order: the kernel's lock, then the turn.
    file: Option<File>,
    turn: Option<Turn>,
    rubbish: Vec<PathBuf>,
    staging: Vec<Staging>,
}

impl RootLock {
    /// Waits for the root's lock. `unneeded` is asked once the turn in this process has come; if it says so, what was to be
    /// done has been done by another caller meanwhile and `None` is returned.
    ///
    /// # Errors
    /// [`Code::PkgLockTimeout`] after `timeout`; the caller's abort; any I/O failure, also that of a file system that has no
    /// locks.
    pub(super) fn take(
        disk: &Disk,
        paths: &Paths,
        shared: &Arc<Shared>,
        wait: Duration,
        context: &Context<'_>,
        unneeded: impl FnOnce() -> bool,
    ) -> Result<Option<Self>> {
        let deadline = Instant::now() + wait;
        let turn = Turn::take(shared, paths, deadline, context)?;
        if unneeded() {
            return Ok(None);
        }
        let path = paths.lock();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
        let mut tries = 0_u32;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(unlockable(&path, &error)),
            }
            (context.cancel)()?;
            let now = Instant::now();
            if now >= deadline {
                return Err(timeout(paths));
            }
            tries += 1;
            let pause = Duration::from_micros(if tries < 100 { 300 } else { 10_000 });
            std::thread::sleep(pause.min(deadline - now));
        }
        let rubbish = leftovers::find(disk, paths);
        Ok(Some(Self { disk: disk.clone(), file: Some(file), turn: Some(turn), rubbish, staging: Vec::new() }))
    }

    /// Removes `path` once the lock is given back: deleting a tree takes long, and nobody should wait for it.
    pub(super) fn remove_later(&mut self, path: PathBuf) {
        self.rubbish.push(path);
    }

    /// As [`RootLock::remove_later`], for a folder in staging.
    pub(super) fn remove_staging_later(&mut self, staging: Staging) {
        self.staging.push(staging);
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        drop(self.file.take());
        drop(self.turn.take());
        self.staging.clear();
        for path in &self.rubbish {
            // What cannot be removed now is found again as a left-over.
            let _ = leftovers::remove(&self.disk, path);
        }
    }
}

fn timeout(paths: &Paths) -> HfError {
    let root = paths.root.display();
    HfError::new(Code::PkgLockTimeout, format!("Store {root} is locked by another process"))
        .with_field("storeRoot", paths.root.to_string_lossy())
}

fn unlockable(path: &Path, error: &std::io::Error) -> HfError {
    let io = HfError::io("lock", path, error);
    HfError::new(
        io.code(),
        format!("{}; a store root must be on a file system that has locks, put it on a local disk", io.message()),
    )
    .with_field("path", path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn take(paths: &Paths, wait: Duration) -> Result<RootLock> {
        let disk = Disk::real();
        let shared = shared(&disk, paths)?;
        Ok(RootLock::take(&disk, paths, &shared, wait, &Context::quiet(), || false)?.unwrap())
    }

    #[test]
    fn one_holder_at_a_time_and_a_timeout_that_names_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(&dir.path().join("new/root"));
        let held = take(&paths, Duration::from_secs(5)).unwrap();
        let error = take(&paths, Duration::from_millis(60)).unwrap_err();
        assert_eq!(error.code(), Code::PkgLockTimeout);
        assert_eq!(error.message(), format!("Store {} is locked by another process", paths.root.display()));
        drop(held);
        drop(take(&paths, Duration::from_millis(60)).unwrap());
    }

    #[test]
    fn a_lock_of_another_handle_of_the_file_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        drop(take(&paths, Duration::from_secs(1)).unwrap());
        let other = File::options().write(true).open(paths.lock()).unwrap();
        other.lock().unwrap();
        assert_eq!(take(&paths, Duration::from_millis(40)).unwrap_err().code(), Code::PkgLockTimeout);
        drop(other);
        drop(take(&paths, Duration::from_millis(40)).unwrap());
    }

    #[test]
    fn all_spellings_of_a_root_meet_and_every_waiter_has_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let spellings = [dir.path().to_owned(), dir.path().join("."), dir.path().join(".hf/..")];
        drop(take(&Paths::new(dir.path()), Duration::from_secs(1)).unwrap());
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for index in 0..12 {
                let (paths, inside) = (Paths::new(&spellings[index % 3]), &inside);
                scope.spawn(move || {
                    let held = take(&paths, Duration::from_secs(20)).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::sleep(Duration::from_millis(1));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(held);
                });
            }
        });
    }

    #[test]
    fn an_abort_ends_the_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let held = take(&paths, Duration::from_secs(1)).unwrap();
        let cancel = || Err(HfError::new(Code::Busy, "stop"));
        let context = Context { cancel: &cancel, ..Context::quiet() };
        let shared = shared(&Disk::real(), &paths).unwrap();
        let result = RootLock::take(&Disk::real(), &paths, &shared, Duration::from_secs(60), &context, || false);
        assert_eq!(result.unwrap_err().message(), "stop");
        drop(held);
        drop(take(&paths, Duration::from_millis(100)).unwrap());
    }
}
