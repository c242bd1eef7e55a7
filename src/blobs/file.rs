//! Blobs as files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{BlobStore, Done, closed, key};
use crate::durable::atomic::{self, Durability};
use crate::durable::{Disk, IoContext, optional, pool, sync};
use crate::error::{Code, HfError, Result};
use crate::ids;

/// Longest hex name; file systems allow 255 bytes. Longer keys are named by their hash, and stand in a file beside the blob.
const NAME_MAX: usize = 240;
const HASHED: &str = "b3-";
const KEY_FILE: &str = ".key";
const TEMPORARY: &str = ".tmp.";
/// Temporary files older than this belong to a dead process.
const LEFT_OVER: Duration = Duration::from_secs(3600);

/// Blobs in a folder, which any number of processes may share: `<2 hex of blake3(key)>/<hex of the key>`, raw bytes.
///
/// A blob is written to a temporary file, synced, and given its name by a hard link, which fails where the name is taken: so
/// the first wins. Where the file system has no hard links (FAT, some network shares) it is renamed instead, if a look before
/// found nothing; then of two processes that put one key in the same moment the last may win, whole.
///
/// After a folder could not be synced, puts and deletes fail with [`Code::Poisoned`] until the store is created again.
pub struct FileBlobs(Arc<Folder>);

struct Folder {
    root: PathBuf,
    disk: Disk,
    /// Folders whose own names are on the disk, by the byte they are named after.
    settled: Vec<AtomicBool>,
    /// One rename at a time, where there are no hard links.
    renaming: Mutex<()>,
    lost: AtomicBool,
    closed: AtomicBool,
}

/// Where a key's files are.
struct Place {
    byte: u8,
    folder: PathBuf,
    blob: PathBuf,
    /// Holds the key where its hex is too long for a name.
    key_file: Option<PathBuf>,
}

/// A temporary file. Its bytes live on under the blob's name, if it got one.
struct Temporary<'a> {
    disk: &'a Disk,
    path: PathBuf,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = self.disk.remove_file(&self.path);
    }
}

impl FileBlobs {
    /// Describes a store in the folder `root`, which is made by the first put. A relative path is taken from the current
    /// folder, now.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self::on(Disk::real(), root)
    }

    /// The same on `disk`, for tests that disturb it.
    #[must_use]
    pub fn on(disk: Disk, root: &Path) -> Self {
        Self(Arc::new(Folder {
            // Only an empty path, or a vanished current folder, cannot be made absolute; then each call says what is wrong.
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            disk,
            settled: std::iter::repeat_with(AtomicBool::default).take(256).collect(),
            renaming: Mutex::default(),
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }))
    }

    fn run<T: 'static>(&self, done: Done<T>, work: impl FnOnce(&Folder) -> Result<T> + Send + 'static) {
        let folder = Arc::clone(&self.0);
        pool::spawn(move || {
            let result = if folder.closed.load(Ordering::Acquire) {
                Err(closed(&folder.root.display().to_string()))
            } else {
                work(&folder)
            };
            done(result);
        });
    }
}

impl Folder {
    fn place(&self, integrity: &str) -> Result<Place> {
        key::check(integrity)?;
        let hash = blake3::hash(integrity.as_bytes());
        let byte = hash.as_bytes().first().copied().unwrap_or_default();
        let folder = self.root.join(format!("{byte:02x}"));
        let hex = key::to_hex(integrity);
        let (name, hashed) =
            if hex.len() <= NAME_MAX { (hex, false) } else { (format!("{HASHED}{}", hash.to_hex()), true) };
        let blob = folder.join(&name);
        let key_file = hashed.then(|| folder.join(name + KEY_FILE));
        Ok(Place { byte, folder, blob, key_file })
    }

    fn there(&self, path: &Path) -> Result<bool> {
        Ok(optional(self.disk.metadata(path)).at("stat", path)?.is_some_and(|metadata| metadata.is_file()))
    }

    fn trusted(&self) -> Result<()> {
        if !self.lost.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(HfError::new(
            Code::Poisoned,
            format!(
                "a folder of the blob store {} could not be synced, so what is on the disk is not known; create the store \
                 again, what it then holds is the truth",
                self.root.display()
            ),
        )
        .with_field("path", self.root.to_string_lossy()))
    }

    /// Forces names to the disk. A second sync after a failed one would prove nothing.
    fn settle(&self, folders: impl IntoIterator<Item = PathBuf>) -> Result<()> {
        sync::dirs(&self.disk, folders).inspect_err(|_| self.lost.store(true, Ordering::Release))
    }

    fn put(&self, integrity: &str, bytes: &[u8]) -> Result<()> {
        self.trusted()?;
        let place = self.place(integrity)?;
        if !self.there(&place.blob)? {
            self.prepare(&place)?;
            self.publish(&place, integrity, bytes)?;
        }
        self.keep_key(&place, integrity)?;
        // Also where somebody else was first: they may not have synced yet.
        self.settle([place.folder.clone()])?;
        self.settle_above(&place)
    }

    /// Makes the folder, and removes what dead processes left in it.
    fn prepare(&self, place: &Place) -> Result<()> {
        let made = self.disk.create_dirs(&place.folder).at("mkdir", &place.folder)?;
        if !made.is_empty() {
            return self.settle(made);
        }
        if !self.is_settled(place) {
            for name in self.disk.list(&place.folder).at("readdir", &place.folder)? {
                let path = place.folder.join(&name);
                let age =
                    || SystemTime::now().duration_since(self.disk.symlink_metadata(&path).ok()?.modified().ok()?).ok();
                if name.to_string_lossy().starts_with(TEMPORARY) && age().is_some_and(|age| age > LEFT_OVER) {
                    // Somebody else may have removed it.
                    let _ = self.disk.remove_file(&path);
                }
            }
        }
        Ok(())
    }

