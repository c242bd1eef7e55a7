//! One lock file: taking it, keeping it fresh, giving it back.
//!
//! Lock files are not durable state, so they do not go through the fault seam.

use std::fs::{self, File, FileTimes, Metadata, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::content::{self, Content, STAMP_WIDTH};
use crate::clock;
use crate::durable::atomic::folder_of;
use crate::durable::disk::open_without_waiting;
use crate::durable::timer;

/// Device and inode: what tells whether a path still names the file that was opened.
pub type FileId = (u64, u64);

pub fn id_of(metadata: &Metadata) -> FileId {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    }
    #[cfg(not(unix))]
    {
        // An open file cannot be unlinked by others there, so the path names it for as long as it exists.
        let _ = metadata;
        (0, 0)
    }
}

/// Returns `<target>.lock`.
#[must_use]
pub fn lock_path_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Rewrites line 2 at intervals, so that programs which go by age see a living owner.
#[derive(Debug)]
struct Beat(Arc<Mutex<Option<timer::Key>>>);

impl Beat {
    fn start(file: Arc<File>, offset: u64, stale: Duration) -> Self {
        let interval = (stale / 3).clamp(Duration::from_millis(5), Duration::from_secs(5));
        let slot = Arc::new(Mutex::new(None));
        let mut guard = slot.lock().unwrap_or_else(PoisonError::into_inner);
        Self::schedule(&slot, &mut guard, file, offset, interval);
        drop(guard);
        Self(slot)
    }

    fn schedule(
        slot: &Arc<Mutex<Option<timer::Key>>>,
        guard: &mut Option<timer::Key>,
        file: Arc<File>,
        offset: u64,
        interval: Duration,
    ) {
        let again = Arc::clone(slot);
        *guard = Some(timer::schedule(Instant::now() + interval, move || {
            // Decided, written and scheduled under one guard, so that a lock which is given back has no beat afterwards:
            // `None` says that it was given back while this job was on its way.
            let mut guard = again.lock().unwrap_or_else(PoisonError::into_inner);
            if guard.is_some() {
                let _ = write_at(&file, format!("{:013}", clock::epoch_ms()).as_bytes(), offset);
                Self::schedule(&again, &mut guard, file, offset, interval);
            }
        }));
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        if let Some(key) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            timer::cancel(key);
        }
    }
}

fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    debug_assert_eq!(bytes.len(), STAMP_WIDTH);
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_at(file, bytes, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_write(file, bytes, offset);
}

/// An inode that is held by its OS lock and can be linked to many lock names.
#[derive(Debug)]
pub struct Inode {
    /// Holds the OS lock for as long as it is open.
    file: Arc<File>,
    /// Access time when it was taken; a waiter changes it.
    accessed: Option<SystemTime>,
    id: FileId,
    /// A name of the inode to link from.
    name: PathBuf,
    beat: Option<Beat>,
}

impl Drop for Inode {
    fn drop(&mut self) {
        // No beat may reach the text of the next owner.
        drop(self.beat.take());
        // Free for others at once; the inode itself may go when there is time.
        let _ = self.file.unlock();
        let file = Arc::clone(&self.file);
        crate::durable::pool::spawn(move || drop(file));
    }
}

fn accessed(file: &File) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.accessed()).ok()
}

impl Inode {
    /// Takes over `file`, whose OS lock the caller holds, and writes the owner's lines into it.
    pub fn adopt(file: File, name: PathBuf, stale: Duration, shared_volume: bool) -> io::Result<Self> {
        use std::io::{Seek, Write};
        let (text, offset) = content::fresh(shared_volume);
        let mut handle = &file;
        handle.rewind()?;
        handle.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        let id = id_of(&file.metadata()?);
        let file = Arc::new(file);
        Ok(Self {
            beat: Some(Beat::start(Arc::clone(&file), offset, stale)),
            accessed: accessed(&file),
            file,
            id,
            name,
        })
    }

    pub fn id(&self) -> FileId {
        self.id
    }

    /// Tells whether the name that links are made from is still this inode.
    pub fn is_named(&self) -> bool {
        fs::symlink_metadata(&self.name).is_ok_and(|metadata| id_of(&metadata) == self.id)
    }
}

/// A lock file that this process owns.
#[derive(Debug)]
pub struct OsLock {
    path: PathBuf,
    inode: Arc<Inode>,
    shared: bool,
}

