//! Waiting for locks: one queue per file in this process, in order of arrival, and patience towards other processes.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::file::{Attempt, Inode, OsLock, attempt, attempt_sidecar, lock_path_of};
use crate::durable::atomic::folder_of;
use crate::durable::{Disk, IoContext, pool, sync, timer};
use crate::error::{Code, HfError, Result};

/// How long to wait, and when a lock of a program without OS locks counts as abandoned.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long to wait; zero means one try.
    pub acquire_timeout: Duration,
    /// Age after which a two-line lock is broken.
    pub stale_timeout: Duration,
    /// Longest pause between two tries.
    pub retry_interval: Duration,
    /// Write pid 0, for folders shared between machines or containers.
    pub shared_volume: bool,
    /// Names the JavaScript thread that asks, so that it is not made to wait for itself.
    pub owner: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            acquire_timeout: Duration::from_millis(5000),
            stale_timeout: Duration::from_millis(30_000),
            retry_interval: Duration::from_millis(20),
            shared_volume: false,
            owner: 0,
        }
    }
}

/// Called once, on a thread of the pool.
pub type Continuation<T = FileLock> = Box<dyn FnOnce(Result<T>) + Send>;

/// So many waiters of this process follow each other before another process gets its chance.
const BURST: u32 = 16;
/// What the next waiter here grants the others then: longer than their shortest pause.
const COURTESY: Duration = Duration::from_millis(1);

struct Waiter {
    id: u64,
    claim: Claim,
    timer: Option<timer::Key>,
}

/// Everything needed to try for the file itself.
struct Claim {
    key: PathBuf,
    target: PathBuf,
    options: Options,
    asked: Instant,
    tries: u32,
    want: Want,
    done: Continuation,
}

/// Which kind of lock a claim is after.
pub(super) enum Want {
    /// `<target>.lock`, as a link to the given inode or as a file of its own.
    File(Option<Arc<Inode>>),
    /// The file itself: the lock of a sidecar folder. Names that a dead owner's inode still has in the given folders are
    /// removed first.
    Sidecar(Vec<PathBuf>),
}

/// What is held.
#[derive(Debug)]
enum Grip {
    File(OsLock),
    Sidecar(Arc<Inode>),
}

impl Grip {
    fn is_owned(&self) -> bool {
        match self {
            Grip::File(os) => os.is_owned(),
            Grip::Sidecar(inode) => inode.is_named(),
        }
    }
}

struct Slot {
    owner: u64,
    queue: VecDeque<Waiter>,
    burst: u32,
}

static SLOTS: LazyLock<Mutex<HashMap<PathBuf, Slot>>> = LazyLock::new(Mutex::default);
static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

fn slots() -> MutexGuard<'static, HashMap<PathBuf, Slot>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lock that this process holds. Dropping it gives it to the next in line.
#[derive(Debug)]
pub struct FileLock {
    key: PathBuf,
    grip: Option<Grip>,
}

impl FileLock {
    /// Tells whether the lock file is still ours.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.grip.as_ref().is_some_and(Grip::is_owned)
    }

    /// Tells whether another process waits for it. A hint, for fairness.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        matches!(&self.grip, Some(Grip::File(os)) if os.is_contended())
    }

    /// Returns the inode of a sidecar's lock.
    pub(super) fn inode(&self) -> Option<Arc<Inode>> {
        match &self.grip {
            Some(Grip::Sidecar(inode)) => Some(Arc::clone(inode)),
            _ => None,
        }
    }

    /// Returns the canonical path that the lock is registered under.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let Some(grip) = self.grip.take() else { return };
        // A name that shares its inode with others cannot outlive its set; everything else goes to the next in line.
        let passes = !matches!(&grip, Grip::File(os) if os.is_shared()) && grip.is_owned();
        if passes {
            let mut slots = slots();
            let next = slots.get_mut(&self.key).filter(|slot| slot.burst < BURST).and_then(|slot| {
                let waiter = slot.queue.pop_front()?;
                slot.burst += 1;
                slot.owner = waiter.claim.options.owner;
                Some(waiter)
            });
            drop(slots);
            if let Some(waiter) = next {
                if let Some(key) = waiter.timer {
                    timer::cancel(key);
                }
                let lock = FileLock { key: std::mem::take(&mut self.key), grip: Some(grip) };
                pool::spawn(move || (waiter.claim.done)(Ok(lock)));
                return;
            }
        }
        // The file goes first: whoever comes after finds it free.
        drop(grip);
        leave(&self.key, true);
    }
}

/// Lets the next waiter of this process try, or forgets the slot.
fn leave(key: &Path, courteous: bool) {
    let mut slots = slots();
    let Some(slot) = slots.get_mut(key) else { return };
    let Some(waiter) = slot.queue.pop_front() else {
        slots.remove(key);
        return;
    };
    slot.owner = waiter.claim.options.owner;
    let yields = courteous && slot.burst >= BURST;
    slot.burst = 0;
    drop(slots);
    if let Some(key) = waiter.timer {
        timer::cancel(key);
    }
    if yields {
        timer::schedule(Instant::now() + COURTESY, move || contend(waiter.claim));
    } else {
        pool::spawn(move || contend(waiter.claim));
    }
}

/// Asks for the lock of `target` and calls `done` on a pool thread when it is held, or cannot be had.
///
/// Folders above `target` are made when missing. Must itself be called on a pool thread: it touches the disk.
pub fn lock(disk: &Disk, target: &Path, options: Options, done: Continuation) {
    lock_with(disk, target, options, Want::File(None), false, done);
}