    fn is_settled(&self, place: &Place) -> bool {
        self.settled.get(usize::from(place.byte)).is_some_and(|settled| settled.load(Ordering::Acquire))
    }

    /// The folders above were perhaps made by a process that has not synced them yet.
    fn settle_above(&self, place: &Place) -> Result<()> {
        if !self.is_settled(place) {
            self.settle([self.root.clone(), atomic::folder_of(&self.root).to_owned()])?;
            if let Some(settled) = self.settled.get(usize::from(place.byte)) {
                settled.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Gives the bytes their name, unless it is taken.
    fn publish(&self, place: &Place, integrity: &str, bytes: &[u8]) -> Result<()> {
        // Before the blob, which nobody could list without it.
        self.keep_key(place, integrity)?;
        let path = place.folder.join(format!("{TEMPORARY}{}", ids::uuid()));
        let out = self.disk.create_with(&path, bytes, None).at("write", &path)?;
        let temporary = Temporary { disk: &self.disk, path };
        self.disk.sync_file(&out).at("fsync", &temporary.path).map_err(HfError::sync_failed)?;
        drop(out);
        match self.disk.hard_link(&temporary.path, &place.blob) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if lacks_links(&error) => self.rename(&temporary.path, place),
            Err(error) => Err(error).at("link", &place.blob),
        }
    }

    fn rename(&self, temporary: &Path, place: &Place) -> Result<()> {
        let _turn = self.renaming.lock().unwrap_or_else(PoisonError::into_inner);
        if self.there(&place.blob)? {
            return Ok(());
        }
        self.disk.rename(temporary, &place.blob).at("rename", &place.blob)
    }

    /// Writes the key beside the blob, where its name does not tell it. Puts look after the blob got its name, deletes after
    /// they removed the key: whatever their order, a blob keeps its key.
    fn keep_key(&self, place: &Place, integrity: &str) -> Result<()> {
        match &place.key_file {
            Some(path) if !self.there(path)? => {
                let kept = atomic::replace(&self.disk, path, integrity.as_bytes(), None, Durability::Full);
                kept.inspect_err(|error| {
                    if error.is_sync_failure() {
                        self.lost.store(true, Ordering::Release);
                    }
                })
            }
            _ => Ok(()),
        }
    }

    fn get(&self, integrity: &str) -> Result<Option<Vec<u8>>> {
        let place = self.place(integrity)?;
        optional(self.disk.read(&place.blob)).at("read", &place.blob)
    }

    fn delete(&self, integrity: &str) -> Result<()> {
        self.trusted()?;
        let place = self.place(integrity)?;
        let kept = self.disk.keep_inode(&place.blob);
        let removed = optional(self.disk.remove_file(&place.blob)).at("unlink", &place.blob)?.is_some();
        pool::close_later(kept.into_iter().collect());
        if let Some(path) = &place.key_file {
            optional(self.disk.remove_file(path)).at("unlink", path)?;
            // Put again meanwhile, by somebody who still saw the key.
            if self.there(&place.blob)? {
                self.keep_key(&place, integrity)?;
            }
        }
        if removed { self.settle([place.folder]) } else { Ok(()) }
    }

    fn list(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for byte in 0..=u8::MAX {
            let folder = self.root.join(format!("{byte:02x}"));
            for name in optional(self.disk.list(&folder)).at("readdir", &folder)?.unwrap_or_default() {
                let found = match name.to_str() {
                    Some(name) if name.ends_with(KEY_FILE) => None,
                    Some(name) if name.starts_with(HASHED) => {
                        let path = folder.join(format!("{name}{KEY_FILE}"));
                        let text = optional(self.disk.read(&path)).at("read", &path)?;
                        text.and_then(|text| String::from_utf8(text).ok())
                    }
                    Some(name) => key::from_hex(name),
                    None => None,
                };
                // A file that strayed here is no blob: no get would find it.
                let stands_here = |key: &String| self.place(key).is_ok_and(|place| place.blob == folder.join(&name));
                keys.extend(found.filter(stands_here));
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

/// Tells whether the file system has no hard links, or not here.
fn lacks_links(error: &io::Error) -> bool {
    // EPERM on Unix is also ERROR_INVALID_FUNCTION on Windows, with the same meaning.
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks) || error.raw_os_error() == Some(1)
}

impl BlobStore for FileBlobs {
    fn put(&self, integrity: String, bytes: Vec<u8>, done: Done<()>) {
        self.run(done, move |folder| folder.put(&integrity, &bytes));
    }

    fn get(&self, integrity: String, done: Done<Option<Vec<u8>>>) {
        self.run(done, move |folder| folder.get(&integrity));
    }

    fn has(&self, integrity: String, done: Done<bool>) {
        self.run(done, move |folder| folder.there(&folder.place(&integrity)?.blob));
    }

    fn delete(&self, integrity: String, done: Done<()>) {
        self.run(done, move |folder| folder.delete(&integrity));
    }

    fn list(&self, done: Done<Vec<String>>) {
        self.run(done, Folder::list);
    }

    fn place(&self) -> String {
        self.0.root.display().to_string()
    }

    fn close(&self, done: Done<()>) {
        self.0.closed.store(true, Ordering::Release);
        done(Ok(()));
    }
}