impl OsLock {
    /// Tells whether the path still names our file. False after somebody broke the lock.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| id_of(&metadata) == self.inode.id)
    }

    /// Tells whether somebody in another process has tried for the lock since it was taken.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        accessed(&self.inode.file) != self.inode.accessed
    }

    /// Tells whether the inode serves other lock names as well.
    pub fn is_shared(&self) -> bool {
        self.shared
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // The name goes before the OS lock (with the last `Inode`): nobody finds it free and still named.
        if self.is_owned() {
            #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What one try at a lock found.
#[derive(Debug)]
pub enum Attempt<T = OsLock> {
    /// It is ours.
    Acquired(T),
    /// Somebody living holds it.
    Held,
    /// A dead or expired lock was removed; the next try may succeed.
    Broke,
}

impl<T> Attempt<T> {
    /// Changes what was acquired.
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Attempt<U> {
        match self {
            Attempt::Acquired(value) => Attempt::Acquired(f(value)),
            Attempt::Held => Attempt::Held,
            Attempt::Broke => Attempt::Broke,
        }
    }
}

/// Tries once to take `lock_path`, with `shared`'s inode if given.
///
/// # Errors
/// I/O failures other than "it exists".
pub fn attempt(
    lock_path: &Path,
    stale: Duration,
    shared_volume: bool,
    shared: Option<&Arc<Inode>>,
) -> io::Result<Attempt> {
    match open_without_waiting(lock_path) {
        Ok(existing) => return examine(existing, lock_path, stale, shared),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // A lock that may not even be read: its existence is all that is known.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && lock_path.exists() => {
            return Ok(Attempt::Held);
        }
        Err(error) => return Err(error),
    }
    let made = match shared {
        Some(inode) => link(&inode.name, lock_path).map(|()| OsLock {
            path: lock_path.to_owned(),
            inode: Arc::clone(inode),
            shared: true,
        }),
        None => create(lock_path, stale, shared_volume),
    };
    match made {
        Ok(lock) => Ok(Attempt::Acquired(lock)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Attempt::Held),
        Err(error) if shared.is_some() && cannot_link(&error) => attempt(lock_path, stale, shared_volume, None),
        Err(error) => Err(error),
    }
}

/// Tries once to take the lock of a sidecar folder, a file that stays. Lock names that a dead owner left on its inode in
/// `folders` are removed; the inode is replaced when others remain, so that a living owner never revives them.
pub fn attempt_sidecar(
    path: &Path,
    stale: Duration,
    shared_volume: bool,
    folders: &[PathBuf],
) -> io::Result<Attempt<Arc<Inode>>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Held),
        // Without OS locks nobody could tell a living owner from a dead one, so a batch here would be unsafe.
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let metadata = file.metadata()?;
    let id = id_of(&metadata);
    if !fs::symlink_metadata(path).is_ok_and(|now| id_of(&now) == id) {
        return Ok(Attempt::Broke);
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&metadata) > 1 {
        for folder in folders {
            remove_names(folder, id);
        }
        if std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) > 1 {
            #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
            fs::remove_file(path)?;
            return Ok(Attempt::Broke);
        }
    }
    #[cfg(not(unix))]
    let _ = folders;
    Inode::adopt(file, path.to_owned(), stale, shared_volume).map(|inode| Attempt::Acquired(Arc::new(inode)))
}

#[cfg(unix)]
fn remove_names(folder: &Path, id: FileId) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if is_lock && fs::symlink_metadata(&path).is_ok_and(|metadata| id_of(&metadata) == id) {
            #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
            let _ = fs::remove_file(&path);
        }
    }
}