pub(super) fn lock_with(disk: &Disk, target: &Path, options: Options, want: Want, front: bool, done: Continuation) {
    let key = match key_of(disk, target) {
        Ok(key) => key,
        Err(error) => return done(Err(error)),
    };
    let claim = Claim { key, target: target.to_owned(), options, asked: Instant::now(), tries: 0, want, done };
    let mut slots = slots();
    let Some(slot) = slots.get_mut(&claim.key) else {
        slots.insert(claim.key.clone(), Slot { owner: claim.options.owner, queue: VecDeque::new(), burst: 0 });
        drop(slots);
        return pool::off_intake(move || contend(claim));
    };
    if claim.options.acquire_timeout.is_zero() {
        drop(slots);
        let error = timeout(&claim);
        return (claim.done)(Err(error));
    }
    let id = NEXT_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let key = claim.key.clone();
    let timer = timer::schedule(claim.asked + claim.options.acquire_timeout, move || expire(&key, id));
    let waiter = Waiter { id, claim, timer: Some(timer) };
    if front {
        slot.queue.push_front(waiter);
    } else {
        slot.queue.push_back(waiter);
    }
}

fn expire(key: &Path, id: u64) {
    let mut slots = slots();
    let waiter = slots.get_mut(key).and_then(|slot| {
        let index = slot.queue.iter().position(|waiter| waiter.id == id)?;
        slot.queue.remove(index)
    });
    drop(slots);
    if let Some(waiter) = waiter {
        let error = timeout(&waiter.claim);
        (waiter.claim.done)(Err(error));
    }
}

/// Returns the one name under which all spellings of `target` meet.
fn key_of(disk: &Disk, target: &Path) -> Result<PathBuf> {
    let folder = folder_of(target);
    let name = target.file_name().ok_or_else(|| {
        HfError::new(Code::InvalidArgument, format!("cannot lock {}: it names no file", target.display()))
    })?;
    let canonical = match fs::canonicalize(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Synced at once: nobody later knows that these names are new.
            sync::dirs(disk, disk.create_dirs(folder).at("mkdir", folder)?)?;
            fs::canonicalize(folder)
        }
        result => result,
    };
    Ok(canonical.at("realpath", folder)?.join(name))
}

/// The error of a lock that was not obtained in time.
#[must_use]
pub fn timeout_error(target: &Path, asked: Instant) -> HfError {
    HfError::new(Code::LockTimeout, format!("File lock timeout: {}", target.display()))
        .with_field("path", target.to_string_lossy())
        .with_field("lockPath", lock_path_of(target).to_string_lossy())
        .with_field("waitedMs", u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX))
}

fn timeout(claim: &Claim) -> HfError {
    timeout_error(&claim.target, claim.asked)
}

/// Tries for the file; between tries no thread waits.
fn contend(mut claim: Claim) {
    // The key, not the target: every spelling and every symlinked folder meets at one lock file.
    let lock_path = match &claim.want {
        Want::File(_) => lock_path_of(&claim.key),
        Want::Sidecar(_) => claim.key.clone(),
    };
    loop {
        let Options { stale_timeout, shared_volume, .. } = claim.options;
        let found = match &claim.want {
            Want::File(inode) => {
                attempt(&lock_path, stale_timeout, shared_volume, inode.as_ref()).map(|a| a.map(Grip::File))
            }
            Want::Sidecar(folders) => {
                attempt_sidecar(&lock_path, stale_timeout, shared_volume, folders).map(|a| a.map(Grip::Sidecar))
            }
        };
        claim.tries += 1;
        let once = claim.options.acquire_timeout.is_zero();
        match found {
            Ok(Attempt::Acquired(grip)) => {
                let lock = FileLock { key: claim.key, grip: Some(grip) };
                return (claim.done)(Ok(lock));
            }
            Ok(Attempt::Broke) if !once && claim.asked.elapsed() < claim.options.acquire_timeout => {}
            Ok(_) => {
                let now = Instant::now();
                let deadline = claim.asked + claim.options.acquire_timeout;
                if once || now >= deadline {
                    let error = timeout(&claim);
                    leave(&claim.key, false);
                    return (claim.done)(Err(error));
                }
                let pause = pause_after(claim.tries).min(claim.options.retry_interval.max(Duration::from_millis(1)));
                timer::schedule((now + pause).min(deadline), move || contend(claim));
                return;
            }
            Err(error) => {
                let error = HfError::io("open", &lock_path, &error);
                leave(&claim.key, false);
                return (claim.done)(Err(error));
            }
        }
    }
}

/// Short pauses at first, because most locks are held for less than a millisecond.
fn pause_after(tries: u32) -> Duration {
    Duration::from_micros(match tries {
        0..400 => 300,
        400..2000 => 1000,
        2000..3000 => 5000,
        _ => 20_000,
    })
}

/// As [`lock`], but blocks the calling thread. Fails at once when that thread's own JavaScript holds or awaits the lock:
/// it could never be given back.
///
/// # Errors
/// [`Code::LockTimeout`], or an I/O failure.
pub fn lock_blocking(disk: &Disk, target: &Path, options: Options) -> Result<FileLock> {
    let key = key_of(disk, target)?;
    if slots().get(&key).is_some_and(|slot| slot.owner == options.owner) {
        return Err(HfError::new(
            Code::LockTimeout,
            format!(
                "File lock timeout: {} (this thread holds it already, so waiting for it here would never end)",
                target.display()
            ),
        )
        .with_field("path", target.to_string_lossy()));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let done = Box::new(move |result| {
        // The receiver waits below, so this cannot fail.
        let _ = sender.send(result);
    });
    lock_with(disk, target, options, Want::File(None), true, done);
    // A sender that is gone without a word had a job that panicked.
    receiver.recv().unwrap_or_else(|_| {
        Err(HfError::new(
            Code::Panic,
            format!("waiting for the lock of {} ended in a panic; please report it", target.display()),
        ))
    })
}