/// Tells whether no living process holds the OS lock of `path`. True when there is no such file.
#[must_use]
pub fn is_free(path: &Path) -> bool {
    match open_without_waiting(path) {
        // Shared, so that two who look do not see each other.
        Ok(file) => !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Errors of file systems without hard links, or of an inode that lives on another one.
fn cannot_link(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::CrossesDevices)
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
    fs::hard_link(from, to)
}

/// Makes a lock file that appears complete and held: written and OS-locked before it gets its name.
fn create(lock_path: &Path, stale: Duration, shared_volume: bool) -> io::Result<OsLock> {
    #[cfg(target_os = "linux")]
    if let Some(result) = create_unnamed(lock_path, stale, shared_volume) {
        return result;
    }
    let temp = folder_of(lock_path).join(format!(".tmp.{}", crate::ids::uuid()));
    let file = File::options().read(true).write(true).create_new(true).open(&temp)?;
    let done = hold(&file)
        .and_then(|()| Inode::adopt(file, temp.clone(), stale, shared_volume))
        .and_then(|inode| link(&temp, lock_path).map(|()| inode));
    #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
    let _ = fs::remove_file(&temp);
    match done {
        Ok(inode) => Ok(OsLock { path: lock_path.to_owned(), inode: Arc::new(inode), shared: false }),
        Err(error) if cannot_link(&error) => {
            let file = File::options().read(true).write(true).create_new(true).open(lock_path)?;
            hold(&file)?;
            let inode = Inode::adopt(file, lock_path.to_owned(), stale, shared_volume)?;
            Ok(OsLock { path: lock_path.to_owned(), inode: Arc::new(inode), shared: false })
        }
        Err(error) => Err(error),
    }
}

/// The same with a file that has no name until it is linked, so that a kill leaves nothing. `None` where the file system
/// has no such files.
#[cfg(target_os = "linux")]
fn create_unnamed(lock_path: &Path, stale: Duration, shared_volume: bool) -> Option<io::Result<OsLock>> {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
    use rustix::io::Errno;
    use std::os::fd::AsRawFd;

    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match open(folder_of(lock_path), flags, Mode::from_raw_mode(0o666)) {
        Ok(fd) => File::from(fd),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => return None,
        Err(error) => return Some(Err(error.into())),
    };
    let link_name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let inode = match hold(&file).and_then(|()| Inode::adopt(file, link_name.clone(), stale, shared_volume)) {
        Ok(inode) => inode,
        Err(error) => return Some(Err(error)),
    };
    match linkat(CWD, &link_name, CWD, lock_path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Some(Ok(OsLock { path: lock_path.to_owned(), inode: Arc::new(inode), shared: false })),
        // No /proc here.
        Err(Errno::NOENT) if folder_of(lock_path).is_dir() => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Takes the OS lock of a file that nobody else can know yet. File systems without OS locks leave the two-line rules.
fn hold(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn examine(existing: File, lock_path: &Path, stale: Duration, shared: Option<&Arc<Inode>>) -> io::Result<Attempt> {
    let metadata = existing.metadata()?;
    let modified_ms = metadata.modified().map_or(0, |time| clock::millis_since_epoch(time) as i64);
    let stale_ms = u64::try_from(stale.as_millis()).unwrap_or(u64::MAX);
    if metadata.is_dir() {
        if Content::parse(b"").is_stale(stale_ms, modified_ms) {
            fs::remove_dir_all(lock_path)?;
            return Ok(Attempt::Broke);
        }
        return Ok(Attempt::Held);
    }
    if let Some(inode) = shared.filter(|inode| cfg!(unix) && inode.id() == id_of(&metadata)) {
        // A name that a dead owner of our inode left behind. We hold the OS lock, so it is ours already.
        return Ok(Attempt::Acquired(OsLock { path: lock_path.to_owned(), inode: Arc::clone(inode), shared: true }));
    }
    if !metadata.is_file() {
        // Nobody's lock, but its existence counts, as for everybody else.
        if !Content::parse(b"").is_stale(stale_ms, modified_ms) {
            return Ok(Attempt::Held);
        }
        #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
        crate::durable::optional(fs::remove_file(lock_path))?;
        return Ok(Attempt::Broke);
    }
    let before = read_head(&existing)?;
    let content = Content::parse(&before);
    if !content.marked && !content.is_stale(stale_ms, modified_ms) {
        return Ok(Attempt::Held);
    }
    match existing.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Tells the owner that somebody waits: it gives the lock back after a fair share of its own work. A hint only.
            let _ = existing.set_times(FileTimes::new().set_accessed(SystemTime::now()));
            return Ok(Attempt::Held);
        }
        Err(TryLockError::Error(_)) if content.marked && !content.is_stale(stale_ms, modified_ms) => {
            return Ok(Attempt::Held);
        }
        Err(TryLockError::Error(_)) => {}
    }
    // Whoever breaks a lock holds its OS lock, so breakers exclude each other; the name must still be this very file.
    let unchanged = fs::symlink_metadata(lock_path).is_ok_and(|now| id_of(&now) == id_of(&metadata))
        && read_head(&existing)? == before;
    if unchanged {
        #[expect(clippy::disallowed_methods, reason = "lock files are outside the fault seam")]
        crate::durable::optional(fs::remove_file(lock_path))?;
    }
    Ok(Attempt::Broke)
}

fn read_head(file: &File) -> io::Result<Vec<u8>> {
    use std::io::Seek;
    let mut handle = file;
    handle.rewind()?;
    let mut bytes = Vec::with_capacity(256);
    handle.take(4096).read_to_end(&mut bytes)?;
    Ok(bytes)
}
